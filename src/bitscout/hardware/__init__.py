# SPDX-License-Identifier: Apache-2.0
"""What a candidate costs, computed from its layers alone, without PyTorch."""

from bitscout.hardware.size import SizeReport, size_report

__all__ = ["SizeReport", "size_report"]
