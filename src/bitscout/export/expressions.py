# SPDX-License-Identifier: Apache-2.0
"""Real tensors between two quantizers, as what they are made of.

In a fake-quantized network a layer's result is real and its readers quantize it. While a network
is lowered such a result is one of these expressions over integer tensors; when a reader comes, the
expression is turned into integers on the reader's grid. Rounding is monotone, so quantization
moves through clamping, max pooling, concatenation and flattening without changing a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError
from bitscout.export.graph import Grid
from bitscout.export.windows import Windows

__all__ = [
    "Clamped",
    "Expr",
    "Flat",
    "Image",
    "Joined",
    "MaxPooled",
    "Padded",
    "Term",
    "Total",
    "Widened",
    "clamped_grid",
    "not_quantized",
    "refuse",
]

Shape = tuple[int, ...]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Image:
    """The network's input, not yet quantized."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Term:
    """``scale * tensor / divisor``.

    Attributes:
        tensor: Name of an operation.
        scale: Shape ``()`` or ``(C,)``.
        divisor: Shape ``()`` or ``(H, W)``.
    """

    tensor: str
    scale: FloatArray
    divisor: IntArray = field(default_factory=lambda: np.array(1, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Total:
    """Sum of terms."""

    shape: Shape
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Clamped:
    """``min(max(source, low), high)``: a ReLU is ``(0, inf)``."""

    shape: Shape
    source: Expr
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class MaxPooled:
    """Largest value in each window."""

    shape: Shape
    source: Expr
    windows: Windows


@dataclass(frozen=True, eq=False)
class Joined:
    """Parts one behind the other, along the channels."""

    shape: Shape
    parts: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Flat:
    """Source as a vector."""

    shape: Shape
    source: Expr


@dataclass(frozen=True, eq=False)
class Padded:
    """Source with zeros around it: top, left, bottom, right."""

    shape: Shape
    source: Expr
    pads: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Widened:
    """Source with channels of zeros: `before` of them first, the others last."""

    shape: Shape
    source: Expr
    before: int


Expr = Image | Total | Clamped | MaxPooled | Joined | Flat | Padded | Widened


def clamped_grid(grid: Grid, low: float, high: float) -> Grid:
    """Return the grid with its range cut at two real values, divided in float32 like PyTorch.

    Raises:
        UnsupportedError: If 0 is cut off.
    """
    if not low <= 0 <= high:
        msg = (
            f"a clamp to [{low:g}, {high:g}] leaves out 0, and every range of integers here has "
            "it. Clamp to a range with 0 in it."
        )
        raise UnsupportedError(msg)
    if low == 0 and high == np.inf:
        return replace(grid, quant_min=max(grid.quant_min, grid.zero_point))
    step = np.float32(grid.scale)
    quant_min, quant_max = grid.quant_min, grid.quant_max
    if np.isfinite(low):
        quant_min = max(quant_min, int(np.rint(np.float32(low) / step)))
    if np.isfinite(high):
        quant_max = min(quant_max, int(np.rint(np.float32(high) / step)))
    return replace(grid, quant_min=quant_min, quant_max=quant_max)


def refuse(problem: str, remedy: str) -> NoReturn:
    """Raise; who follows the network adds what was called, and where."""
    msg = f"it {problem}. {remedy}."
    raise UnsupportedError(msg)


def not_quantized(expr: Expr) -> UnsupportedError:
    """Return the error for a real tensor that integers would have to hold unrounded."""
    msg = (
        f"it reads {_KINDS.get(type(expr), 'a result')} that nothing has quantized, so no "
        "integers compute it exactly. Use bitscout.quantization.Add for additions, and "
        "AvgPool2d or AdaptiveAvgPool2d modules for averages: these quantize what they read."
    )
    return UnsupportedError(msg)


_KINDS = {
    Image: "the network's input",
    Total: "a sum",
    Clamped: "a rectified or clamped tensor",
    MaxPooled: "a max pool",
    Joined: "a concatenation",
    Padded: "a padded tensor",
    Widened: "a tensor with more channels",
}
