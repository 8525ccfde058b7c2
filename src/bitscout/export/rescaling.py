# SPDX-License-Identifier: Apache-2.0
"""`apply_rescale` in floating point where that is proven to give the same integers.

Notation as in `bitscout.export.fixed_point`; ``p = sum_i x_i M_i`` and ``q = D 2**S``.

If every partial sum of ``p`` is below ``2**53``, then float64 holds ``p`` exactly, and
``p / 2**S`` too. With ``D = 1``, `np.rint` of that is the result. Otherwise ``p / 2**S / D`` is
rounded once, by at most ``|p / q| 2**-53``. Where ``p / q`` is not exactly half-way between two
integers it is at least ``1 / (2 q)`` away from there, which is more if ``|p| < 2**52``: the
rounded quotient is on the same side. Where it is half-way, float64 holds it. Beyond these limits,
int64 computes.

Multipliers of exact steps (`bitscout.quantization.exact_steps`) are few bits and many zeros. If
``2**k`` divides all of a channel, p is a multiple of it, and float32, twice as fast, holds p while
it is below ``2**(24 + k)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.fixed_point import apply_rescale
from bitscout.export.graph import Rescale

__all__ = ["rescaling"]

Values = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
EXACT_FLOAT32 = 2**24
EXACT_FLOAT64 = 2**53
LONG_ROW = 1024  # Elements; NumPy's loops over shorter rows cost more than the arithmetic.
# Bounds are float64 sums, themselves a few units off.
SLACK = 1 - 1e-9


def rescaling(
    op: Rescale,
    zero_points: Sequence[int],
    magnitudes: Sequence[FloatArray],
    storage_type: np.dtype[Any],
) -> Callable[..., Values]:
    """Return the function from operands, channels last, to their rescaled sum.

    Args:
        op: The operation.
        zero_points: Of the operands.
        magnitudes: Bounds of the operands' integers, by channel, with their zero points.
        storage_type: Of the result.
    """
    factors = op.multiplier.astype(np.float64)
    offset = -sum(zero * factor for zero, factor in zip(zero_points, factors, strict=True))
    bound = np.abs(offset) + sum(
        magnitude * factor for magnitude, factor in zip(magnitudes, factors, strict=True)
    )
    has_divisor = bool((op.divisor != 1).any())
    limit = EXACT_FLOAT64 / (2 if has_divisor else 1) * SLACK
    if not np.all(bound < limit):
        return partial(_in_integers, op, zero_points, storage_type)
    scale = np.exp2(-op.shift.astype(np.float64))
    is_simple = not has_divisor and np.all(bound < EXACT_FLOAT32 * _units(op) * SLACK)
    float_type = np.dtype(np.float32 if is_simple else np.float64)
    return _Rescaling(
        op,
        [_row(op, (factor * scale).astype(float_type)) for factor in factors],
        _row(op, (offset * scale).astype(float_type)) if np.any(offset) else None,
        op.divisor.astype(np.float64)[..., None] if has_divisor else None,
        float(np.max(bound * scale)) + abs(op.grid.zero_point) + 1,
        storage_type,
    )


def _units(op: Rescale) -> FloatArray:
    """Return the largest power of two that divides all multipliers of a channel."""
    together = np.bitwise_or.reduce(op.multiplier, axis=0)
    units: FloatArray = np.maximum(together & -together, 1).astype(np.float64)
    return units


def _row(op: Rescale, by_channel: Values) -> Values:
    """Return factors repeated along the width, or the image, so that rows are long."""
    if by_channel.size == 1:
        return by_channel.reshape(())
    width, pixels = op.shape[-1] if len(op.shape) > 1 else 1, prod(op.shape[1:])
    repeats = width if width * by_channel.size >= LONG_ROW else pixels
    return np.tile(by_channel, repeats)


class _Rescaling:
    def __init__(
        self,
        op: Rescale,
        factors: list[Values],
        offset: Values | None,
        divisor: FloatArray | None,
        largest: float,
        storage_type: np.dtype[Any],
    ) -> None:
        self._grid = op.grid
        self._factors, self._offset, self._divisor = factors, offset, divisor
        self._storage_type = storage_type
        self._is_short = largest < np.iinfo(np.int16).max

    def __call__(self, *operands: Values) -> Values:
        total = np.empty(operands[0].shape, dtype=self._factors[0].dtype)
        rows = total.reshape(
            -1, self._factors[0].size if self._factors[0].ndim else total.size or 1
        )
        for index, (operand, factor) in enumerate(zip(operands, self._factors, strict=True)):
            if index:
                rows += operand.reshape(rows.shape) * factor
            else:
                np.multiply(operand.reshape(rows.shape), factor, out=rows)
        if self._offset is not None:
            rows += self._offset
        if self._divisor is not None:
            total /= self._divisor
        return self._clipped(np.rint(total, out=total))

    def _clipped(self, rounded: Values) -> Values:
        grid = self._grid
        if self._is_short:
            # Integers of 16 bits are clipped four times as fast.
            short = rounded.astype(np.int16)
            if grid.zero_point:
                short += np.int16(grid.zero_point)
            np.clip(short, max(grid.quant_min, -32768), min(grid.quant_max, 32767), out=short)
            return short.astype(self._storage_type)
        rounded += grid.zero_point
        np.clip(rounded, grid.quant_min, grid.quant_max, out=rounded)
        return rounded.astype(self._storage_type)


def _in_integers(
    op: Rescale, zero_points: Sequence[int], storage_type: np.dtype[Any], *operands: Values
) -> Values:
    result = apply_rescale(
        [x.astype(np.int64) - zero for x, zero in zip(operands, zero_points, strict=True)],
        op.multiplier,
        op.shift,
        op.divisor[..., None] if op.divisor.ndim else op.divisor,
        zero_point=op.grid.zero_point,
        quant_range=(op.grid.quant_min, op.grid.quant_max),
    )
    return result.astype(storage_type)
