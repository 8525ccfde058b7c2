# SPDX-License-Identifier: Apache-2.0
"""Whether float32 arithmetic computes a graph's integers: proved from the weights, not sampled.

Notation:

    m 2**e   a step, m odd
    X        bound of the magnitude of every partial sum, `bitscout.export.bounds.magnitudes`

A tensor's real values are multiples of ``2**e`` of at most ``X m`` times that, so float32 holds
them, and whatever they are added up of in any order, while ``X m <= 2**24``. The argument for
quotients and averages is in `bitscout.quantization.exact_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bitscout.export.bounds import magnitudes
from bitscout.export.graph import Conv, IntegerGraph, Linear, Op, Rescale, SumPool

__all__ = ["rounded_in_float32"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FLOAT32_MAX = 2.0**24
MIN_EXPONENT = -126  # Of normal numbers; smaller ones may be flushed to zero.
MAX_DIVISOR = 2**14


def rounded_in_float32(graph: IntegerGraph) -> tuple[str, ...]:
    """Return the operations in which float32 arithmetic might differ from integers.

    Empty means: PyTorch, ONNX Runtime and whatever else multiplies and adds in float32, in any
    order, gives exactly the integers of the graph. A name means only that nothing proves it; sums
    of mixed signs stay far below their bound. NNPACK's and cuDNN's Winograd kernels do more than
    multiply and add, so that the proof does not hold for them.

    Args:
        graph: Any network.
    """
    found = magnitudes(graph)
    return tuple(op.name for op in graph if not _is_exact(op, graph, found))


def _is_exact(op: Op, graph: IntegerGraph, found: Mapping[str, FloatArray]) -> bool:
    if isinstance(op, Conv | Linear | SumPool):
        return _largest_sum([op.name], graph, found) <= FLOAT32_MAX
    if isinstance(op, Rescale):
        odd, _ = _odd_part(op.grid.scale)
        is_power = bool((odd == 1).all()) and not op.grid.is_sums
        is_near_no_tie = bool((op.divisor < MAX_DIVISOR).all())
        is_sum_exact = _largest_sum(op.inputs, graph, found) <= FLOAT32_MAX
        # PyTorch divides every operand by itself, and adds the rounded quotients.
        is_divided_once = len(op.inputs) == 1 or bool((op.divisor == 1).all())
        return is_power and is_near_no_tie and is_divided_once and is_sum_exact
    return True


def _largest_sum(
    names: tuple[str, ...] | list[str], graph: IntegerGraph, found: Mapping[str, FloatArray]
) -> float:
    """Return the largest magnitude of the tensors' sum, in units that divide all of them."""
    parts = [_odd_part(graph[name].grid.scale) for name in names]
    lowest = np.min(np.broadcast_arrays(*[exponent for _, exponent in parts]), axis=0)
    if lowest.min() < MIN_EXPONENT:
        return np.inf
    total = sum(
        found[name] * odd * np.exp2(exponent - lowest)
        for name, (odd, exponent) in zip(names, parts, strict=True)
    )
    return float(np.max(total))


def _odd_part(steps: FloatArray) -> tuple[IntArray, IntArray]:
    """Return m and e, ``steps = m 2**e`` with m odd, shape ``(C,)`` or ``(1,)``."""
    fraction, exponent = np.frexp(np.atleast_1d(steps))
    integer = np.ldexp(fraction, 53).astype(np.int64)
    lowest_bit = integer & -integer
    return integer // lowest_bit, exponent - 53 + np.frexp(lowest_bit.astype(np.float64))[1] - 1
