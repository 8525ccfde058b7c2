# SPDX-License-Identifier: Apache-2.0
"""What a run found, for people: one self-contained page, and tables for the terminal.

The names below are imported when they are first used: a page brings plotly, a run PyTorch, and
a table of costs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitscout.report.certificates import (
        best_certificate,
        best_name,
        certificate_table,
        certificate_words,
        exported_lines,
    )
    from bitscout.report.cost_tables import cost_table
    from bitscout.report.page import render_report, write_report
    from bitscout.report.rows import format_percent, format_size
    from bitscout.report.sensitivity_page import write_sensitivity_page
    from bitscout.report.sensitivity_tables import sensitivity_table
    from bitscout.report.tables import front_table, networks_table, show_run, verdict_lines

__all__ = [
    "best_certificate",
    "best_name",
    "certificate_table",
    "certificate_words",
    "cost_table",
    "exported_lines",
    "format_percent",
    "format_size",
    "front_table",
    "networks_table",
    "render_report",
    "sensitivity_table",
    "show_run",
    "verdict_lines",
    "write_report",
    "write_sensitivity_page",
]

_HOMES = {
    "best_certificate": "certificates",
    "best_name": "certificates",
    "certificate_table": "certificates",
    "certificate_words": "certificates",
    "cost_table": "cost_tables",
    "exported_lines": "certificates",
    "format_percent": "rows",
    "format_size": "rows",
    "front_table": "tables",
    "networks_table": "tables",
    "render_report": "page",
    "sensitivity_table": "sensitivity_tables",
    "show_run": "tables",
    "verdict_lines": "tables",
    "write_report": "page",
    "write_sensitivity_page": "sensitivity_page",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module's names are of any type
    """Import `name` from its home (PEP 562)."""
    if name not in _HOMES:
        msg = f"module 'bitscout.report' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"bitscout.report.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
