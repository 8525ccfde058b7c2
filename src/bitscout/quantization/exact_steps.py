# SPDX-License-Identifier: Apache-2.0
"""Steps so simple that float32 computes a quantized network without rounding.

Notation:

    s_x, s_y   steps of a layer's input and of what reads its output: powers of two
    s_w[c]     step of an output channel: ``m 2**e``, m an integer below ``2**(n+1)``: n bits
               behind the leading one
    A          largest magnitude the sums can have: ``K max|q_w| max|q_x|`` for K weights a channel
    B          largest code of a bias

A channel's products, its bias and every partial sum of them, in any order, are multiples of
``s_x 2**e`` of at most ``(A + B)(2**(n+1) - 1)`` times that, so float32 holds them exactly while
this is at most ``2**24``. The quotient by s_y is exact too, ties included. A sum of two operands
of an `Add` is exact while their steps are less than ``2**15`` apart. An average over D inputs is
rounded, but for ``D < 2**14`` to the same code: ties are exact, and no other quotient is as near
to one as the two roundings can move it. Hence the fake-quantized network computes exactly the
numbers of the integer graph that is exported, with any number of threads, and so does every
runtime that multiplies and adds in float32. With arbitrary steps one activation in some 100,000
is rounded to the other side, and in a deep network of few bits such differences grow:
docs/adr/0009-exact-steps.md.

With more than 414 weights a channel at 8 bits each ``A + B`` exceeds ``2**24``. Sums are exact
there while they stay below, as they do unless nearly all codes are large: no number of weights
proves that, but given weights do, in `bitscout.export.float32`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bitscout.quantization.observers import weight_error

__all__ = [
    "largest_bias_code",
    "mantissa_bits",
    "nearest_steps",
    "snap_act_step",
    "snap_weight_steps",
    "steps_at_least",
]

# Integers up to here, and all sums of them that stay below, are exact in float32.
FLOAT32_MAX = 2**24
# A step then moves by 0.2 % at most. Four bits, 3 %, cost 1.6 points at 2-bit weights.
MAX_MANTISSA_BITS = 8
# Of a bias to the sums' bound A. Sums of mixed signs stay far below A, and a bias is about as
# large as they are, so a quarter is ample.
MIN_BIAS_SHARE = 4
# Enough to tell two steps apart that differ by a factor of two.
N_SAMPLES = 2**18


def mantissa_bits(fan_in: int, weight_max: int, act_max: int) -> int:
    """Return n, how many bits the weights' steps may have behind the leading one, 0 to 8.

    As many as leave room for a bias of a quarter of the largest sum. 0 where not even that fits.

    Args:
        fan_in: Weights of one output channel.
        weight_max: Largest code of a weight.
        act_max: Largest code of an activation.

    Example:
        >>> [mantissa_bits(9 * channels, 7, 255) for channels in (1, 16, 64)]
        [8, 4, 2]
    """
    sums = fan_in * weight_max * act_max
    for n in range(MAX_MANTISSA_BITS, 0, -1):
        if sums + sums // MIN_BIAS_SHARE <= _largest_total(n):
            return n
    return 0


def largest_bias_code(fan_in: int, weight_max: int, act_max: int) -> int:
    """Return B, the largest bias next to which every sum is exact; arguments as above.

    Where the sums alone are too large already, a fifth of what float32 holds.
    """
    sums = fan_in * weight_max * act_max
    total = _largest_total(mantissa_bits(fan_in, weight_max, act_max))
    return max(total - sums, total // (MIN_BIAS_SHARE + 1))


def snap_weight_steps(
    rows: Tensor, scales: Tensor, quant_max: int, n_bits: int, moments: Tensor | None = None
) -> Tensor:
    """Return steps of `n_bits` next to `scales`: for every row the one with the smaller error.

    The error is that of the layer's output where the moments of its input are known. That of the
    weights alone would move the steps of all channels, and layer after layer the size of all
    outputs, the same way: 2 bits then lost 20 points (docs/adr/0009-exact-steps.md).

    Args:
        rows: Weights by output channel, shape ``(C, K)``.
        scales: Positive steps, shape ``(C,)``.
        quant_max: Largest code.
        n_bits: Bits behind the leading one.
        moments: Of the layer's input, as for `WeightObserver.scales`.
    """
    upper = steps_at_least(scales, n_bits)
    lower = _steps_at_most(scales, n_bits)
    errors = [weight_error(rows, s, quant_max, moments) for s in (lower, upper)]
    return torch.where(errors[0] < errors[1], lower, upper)


def snap_act_step(x: Tensor, scale: float, quant_min: int, quant_max: int) -> float:
    """Return the power of two next to `scale` with the smaller error on the values `x`."""
    exponent = math.log2(scale)
    candidates = (2.0 ** math.floor(exponent), 2.0 ** math.ceil(exponent))
    flat = x.flatten()
    sample = flat[:: max(1, flat.numel() // N_SAMPLES)]
    errors = [
        float((sample - (sample / s).round().clamp(quant_min, quant_max) * s).square().sum())
        for s in candidates
    ]
    return candidates[0] if errors[0] < errors[1] else candidates[1]


def nearest_steps(steps: Tensor, n_bits: int) -> Tensor:
    """Return the nearest steps of `n_bits`, for learned ones: the gradient goes straight through.

    Args:
        steps: Positive, any shape.
        n_bits: Bits behind the leading one.
    """
    fixed = steps.detach()
    mantissa, exponent = torch.frexp(fixed)
    unit = 2.0 ** (n_bits + 1)
    nearest = torch.ldexp((mantissa * unit).round() / unit, exponent)
    return nearest * (steps / fixed)  # The quotient is exactly 1.


def steps_at_least(scales: Tensor, n_bits: int) -> Tensor:
    """Return the smallest steps of `n_bits` that are not below `scales`."""
    mantissa, exponent = torch.frexp(scales)
    unit = 2.0 ** (n_bits + 1)
    return torch.ldexp((mantissa * unit).ceil() / unit, exponent)


def _steps_at_most(scales: Tensor, n_bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(scales)
    unit = 2.0 ** (n_bits + 1)
    return torch.ldexp((mantissa * unit).floor() / unit, exponent)


def _largest_total(n_bits: int) -> int:
    """Return how many units a sum may have whose step has n bits behind the leading one."""
    return FLOAT32_MAX // ((2 << n_bits) - 1)
