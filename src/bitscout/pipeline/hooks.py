# SPDX-License-Identifier: Apache-2.0
"""What a search space and an objective tell a sampler.

Samplers know nothing of networks: they get index arrays and plain callables on them. Here the two
meet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import IntDistribution

from bitscout.core import BompScore, Budget, Objective
from bitscout.samplers import Descriptors, SpaceHooks
from bitscout.space import SearchSpace

__all__ = ["describer", "space_hooks"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


def space_hooks(space: SearchSpace, objective: Objective, budget: Budget) -> SpaceHooks:
    """Return everything a sampler may know about `space` without training.

    Args:
        space: Choices and their canonical form.
        objective: The score's size term, or the size among several objectives, is known exactly.
        budget: A bound on the size marks the points worth proposing.
    """
    known_term: Callable[[IndexArray], FloatArray] | None = None
    known_objectives: dict[int, Callable[[IndexArray], FloatArray]] = {}
    if isinstance(objective, BompScore):
        known_term = _size_term(space, objective)
    else:
        sizes = {"size_bytes": space.size_bits, "weight_bytes": space.weight_bits}
        for position, metric in enumerate(objective.metrics):
            if metric in sizes:
                known_objectives[position] = _in_bytes(sizes[metric])
    return SpaceHooks(
        search_space={
            choice.name: IntDistribution(0, len(choice.values) - 1) for choice in space.choices
        },
        canonicalize=space.canonical_indices,
        violation=_over(space, budget.size_kb),
        known_term=known_term,
        known_objectives=known_objectives,
    )


def describer(space: SearchSpace) -> Callable[[IndexArray], Descriptors]:
    """Return what the edit distance needs: layers with their bits, and residual additions.

    A layer is (kind, output channels, kernel, stride, weight bits): AutoKeras' attributes with
    the bits as a fourth. A skip is (layer it starts after, layers it spans, kind).
    """

    def describe(indices: IndexArray) -> Descriptors:
        table = space.tabulate(indices)
        return Descriptors(table.attributes(), table.n_layers, table.skips, table.n_skips)

    return describe


def _size_term(space: SearchSpace, objective: BompScore) -> Callable[[IndexArray], FloatArray]:
    def known_term(indices: IndexArray) -> FloatArray:
        term: FloatArray = objective.ref_size / np.log10(space.size_bits(indices))
        return term

    return known_term


def _in_bytes(
    bits: Callable[[IndexArray], IndexArray],
) -> Callable[[IndexArray], FloatArray]:
    return lambda indices: bits(indices) / 8


def _over(space: SearchSpace, size_kb: float | None) -> Callable[[IndexArray], FloatArray] | None:
    """Return the size of each point relative to the budget, less 1; `None` without one."""
    if size_kb is None:
        return None
    bound = size_kb * 1000
    return lambda indices: space.size_bits(indices) / 8 / bound - 1.0
