# SPDX-License-Identifier: Apache-2.0
"""How a graph ends: in the integers that stand for the real results of the network."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError
from bitscout.export.assemble import Assembler
from bitscout.export.bounds import magnitudes
from bitscout.export.expressions import Clamped, Expr, Total, clamped_grid
from bitscout.export.graph import Grid, IntegerGraph

__all__ = ["finish"]

FloatArray = npt.NDArray[np.float64]
# A sum of several tensors is rounded to this part of their largest step: far below what the
# steps themselves resolve.
OUTPUT_FINENESS = 4096
# Factors have 31 bits: up to here their rounding is less than a hundredth of an output's step.
MAX_OUTPUT = 2.0**24
_EVERYTHING = (-np.inf, np.inf)


def finish(graph: Assembler, expr: Expr) -> IntegerGraph:
    """Return the graph that ends in `expr`, without operations that it does not depend on.

    The integers of a last layer are the output as they are, nothing is rounded. An average is
    its sum with a finer step, and the step of a sum of several tensors divides all of theirs.
    Rounded is only such a sum where that step would be too fine, and a result that is clamped to
    real bounds.

    Raises:
        UnsupportedError: If there are no integers for it.
    """
    source, bounds = expr, _EVERYTHING
    while isinstance(source, Clamped):
        # What was clamped first is clamped to the outer bounds as well.
        low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in (source.low, source.high))
        source, bounds = source.source, (low, high)
    total = graph.total(source, "output")
    scale = _step(graph, total)
    tensor = total.terms[0].tensor
    if len(total.terms) == 1 and bounds == _EVERYTHING and _is_own(scale, graph, tensor):
        return graph.ending_in(tensor)
    if scale.ndim and bounds not in (_EVERYTHING, (0, np.inf)):
        msg = (
            f"it is clamped to [{bounds[0]:g}, {bounds[1]:g}], and its integers have a step for "
            "every channel. End the network in the layer itself, or in a ReLU."
        )
        raise UnsupportedError(msg)
    grid = clamped_grid(Grid.sums(scale), *bounds)
    return graph.ending_in(graph.rescale(total, grid, "output"))


def _step(graph: Assembler, total: Total) -> FloatArray:
    """Return the step of the output: shape ``()`` or ``(C,)``."""
    # Averages share the step of the least common multiple of what they are divided by.
    divisors = [divisor for term in total.terms for divisor in np.ravel(term.divisor).tolist()]
    scales = np.stack(np.broadcast_arrays(*[term.scale for term in total.terms]))
    exact = _common_unit(scales) / math.lcm(*divisors)
    if len(total.terms) == 1:
        return np.asarray(exact)
    reach: FloatArray = np.zeros(())
    for term in total.terms:
        bound = magnitudes(graph.ending_in(term.tensor))[term.tensor]
        reach = reach + bound * term.scale / np.min(term.divisor)
    if (reach / exact < MAX_OUTPUT).all():
        return np.asarray(np.broadcast_to(exact, scales.shape[1:]))
    spare = np.exp2(np.floor(np.log2(MAX_OUTPUT * scales.max(axis=0) / reach)).min())
    return np.asarray(scales.max(axis=0) / min(OUTPUT_FINENESS, spare))


def _common_unit(scales: FloatArray) -> FloatArray:
    """Return a unit that the steps of all terms are multiples of.

    Args:
        scales: Shape ``(n_terms, *)``.

    Returns:
        The steps themselves where they are equal, else a power of two; shape ``(*)``.
    """
    first: FloatArray = scales[0]
    if (scales == first).all():
        return first
    unit: FloatArray = lowest_bits(scales).min(axis=0)
    return unit


def _is_own(scale: FloatArray, graph: Assembler, tensor: str) -> bool:
    """Whether a tensor's integers have these steps already."""
    own = graph[tensor].grid.scale
    return own.shape == scale.shape and bool((own == scale).all())


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
