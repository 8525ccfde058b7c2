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

__all__ = ["DesignSpace"]

FloatArray = NDArray[np.float64]
# Rejection sampling and enumeration stop here; a space of more points has free ones.
MAX_DRAWS = 2000
WALK_STEPS, WALK_WIDTH = 300, 32


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
            rows = self._walk_downhill(rows, rng, taken)
        return np.asarray(self.eligible(rows, taken)[0])

    def _walk_downhill(
        self, rows: FloatArray, rng: np.random.Generator, taken: frozenset[bytes]
    ) -> FloatArray:
        """Return rows near a feasible one that is free, or where the walk came to a halt.

        Each step redraws one choice in each of `WALK_WIDTH` copies of the current row and takes
        the one least over budget; once feasible, any. A walk of `WALK_STEPS` steps crosses a
        space of some hundred choices; it costs milliseconds a step.
        """
        current = rows[np.argmin(self.violation(rows))]
        for _ in range(WALK_STEPS):
            copies = np.repeat(current[None], WALK_WIDTH, axis=0)
            columns = rng.integers(copies.shape[1], size=WALK_WIDTH)
            fresh = self.encoding.random_rows(rng, WALK_WIDTH)
            copies[np.arange(WALK_WIDTH), columns] = fresh[np.arange(WALK_WIDTH), columns]
            copies = self.canonical(copies)
            if len(self.feasible(self.distinct(copies, taken))):
                return copies
            violation = np.maximum(self.violation(copies), 0.0)
            if violation.min() <= max(self.violation(current[None])[0], 0.0):
                current = copies[np.argmin(violation)]
        return copies
