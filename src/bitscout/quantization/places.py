# SPDX-License-Identifier: Apache-2.0
"""Where in a network's source a function is called, so that the same call is found again.

A place is a line of source, the module whose ``forward`` was running, and a count of the calls of
one kind on that line in one run of that ``forward``. The line keeps places apart that a count
alone would mix up: a branch for training only, or one that depends on the image's size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["Place", "Tally", "kind_of"]

_TORCH = str(Path(torch.__file__).parent)
# The `forward` of PyTorch's own modules is source like any other.
_TORCH_MODULES = str(Path(torch.__file__).parent / "nn" / "modules")
_HERE = str(Path(__file__).parent)

KINDS: Final[Mapping[str, str]] = {
    "add": "add",
    "add_": "add",
    "__add__": "add",
    "__iadd__": "add",
    "__radd__": "add",
    "avg_pool2d": "avg_pool2d",
    "adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "mean": "mean",
    "batch_norm": "batch_norm",
    "conv2d": "conv2d",
    "linear": "linear",
}


class Place(NamedTuple):
    """Where a function is called.

    Attributes:
        host: Path of the innermost running module.
        kind: What it does, see `kind_of`; ``""`` for all other functions.
        file: Source file.
        line: Line in it.
        nth: How many calls of this kind the line made before, in this run of the module.
    """

    host: str
    kind: str
    file: str
    line: int
    nth: int

    @property
    def source(self) -> str:
        """Return ``file:line``."""
        return f"{self.file}:{self.line}"


def kind_of(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Return what a function does, if it is one that a quantized module can replace.

    ``"add"`` is an addition of two tensors; a number added is none.
    """
    kind = KINDS.get(getattr(func, "__name__", ""))
    if kind != "add":
        return kind
    operands = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)]
    is_sum = len(operands) == 2 and all(isinstance(operand, Tensor) for operand in operands)
    return kind if is_sum else None


class Tally:
    """The running modules, innermost last, and what each called so far."""

    def __init__(self) -> None:
        self._frames: list[tuple[str, dict[tuple[str, str, int], int]]] = []

    @property
    def depth(self) -> int:
        """How many modules are running."""
        return len(self._frames)

    def enter(self, path: str) -> None:
        """Begin a run of the module at `path`."""
        self._frames.append((path, {}))

    def leave(self) -> None:
        """End the innermost run."""
        self._frames.pop()

    def place(self, kind: str) -> Place:
        """Return the place of the call that is being made, and count it."""
        path, counts = self._frames[-1] if self._frames else ("", {})
        key = (kind, *_source())
        counts[key] = counts.get(key, -1) + 1
        return Place(path, *key, counts[key])


def _source() -> tuple[str, int]:
    """Return file and line of the innermost ``forward``."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        is_torch = name.startswith(_TORCH) and not name.startswith(_TORCH_MODULES)
        if not is_torch and not name.startswith(_HERE):
            return name, frame.f_lineno
        frame = frame.f_back
    return "", 0
