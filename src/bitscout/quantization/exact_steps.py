# SPDX-License-Identifier: Apache-2.0
"""Steps so simple that float32 computes a quantized network without rounding.

Notation:

    s_x, s_y   steps of a layer's input and of what reads its output: powers of two
    s_w[c]     step of an output channel: ``m 2**e`` with m of n bits behind the leading one
    A          largest magnitude the sums can have: ``K max|q_w| max|q_x|`` for K weights a channel

Every product and every partial sum of the layer, in any order, is an integer of at most
``A 2**n`` times one power of two, so float32 holds it exactly while ``A 2**n < 2**24``. The
quotient by s_y is exact too, ties included. Hence the fake-quantized network, on any machine and
with any number of threads, computes exactly the numbers of the integer graph that is exported,
and so does every runtime that multiplies in float32. With arbitrary steps one activation in some
100,000 is rounded to the other side, and in a deep network of few bits such differences grow:
docs/adr/0009-exact-steps.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["mantissa_bits", "snap_act_step", "snap_weight_steps", "steps_at_least"]

# The last of float32's 24 bits is left to the bias.
SUM_BITS = 23
# A step moves by at most 3 % at four bits; finer gains nothing that was measurable.
MAX_MANTISSA_BITS = 4
# Enough to tell two steps apart that differ by a factor of two.
N_SAMPLES = 2**18


def mantissa_bits(fan_in: int, weight_max: int, act_max: int) -> int:
    """Return n, how many bits the weights' steps may have behind the leading one, 0 to 4.

    Args:
        fan_in: Weights of one output channel.
        weight_max: Largest code of a weight.
        act_max: Largest code of an activation.
    """
    needed = math.ceil(math.log2(fan_in * weight_max * act_max))
    return min(max(SUM_BITS - needed, 0), MAX_MANTISSA_BITS)


def snap_weight_steps(rows: Tensor, scales: Tensor, quant_max: int, n_bits: int) -> Tensor:
    """Return steps of `n_bits` next to `scales`: for every row the one with the smaller error.

    Args:
        rows: Weights by output channel, shape ``(C, K)``.
        scales: Positive steps, shape ``(C,)``.
        quant_max: Largest code.
        n_bits: Bits behind the leading one.
    """
    upper = steps_at_least(scales, n_bits)
    lower = _steps_at_most(scales, n_bits)
    errors = [
        (rows - (rows / s[:, None]).round().clamp(-quant_max, quant_max) * s[:, None])
        .square()
        .sum(dim=1)
        for s in (lower, upper)
    ]
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


def steps_at_least(scales: Tensor, n_bits: int) -> Tensor:
    """Return the smallest steps of `n_bits` that are not below `scales`."""
    mantissa, exponent = torch.frexp(scales)
    unit = 2.0 ** (n_bits + 1)
    return torch.ldexp((mantissa * unit).ceil() / unit, exponent)


def _steps_at_most(scales: Tensor, n_bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(scales)
    unit = 2.0 ** (n_bits + 1)
    return torch.ldexp((mantissa * unit).floor() / unit, exponent)
