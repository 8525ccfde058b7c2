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

from bitscout.core import BompScore, Budget, FrontObjective, Objective, PenalizedScore
from bitscout.pipeline.candidate_costs import IMPOSSIBLE, CandidateCosts
from bitscout.samplers import Descriptors, SpaceHooks
from bitscout.space import SearchSpace

__all__ = ["describer", "space_hooks"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


def space_hooks(costs: CandidateCosts, objective: Objective, budget: Budget) -> SpaceHooks:
    """Return everything a sampler may know about a space without training.

    Args:
        costs: The space, and what its networks cost on the hardware of the run.
        objective: The score's size term, or the costs among several objectives, are known exactly.
        budget: Bounds mark the points worth proposing.
    """
    space = costs.space
    known_term: Callable[[IndexArray], FloatArray] | None = None
    known_objectives: dict[int, Callable[[IndexArray], FloatArray]] = {}
    if isinstance(objective, BompScore):
        known_term = _size_term(space, objective)
    elif isinstance(objective, PenalizedScore):
        known_term = _penalty_term(costs, objective)
        budget = Budget()  # What is over it is worth proposing too.
    elif isinstance(objective, FrontObjective):
        for position, metric in enumerate(objective.metrics):
            if metric in costs.batch_metrics:
                known_objectives[position] = _metric(costs, metric)
    return SpaceHooks(
        search_space={
            choice.name: IntDistribution(0, len(choice.values) - 1) for choice in space.choices
        },
        canonicalize=space.canonical_indices,
        violation=_violation(costs, budget),
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


def _penalty_term(
    costs: CandidateCosts, objective: PenalizedScore
) -> Callable[[IndexArray], FloatArray] | None:
    """Return the penalty of each point, <= 0; `None` where a cost is not known in batches."""
    limits = dict(objective.limits)
    if set(limits) - set(costs.batch_metrics):
        return None

    def known_term(indices: IndexArray) -> FloatArray:
        known = costs.batch(indices, tuple(limits))
        over = [np.maximum(known[name] / limit - 1.0, 0.0) for name, limit in limits.items()]
        term: FloatArray = -objective.weight * np.sum(over, axis=0)
        return term

    return known_term


def _metric(costs: CandidateCosts, name: str) -> Callable[[IndexArray], FloatArray]:
    return lambda indices: costs.batch(indices, (name,))[name]


def _violation(costs: CandidateCosts, budget: Budget) -> Callable[[IndexArray], FloatArray] | None:
    """Return how far each point is over the budget; `None` where no bound is known in batches.

    The sum of the fractions by which the bounds are exceeded; the largest of ``value / bound - 1``
    where none is, so that it is <= 0 exactly for feasible points. Networks that the hardware has
    no rule for are over any budget, and where there is none.
    """
    limits = dict.fromkeys(costs.metrics_with_holes, IMPOSSIBLE / 2) | {
        metric: limit
        for metric, limit in budget.limits().values()
        if metric in costs.batch_metrics
    }
    if not limits:
        return None

    def violation(indices: IndexArray) -> FloatArray:
        known = costs.batch(indices, tuple(limits))
        over = np.stack([known[metric] / limit - 1.0 for metric, limit in limits.items()])
        excess: FloatArray = np.maximum(over, 0.0).sum(axis=0)
        return np.where(excess > 0, excess, over.max(axis=0))

    return violation
