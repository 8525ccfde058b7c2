# SPDX-License-Identifier: Apache-2.0
"""Real tensors between two quantizers, as what they are made of.

In a fake-quantized network a layer's result is real and its readers quantize it. While a network
is lowered such a result is one of these expressions over integer tensors; when a reader comes, the
expression is turned into integers on the reader's grid. Rounding is monotone, so quantization
moves through clamping, max pooling, concatenation and flattening without changing a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bitscout.export.windows import Windows

__all__ = ["Clamped", "Expr", "Flat", "Image", "Joined", "MaxPooled", "Padded", "Term", "Total"]

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


Expr = Image | Total | Clamped | MaxPooled | Joined | Flat | Padded
