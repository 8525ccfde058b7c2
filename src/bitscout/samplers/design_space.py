# SPDX-License-Identifier: Apache-2.0
"""An encoded search space together with what its hooks know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from bitscout.samplers.encoding import Encoding
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.surrogates import Points

__all__ = ["DesignSpace", "FeasibilitySearch", "search_feasible"]

FloatArray = NDArray[np.float64]
# Rejection sampling and enumeration stop here; a space of more points has free ones.
MAX_DRAWS = 2000
# A walk towards the budget: each step looks at as many rows, since a batch costs little more than
# a row, and it gives up after some steps without progress.
WALK_STEPS, WALK_WIDTH, WALK_PATIENCE = 150, 256, 8


@dataclass(frozen=True)
class DesignSpace:
    """Rows, their canonical form, and which may be proposed.

    Attributes:
        encoding: The columns.
        hooks: What the space's owner knows about it.
    """

    encoding: Encoding
    hooks: SpaceHooks

    @classmethod
    def of(cls, search_space: Mapping[str, BaseDistribution], hooks: SpaceHooks) -> DesignSpace:
        """Return the design space of `search_space`.

        Raises:
            ConfigError: If `hooks` describe other columns.
        """
        encoding = Encoding.of(search_space)
        hooks.check_covers(encoding.names)
        return cls(encoding, hooks)

    @property
    def is_enumerable(self) -> bool:
        """Whether all points fit into one pool."""
        return self.encoding.size <= MAX_DRAWS

    def points(self, rows: FloatArray) -> Points:
        """Return `rows` in the forms surrogates read."""
        return Points(rows, self.encoding.unit(rows))

    def canonical(self, rows: FloatArray) -> FloatArray:
        """Return the canonical form of `rows`, shape ``(n, D)``."""
        if self.hooks.canonicalize is None or not len(rows):
            return rows
        return self.hooks.canonicalize(rows.astype(np.int64)).astype(float)

    def keys(self, rows: FloatArray) -> list[bytes]:
        """Return one key a row, equal if and only if the rows are."""
        return [row.tobytes() for row in np.ascontiguousarray(rows + 0.0)]

    def distinct(self, rows: FloatArray, taken: frozenset[bytes]) -> FloatArray:
        """Return the canonical forms of `rows`, without repetitions and without those `taken`."""
        rows = self.canonical(rows)
        first = {key: i for i, key in reversed(list(enumerate(self.keys(rows))))}
        return rows[sorted(i for key, i in first.items() if key not in taken)]

    def feasible(self, rows: FloatArray) -> FloatArray:
        """Return the feasible ones of `rows`."""
        return rows[self.violation(rows) <= 0]

    def violation(self, rows: FloatArray) -> FloatArray:
        """Return how far each row is over its budget, shape ``(n,)``; 0 without a budget."""
        if self.hooks.violation is None or not len(rows):
            return np.zeros(len(rows))
        return np.asarray(self.hooks.violation(rows.astype(np.int64)), dtype=float)

    def eligible(self, rows: FloatArray, taken: frozenset[bytes]) -> FloatArray:
        """Return what may be proposed of `rows`, canonical and without repetitions.

        The feasible ones that are not taken; failing that, those that are not taken; failing
        that (the space is used up), all. Never empty unless `rows` is.
        """
        free = self.distinct(rows, taken)
        if not len(free):
            return self.distinct(rows, frozenset())
        feasible = self.feasible(free)
        return feasible if len(feasible) else free

    def random_row(self, rng: np.random.Generator, taken: frozenset[bytes]) -> FloatArray:
        """Return a random eligible row, shape ``(D,)``.

        Of some draws the first eligible one, which makes it uniform among the eligible rows.
        A small space is enumerated once the draws find nothing, so that only a space that is
        used up repeats itself. In a large one where feasible rows are rare, the best draws walk
        downhill to them.
        """
        n_draws = 16
        while n_draws <= MAX_DRAWS:
            rows = self.encoding.random_rows(rng, n_draws)
            eligible = self.feasible(self.distinct(rows, taken))
            if len(eligible):
                return np.asarray(eligible[0])
            n_draws *= 11
        if self.is_enumerable:
            rows = rng.permutation(self.encoding.all_rows())
        elif self.hooks.violation is not None:
            rows, _ = self.walk_downhill(rows, rng, taken)
        return np.asarray(self.eligible(rows, taken)[0])

    def repair(
        self, row: FloatArray, rng: np.random.Generator, taken: frozenset[bytes]
    ) -> FloatArray:
        """Return a feasible row near `row` that is free, shape ``(D,)``.

        Walks downhill from `row`; where the walk finds nothing, a random eligible row.
        """
        rows, _ = self.walk_downhill(self.canonical(row[None]), rng, taken)
        feasible = self.feasible(self.distinct(rows, taken))
        return np.asarray(feasible[0]) if len(feasible) else self.random_row(rng, taken)

    def walk_downhill(
        self, rows: FloatArray, rng: np.random.Generator, taken: frozenset[bytes]
    ) -> tuple[FloatArray, int]:
        """Return rows near a feasible one that is free, or where the walk came to a halt.

        Each step redraws one choice in each of `WALK_WIDTH` copies of the current row and takes
        the one least over budget; once feasible, any. A walk of `WALK_STEPS` steps crosses a
        space of some hundred choices; a step costs as much as a batch of costs does.

        Returns:
            Rows, of which the feasible and free ones are what was looked for; and how many rows
            were looked at.
        """
        current = rows[np.argmin(self.violation(rows))]
        lowest, n_idle = max(self.violation(current[None])[0], 0.0), 0
        for step in range(WALK_STEPS):
            copies = np.repeat(current[None], WALK_WIDTH, axis=0)
            columns = rng.integers(copies.shape[1], size=WALK_WIDTH)
            fresh = self.encoding.random_rows(rng, WALK_WIDTH)
            copies[np.arange(WALK_WIDTH), columns] = fresh[np.arange(WALK_WIDTH), columns]
            copies = self.canonical(copies)
            violation = np.maximum(self.violation(copies), 0.0)
            within = self.distinct(copies[violation <= 0], taken)
            if len(within):
                return within, (step + 1) * WALK_WIDTH
            # Where all within the budget are taken, neighbours of these are as good as any.
            best = int(rng.choice(np.flatnonzero(violation == violation.min())))
            n_idle = 0 if violation[best] < lowest else n_idle + 1
            if violation[best] <= lowest:
                current, lowest = copies[best], violation[best]
            if n_idle >= WALK_PATIENCE and lowest > 0:
                break
        return np.concatenate((current[None], copies)), (step + 1) * WALK_WIDTH


@dataclass(frozen=True)
class FeasibilitySearch:
    """What a search for a feasible row found.

    Attributes:
        row: The row nearest to the budget, shape ``(D,)``.
        violation: How far it is over; feasible if and only if <= 0.
        n_attempts: Rows that were looked at.
    """

    row: FloatArray
    violation: float
    n_attempts: int


def search_feasible(hooks: SpaceHooks, rng: np.random.Generator) -> FeasibilitySearch:
    """Look for a feasible row: random draws, then a walk downhill from the best of them.

    Args:
        hooks: With `search_space` and `violation`.
        rng: Source of the draws.
    """
    assert hooks.search_space is not None, "hooks with callables have a space"
    space = DesignSpace.of(hooks.search_space, hooks)
    n_attempts = 0
    for n_draws in (16, MAX_DRAWS):
        rows = space.canonical(space.encoding.random_rows(rng, n_draws))
        violation = space.violation(rows)
        n_attempts += n_draws
        if violation.min() <= 0:
            break
    else:
        if space.is_enumerable:
            rows = space.encoding.all_rows()
            n_attempts += len(rows)
        else:
            rows, n_walked = space.walk_downhill(rows, rng, frozenset())
            n_attempts += n_walked
        violation = space.violation(rows)
    best = int(np.argmin(violation))
    return FeasibilitySearch(rows[best], float(violation[best]), n_attempts)
