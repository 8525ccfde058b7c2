# SPDX-License-Identifier: Apache-2.0
"""Rescaling integers by real factors with integer arithmetic: the contract of every format.

Notation, used by every function in this module:

    x_i   integer operands (codes or int32 sums)
    r_i   real factors, the ratio of an operand's step to the result's step
    M_i   integer multipliers, the largest of a channel in ``[2**30, 2**31)``
    S     shift, common to the operands of a channel
    D     divisor, 1 except for an average over D values

The result is ``clamp(half_even(sum_i x_i M_i / (D 2**S)) + zero_point, quant_min, quant_max)``:
one rounding, of the exact rational number, half to even. Half-even because PyTorch, ONNX Runtime,
QONNX and hls4ml round so: with power-of-two steps exact ties are common, and rounding them up
changes up to 6 % of a layer's outputs. Parity is that of the quotient, before the zero point.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError

__all__ = ["INT32_MAX", "MAX_SHIFT", "apply_rescale", "fixed_point", "half_even_divide"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

INT32_MAX = 2**31 - 1
MULTIPLIER_BITS = 31
MAX_SHIFT = 62  # So that the shifted one, and half of it, fit in an int64.


def fixed_point(ratios: FloatArray, largest_divisor: int = 1) -> tuple[IntArray, IntArray]:
    """Return multipliers and shifts that stand for real factors.

    Args:
        ratios: Positive factors, shape ``(n_operands, n_channels)``.
        largest_divisor: D, or the largest of several.

    Returns:
        ``(M, S)`` of shapes ``(n_operands, n_channels)`` and ``(n_channels,)`` with
        ``ratios = M / 2**S`` up to half a unit of the largest M of the channel, which is in
        ``[2**30, 2**31)``. Where that needs a shift with which ``D 2**S`` is 2**63 or more, the
        shift and the multipliers are smaller: the result of an operand is 0 there, whatever int32
        comes in.

    Raises:
        ExportError: If a factor is not positive and finite, or 2**30 or more.

    Example:
        >>> multiplier, shift = fixed_point(np.array([[0.5], [0.125]]))
        >>> multiplier.tolist(), shift.tolist()
        ([[1073741824], [268435456]], [31])
    """
    largest = ratios.max(axis=0)
    if not (np.isfinite(ratios).all() and (ratios > 0).all() and (largest < 2.0**30).all()):
        msg = (
            "A ratio of quantization steps must be positive, finite and below 2**30, got "
            f"{ratios.min()} to {ratios.max()}. Look for a step that is zero or not finite."
        )
        raise ExportError(msg)
    shift = (MULTIPLIER_BITS - np.frexp(largest)[1]).astype(np.int64)
    # Rounding up to 2**31 is one bit too many.
    shift -= np.rint(np.ldexp(largest, shift)) >= 2.0**MULTIPLIER_BITS
    # A D of b bits and an S of 63 - b: beyond, x r is below 2**(b - 2), and D at least 2**(b - 1).
    shift = np.minimum(shift, MAX_SHIFT + 1 - largest_divisor.bit_length())
    return np.rint(np.ldexp(ratios, shift)).astype(np.int64), shift


def half_even_divide(numerator: IntArray, denominator: IntArray | int) -> IntArray:
    """Return ``numerator / denominator`` rounded half to even, exactly.

    Args:
        numerator: Any shape, ``|numerator| < 2**62``.
        denominator: Positive, any int64, broadcastable.

    Example:
        >>> half_even_divide(np.array([-3, -1, 1, 3, 5, 6]), 2).tolist()
        [-2, 0, 0, 2, 2, 3]
    """
    quotient, remainder = np.divmod(numerator, denominator)
    # Against the rest to the next multiple, not against half: twice the rest might overflow.
    upper = denominator - remainder
    is_up = (remainder > upper) | ((remainder == upper) & (quotient % 2 == 1))
    result: IntArray = quotient + is_up
    return result


def apply_rescale(
    operands: list[npt.NDArray[np.integer]],
    multiplier: IntArray,
    shift: IntArray,
    divisor: IntArray,
    *,
    zero_point: int,
    quant_range: tuple[int, int],
) -> IntArray:
    """Return the rescaled sum of the operands: the formula at the top of this module.

    The plain definition, in int64; `Reference` has the fast form.

    Args:
        operands: Integers of one shape, channels last.
        multiplier: Shape ``(n_operands, n_channels or 1)``.
        shift: Shape ``(n_channels or 1,)``.
        divisor: Positive, broadcastable to an operand.
        zero_point: Added after rounding.
        quant_range: Smallest and largest result.
    """
    total = sum(
        operand.astype(np.int64) * factor
        for operand, factor in zip(operands, multiplier, strict=True)
    )
    quotient = half_even_divide(np.asarray(total), divisor << shift)
    result: IntArray = np.clip(quotient + zero_point, *quant_range)
    return result
