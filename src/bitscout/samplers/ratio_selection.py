# SPDX-License-Identifier: Apache-2.0
"""How the ratio of two densities, ``l(x) / g(x)``, is maximized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import ConfigError
from bitscout.samplers.densities import Density
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.surrogates import check_positive

__all__ = [
    "NEEDS_PRODUCT",
    "IndependentSelection",
    "JointSelection",
    "RatioQuestion",
    "Selection",
]

FloatArray = NDArray[np.float64]
NEEDS_PRODUCT: Final = (
    "`IndependentSelection` needs an estimator of each choice by itself: use `ProductParzen`."
)


@dataclass(frozen=True)
class RatioQuestion:
    """Everything a selection depends on.

    Attributes:
        space: What may be proposed.
        good: The desirable density, l.
        bad: The undesirable one, g.
        taken: Keys of rows that must not be proposed.
        rng: The trial's own generator.
    """

    space: DesignSpace
    good: Density
    bad: Density
    taken: frozenset[bytes]
    rng: np.random.Generator

    def score(self, rows: FloatArray) -> FloatArray:
        """Return ``log l - log g`` of `rows`, shape ``(n,)``."""
        return self.good.log_density(rows) - self.bad.log_density(rows)

    def best(self, rows: FloatArray) -> FloatArray:
        """Return the one of `rows` with the largest ratio, the first of equals; ``(D,)``."""
        return np.asarray(rows[np.argmax(self.score(rows))])

    def fresh(self, rows: FloatArray) -> FloatArray:
        """Return the canonical, new and feasible ones of `rows`, without repetitions."""
        return self.space.feasible(self.space.distinct(rows, self.taken))

    def mutated(self, row: FloatArray) -> FloatArray:
        """Return a fresh row that differs from `row` in a random choice, more if need be."""
        if len(self.taken) >= self.space.encoding.size:
            return self.space.random_row(self.rng, self.taken)
        return self.space.repair(row, self.rng, self.taken)


@runtime_checkable
class SeparableDensity(Density, Protocol):
    """A density that is a product over the choices."""

    def log_marginals(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of each choice's own density at `rows`, shape ``(n, D)``."""


class Selection(Protocol):
    """A way to maximize the ratio; immutable."""

    def select(self, question: RatioQuestion) -> FloatArray:
        """Return the next row, shape ``(D,)``."""


@dataclass(frozen=True)
class JointSelection:
    """Draw whole rows from l and take the fresh one with the largest ratio.

    Where no draw is fresh, that is repeated; after `n_rounds` the best draw is mutated in one
    choice at random.

    Attributes:
        n_candidates: Rows a round, HyperOpt's 24.
        n_rounds: Rounds at most.

    Raises:
        ConfigError: If a number is not positive.
    """

    n_candidates: int = 24
    n_rounds: int = 20

    def __post_init__(self) -> None:
        """Reject an empty draw."""
        check_positive("n_candidates", self.n_candidates)
        check_positive("n_rounds", self.n_rounds)

    def select(self, question: RatioQuestion) -> FloatArray:
        """Return the next row, shape ``(D,)``."""
        for _ in range(self.n_rounds):
            rows = question.good.sample(question.rng, self.n_candidates)
            fresh = question.fresh(rows)
            if len(fresh):
                return question.best(fresh)
        return question.mutated(question.best(rows))


@dataclass(frozen=True)
class IndependentSelection:
    """Let each choice maximize its own ratio over draws from l, as HyperOpt does.

    Few values and many draws make this the exact maximum, and the same one again and again:
    what it finds that is not fresh is drawn anew, then mutated, unless repeats are allowed.

    Attributes:
        n_candidates: Draws a choice, HyperOpt's 24.
        n_rounds: Attempts to find a fresh row.
        allow_repeats: Whether rows may be proposed that were evaluated before; rows over the
            budget never are.

    Raises:
        ConfigError: If a number is not positive.
    """

    n_candidates: int = 24
    n_rounds: int = 20
    allow_repeats: bool = False

    def __post_init__(self) -> None:
        """Reject an empty draw."""
        check_positive("n_candidates", self.n_candidates)
        check_positive("n_rounds", self.n_rounds)

    def select(self, question: RatioQuestion) -> FloatArray:
        """Return the next row, shape ``(D,)``.

        Raises:
            ConfigError: If the densities are not products over the choices.
        """
        good, bad = question.good, question.bad
        if not isinstance(good, SeparableDensity) or not isinstance(bad, SeparableDensity):
            raise ConfigError(NEEDS_PRODUCT)
        for _ in range(self.n_rounds):
            rows = good.sample(question.rng, self.n_candidates)
            best = np.argmax(good.log_marginals(rows) - bad.log_marginals(rows), axis=0)
            row = np.asarray(rows[best, np.arange(rows.shape[1])])
            if self.allow_repeats and question.space.violation(row[None])[0] <= 0:
                return row
            fresh = question.fresh(row[None])
            if len(fresh):
                return np.asarray(fresh[0])
        return question.mutated(row)
