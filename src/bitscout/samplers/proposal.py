# SPDX-License-Identifier: Apache-2.0
"""Where the acquisition is looked at: the search for the next point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bitscout.errors import UnsupportedError
from bitscout.samplers.acquisition import Acquisition
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.surrogates import check_positive
from bitscout.samplers.vector_surrogates import VectorModel

__all__ = [
    "GradientProposal",
    "PoolProposal",
    "Proposal",
    "Question",
    "is_listed",
    "neighbours",
]

FloatArray = NDArray[np.float64]
# A choice of more values than this, or a continuous one, has neighbours drawn, not listed.
MAX_LISTED_VALUES = 21
N_DRAWN_NEIGHBOURS = 8
REFINEMENT_RADII = (0.1, 0.03, 0.01, 0.003)  # of the unit cube
N_REFINEMENTS = 200


@dataclass(frozen=True)
class Question:
    """Everything a proposal depends on.

    Attributes:
        space: What may be proposed.
        acquisition: What is to be minimized.
        screening: A cheap acquisition and how many points it lets through, or `None`.
        incumbents: Best observed rows, best first, ``(b, D)``.
        taken: Keys of rows that must not be proposed.
        rng: The trial's own generator.
    """

    space: DesignSpace
    acquisition: Acquisition
    screening: tuple[Acquisition, int] | None
    incumbents: FloatArray
    taken: frozenset[bytes]
    rng: np.random.Generator

    def best(self, rows: FloatArray) -> FloatArray:
        """Return the most promising eligible one of `rows`, shape ``(D,)``."""
        rows = self.space.eligible(rows, self.taken)
        if self.screening is not None:
            coarse, n_kept = self.screening
            if len(rows) > n_kept:
                rows = rows[coarse.order(self.space.points(rows))[:n_kept]]
        return np.asarray(rows[self.acquisition.order(self.space.points(rows))[0]])


class Proposal(Protocol):
    """A way to search the acquisition; immutable."""

    def propose(self, question: Question) -> FloatArray:
        """Return the next row, shape ``(D,)``."""


@dataclass(frozen=True)
class PoolProposal:
    """Take the best of a pool: random points, neighbours and mutants of the incumbents.

    A space that fits into the pool is enumerated. Once everything has been evaluated the best
    point is proposed again. Choices that cannot be listed are refined by shrinking random
    perturbations of the best point.

    Attributes:
        n_random: Random points.
        n_best: Incumbents whose 1-exchange neighbours, all of them, enter the pool.
        n_mutants: Points that differ from an incumbent in two choices.

    Raises:
        ConfigError: If a number is not positive.
    """

    n_random: int = 2000
    n_best: int = 10
    n_mutants: int = 200

    def __post_init__(self) -> None:
        """Reject an empty pool."""
        for name in ("n_random", "n_best", "n_mutants"):
            check_positive(name, getattr(self, name))

    def propose(self, question: Question) -> FloatArray:
        """Return the best eligible row of the pool, shape ``(D,)``."""
        space, rng = question.space, question.rng
        if space.is_enumerable:
            return question.best(rng.permutation(space.encoding.all_rows()))
        incumbents = question.incumbents[: self.n_best]
        pool = (
            space.encoding.random_rows(rng, self.n_random),
            *(neighbours(space, row, rng) for row in incumbents),
            _mutants(space, incumbents, self.n_mutants, rng),
        )
        row = question.best(np.concatenate(pool))
        return row if is_listed(space).all() else _refine(question, row)


@dataclass(frozen=True)
class GradientProposal:
    """Follow the gradient from random points, then discretize: KerasTuner's optimizer.

    L-BFGS-B on ``mu - beta sigma`` in the unit cube. KerasTuner estimates the gradient by
    differences and proposes duplicates; here it is analytic, and the best optimum that is not
    yet evaluated is taken, or the pool's best if there is none.

    Attributes:
        n_restarts: Uniform starting points.
        fallback: Where to search if every optimum was evaluated before.
    """

    n_restarts: int = 50
    fallback: PoolProposal = PoolProposal()

    def propose(self, question: Question) -> FloatArray:
        """Return the best eligible discretized optimum, shape ``(D,)``.

        Raises:
            UnsupportedError: If the objective is not one process on the unit cube alone.
        """
        space, acquisition = question.space, question.acquisition
        model = acquisition.objectives[0].model
        is_plain = len(acquisition.objectives) == 1 and acquisition.objectives[0].known is None
        if not isinstance(model, VectorModel) or not is_plain:
            msg = (
                "`GradientProposal` needs one objective, a surrogate on unit coordinates and no "
                "known term. Use `PoolProposal`."
            )
            raise UnsupportedError(msg)
        starts = question.rng.random((self.n_restarts, len(space.encoding.names)))
        optima = np.stack([_descend(model, start, acquisition.beta) for start in starts])
        rows = space.distinct(space.encoding.snap(optima), question.taken)
        return question.best(rows) if len(rows) else self.fallback.propose(question)


def neighbours(space: DesignSpace, row: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the rows that differ from `row` in one choice, shape ``(m, D)``.

    All of them where the choices can be listed; of the others some at random, half of them
    near. Not canonical.
    """
    n_values, listed = space.encoding.n_values, is_listed(space)
    columns = [np.full(n_values[d] - 1, d) for d in np.flatnonzero(listed)]
    entries = [np.delete(np.arange(n_values[d]), int(row[d])) for d in np.flatnonzero(listed)]
    dims = np.concatenate([np.empty(0, dtype=np.int64), *columns]).astype(np.int64)
    result = np.repeat(row[None], len(dims), axis=0)
    result[np.arange(len(dims)), dims] = np.concatenate([np.empty(0), *entries])
    drawn = [_redrawn(space, row, int(d), rng) for d in np.flatnonzero(~listed)]
    return np.concatenate((result, *drawn))


def _redrawn(space: DesignSpace, row: FloatArray, d: int, rng: np.random.Generator) -> FloatArray:
    """Return copies of `row` with choice `d` drawn anew, half near and half anywhere."""
    unit = np.repeat(space.encoding.unit(row[None]), N_DRAWN_NEIGHBOURS, axis=0)
    unit[:, d] = rng.random(N_DRAWN_NEIGHBOURS)
    near = N_DRAWN_NEIGHBOURS // 2
    radii = rng.choice(REFINEMENT_RADII, size=near)
    unit[:near, d] = (space.encoding.unit(row[None])[0, d] + radii * rng.normal(size=near)).clip(
        0.0, 1.0
    )
    return space.encoding.snap(unit)


def _mutants(
    space: DesignSpace, incumbents: FloatArray, n_mutants: int, rng: np.random.Generator
) -> FloatArray:
    """Return incumbents with two choices drawn anew, shape ``(n_mutants, D)``."""
    n_dimensions = len(space.encoding.names)
    rows = incumbents[rng.integers(len(incumbents), size=n_mutants)]
    random = space.encoding.random_rows(rng, n_mutants)
    changed = rng.random((n_mutants, n_dimensions)).argsort(axis=1)[:, :2]
    for d in changed.T:
        rows[np.arange(n_mutants), d] = random[np.arange(n_mutants), d]
    return rows


def _refine(question: Question, row: FloatArray) -> FloatArray:
    """Return the best point found by perturbing the choices of `row` that cannot be listed."""
    space, rng = question.space, question.rng
    free = ~is_listed(space)
    for radius in REFINEMENT_RADII:
        unit = np.repeat(space.encoding.unit(row[None]), N_REFINEMENTS, axis=0)
        unit[:, free] += radius * rng.normal(size=(N_REFINEMENTS, int(free.sum())))
        rows = space.encoding.snap(unit.clip(0.0, 1.0))
        row = question.best(np.concatenate((row[None], rows)))
    return row


def is_listed(space: DesignSpace) -> NDArray[np.bool_]:
    """Return for each choice whether its values are few enough to be listed, shape ``(D,)``."""
    n_values = space.encoding.n_values
    return np.asarray((n_values > 0) & (n_values <= MAX_LISTED_VALUES))


def _descend(model: VectorModel, start: FloatArray, beta: float) -> FloatArray:
    """Return a local minimum of ``mu - beta sigma`` in the unit cube."""

    def bound(u: FloatArray) -> tuple[float, FloatArray]:
        mean, sd, mean_slope, sd_slope = model.predict_with_gradient(u)
        return mean - beta * sd, mean_slope - beta * sd_slope

    box = [(0.0, 1.0)] * len(start)
    return np.asarray(minimize(bound, start, jac=True, method="L-BFGS-B", bounds=box).x)
