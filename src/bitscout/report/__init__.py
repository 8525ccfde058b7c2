# SPDX-License-Identifier: Apache-2.0
"""What a run found, for people: one self-contained page, and tables for the terminal."""

from bitscout.report.certificates import (
    best_certificate,
    best_name,
    certificate_table,
    certificate_words,
    exported_lines,
)
from bitscout.report.page import render_report, write_report
from bitscout.report.rows import format_percent, format_size
from bitscout.report.tables import front_table, networks_table, show_run, verdict_lines

__all__ = [
    "best_certificate",
    "best_name",
    "certificate_table",
    "certificate_words",
    "exported_lines",
    "format_percent",
    "format_size",
    "front_table",
    "networks_table",
    "render_report",
    "show_run",
    "verdict_lines",
    "write_report",
]
