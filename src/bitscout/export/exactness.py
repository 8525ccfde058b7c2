# SPDX-License-Identifier: Apache-2.0
"""Where float32 computes the real numbers of a graph without rounding: proved, not sampled.

A tensor's real values are integers times a step, and a step is an odd integer times a power of
two. Float32 holds every partial sum exactly, in any order, while the largest of those integers
times the odd one is at most 2**24. `bitscout.quantization.exact_steps` chooses such steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitscout.export.bounds import magnitudes
from bitscout.export.graph import IntegerGraph, Rescale

__all__ = ["inexact_in_float32", "lowest_bits"]

FloatArray = npt.NDArray[np.float64]
EXACT_FLOAT32 = 2.0**24
# Quotients that are no power of two's are rounded: two bits keep them off the wrong side of a tie.
EXACT_QUOTIENT = 2.0**22


def inexact_in_float32(graph: IntegerGraph) -> tuple[str, ...]:
    """Return the names of the operations whose real results float32 may round.

    Where there are none, a network computes in float32, on any machine, what its integers say.

    Args:
        graph: The network.

    Returns:
        Names in the order of the graph.
    """
    bounds = magnitudes(graph)
    names = []
    for op in graph:
        is_exact = bool((bounds[op.name] * _odd_part(op.grid.scale) <= EXACT_FLOAT32).all())
        if isinstance(op, Rescale):
            unit = lowest_bits(op.multiplier.astype(np.float64)).min(axis=0)
            operands = zip(op.inputs, op.multiplier, strict=True)
            reach = sum(bounds[name] * (factor / unit) for name, factor in operands)
            is_shift = (_odd_part(op.divisor.astype(np.float64)) == 1).all()
            is_exact &= bool(np.max(reach) <= (EXACT_FLOAT32 if is_shift else EXACT_QUOTIENT))
        if not is_exact:
            names.append(op.name)
    return tuple(names)


def lowest_bits(values: FloatArray) -> FloatArray:
    """Return the largest power of two that each of these positive numbers is a multiple of.

    Example:
        >>> lowest_bits(np.array([12.0, 0.75])).tolist()
        [4.0, 0.25]
    """
    mantissa, exponent = np.frexp(values)
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    lowest: FloatArray = np.ldexp((digits & -digits).astype(np.float64), exponent - 53)
    return lowest


def _odd_part(values: FloatArray) -> FloatArray:
    """Return positive numbers divided by the largest power of two that leaves integers."""
    result: FloatArray = values / lowest_bits(values)
    return result
