# SPDX-License-Identifier: Apache-2.0
"""Where in the user's own code something happens, for records and messages."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import torch

from bitscout.networks.calls import short_line

__all__ = ["failed_line", "running_line"]

_TORCH: Final = str(Path(torch.__file__).parent)
_OURS: Final = str(Path(__file__).parents[1])


def running_line(outermost: CodeType) -> str:
    """Return ``file:line`` of the innermost running frame that is neither ours nor PyTorch's.

    Args:
        outermost: Code of the function at which to stop looking: nothing outside of it counts.

    Returns:
        ``""`` if there is no such frame.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not outermost:
        if _is_foreign(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def failed_line(error: BaseException) -> str:
    """Return ``file:line`` of the innermost frame of the user's code that `error` went through.

    Relative to the working directory where it lies below it; ``""`` if there is none.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_foreign(frame.filename):
            return short_line(f"{frame.filename}:{frame.lineno}")
    return ""


def _is_foreign(file: str) -> bool:
    return not file.startswith((_TORCH, _OURS, "<"))
