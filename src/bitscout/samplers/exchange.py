# SPDX-License-Identifier: Apache-2.0
"""Where to look for the next point under a budget: exchanges that keep to it.

Notation:

    x          a row, ``(D,)``; ``x_d = j`` is value ``j`` of choice ``d``
    A_dj       change of the acquisition where ``x_d`` alone becomes ``j``, ``(D, K)``
    C_dj       likewise of the violation of the budget
    slack      how much the violation of ``x`` may grow
    price      acquisition per unit of violation, >= 0

Both changes are taken to add up over choices, which makes thousands of exchanges cheap to judge;
what comes out is then checked and judged exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.proposal import PoolProposal, Question, is_listed, neighbours
from bitscout.samplers.surrogates import check_positive

__all__ = ["ExchangeProposal", "least_expected"]

FloatArray = NDArray[np.float64]
# Relative to the price at which the largest change of the acquisition buys the largest one of the
# violation; 0 comes first.
PRICES = np.geomspace(1e-5, 30.0, 40)


@dataclass(frozen=True)
class ExchangeProposal:
    """Climb from the best observations by exchanges at equal cost.

    Around a row there are: all rows that differ in one choice; for each value of each choice,
    the row that has it and is completed within the budget as the acquisition would have it, by
    the smallest sufficient price; and the most promising changes of two choices. From the best
    of these rows the climb goes on while it helps. Where nothing around is left within the
    budget, a random row is taken that is.

    Small spaces, and those with choices that cannot be listed, are left to `fallback`.

    Attributes:
        n_best: Observations to start from.
        n_pairs: Changes of two choices around each row.
        n_rounds: Largest number of further steps.
        fallback: For other spaces.

    Raises:
        ConfigError: If `n_best` or `n_pairs` is not positive.
    """

    n_best: int = 3
    n_pairs: int = 150
    n_rounds: int = 2
    fallback: PoolProposal = field(default_factory=PoolProposal)

    def __post_init__(self) -> None:
        """Reject an empty neighbourhood."""
        check_positive("n_best", self.n_best)
        check_positive("n_pairs", self.n_pairs)

    def propose(self, question: Question) -> FloatArray:
        """Return the next row, shape ``(D,)``."""
        space = question.space
        if space.is_enumerable or not is_listed(space).all():
            return self.fallback.propose(question)
        incumbents = question.incumbents[: self.n_best]
        rows = np.concatenate([self._around(question, row) for row in incumbents])
        best = _best_within(question, rows)
        if best is None:
            return space.random_row(question.rng, question.taken)
        for _ in range(self.n_rounds):
            rows = np.concatenate((best[None], self._around(question, best)))
            found = _best_within(question, rows)
            if found is None or (found == best).all():
                break
            best = found
        return best

    def _around(self, question: Question, row: FloatArray) -> FloatArray:
        """Return the neighbourhood of `row`, not all of it free or within the budget."""
        space = question.space
        single = neighbours(space, row, question.rng)
        rows = space.canonical(np.concatenate((row[None], single)))
        values = question.acquisition.values(space.points(rows))
        return _neighbourhood(space, row, single, values, self.n_pairs)


def least_expected(space: DesignSpace, losses: FloatArray, row: FloatArray) -> FloatArray:
    """Return the row within the budget with the least sum of losses that exchanges lead to.

    Each step goes to the best row around; it ends at a row that none around improves on.

    Args:
        space: All its choices can be listed.
        losses: Shape ``(D, K)``; a choice whose losses are all alike is left as it is.
        row: Where to start, within the budget, shape ``(D,)``.

    Returns:
        Shape ``(D,)``, canonical.
    """
    known = np.flatnonzero(np.ptp(losses, axis=1) > 0)
    n_values = space.encoding.n_values
    columns = np.repeat(known, n_values[known])
    entries = np.concatenate([np.arange(n_values[d]) for d in known])
    best, least = space.canonical(row[None])[0], np.inf
    while (found := _total(losses, best[None])[0]) < least:
        least = found
        single = np.repeat(best[None], len(columns), axis=0)
        single[np.arange(len(columns)), columns] = entries
        single = single[(single != best).any(axis=1)]
        values = _total(losses, np.concatenate((best[None], single)))
        around = _neighbourhood(space, best, single, values, ExchangeProposal.n_pairs)
        around = space.feasible(space.canonical(np.concatenate((best[None], around))))
        best = around[int(_total(losses, around).argmin())] if len(around) else best
    return np.asarray(best)


def _total(losses: FloatArray, rows: FloatArray) -> FloatArray:
    return np.asarray(losses[np.arange(len(losses)), rows.astype(np.int64)].sum(axis=1))


def _neighbourhood(
    space: DesignSpace, row: FloatArray, single: FloatArray, values: FloatArray, n_pairs: int
) -> FloatArray:
    """Return `single` changes of `row`, values completed within the budget, and pairs.

    Args:
        space: Where the violations come from.
        row: Shape ``(D,)``.
        single: Rows that differ from it in one choice, shape ``(s, D)``.
        values: What is minimized, of `row` and then of `single`, shape ``(s + 1,)``.
        n_pairs: Changes of two choices.
    """
    violation = space.violation(space.canonical(np.concatenate((row[None], single))))
    D, K = len(row), int(space.encoding.n_values.max())
    choice = (single != row).argmax(axis=1)
    value = single[np.arange(len(single)), choice].astype(np.int64)
    A, C = np.full((D, K), np.inf), np.zeros((D, K))
    A[np.arange(D), row.astype(np.int64)] = 0.0
    A[choice, value] = values[1:] - values[0]
    C[choice, value] = violation[1:] - violation[0]
    slack = -float(violation[0])
    return np.concatenate((single, _completed(A, C, slack), _pairs(A, C, slack, row, n_pairs)))


def _best_within(question: Question, rows: FloatArray) -> FloatArray | None:
    """Return the best free row within the budget, `None` if there is none."""
    space = question.space
    rows = space.feasible(space.distinct(rows, question.taken))
    if not len(rows):
        return None
    return np.asarray(rows[question.acquisition.order(space.points(rows))[0]])


def _completed(A: FloatArray, C: FloatArray, slack: float) -> FloatArray:
    """Return, for each value of each choice, the best row with it along the prices.

    For a price each choice by itself minimizes ``A + price C``. Values that no price brings
    within the budget are left out. O(P D K) for P prices, then O(P D) for each value.
    """
    D = len(A)
    listed = np.isfinite(A)
    unit = np.abs(A[listed]).max() / max(float(np.abs(C).max()), 1e-300)
    prices = np.append(0.0, unit * PRICES)
    rows = (A + prices[:, None, None] * C).argmin(axis=2)
    own = C[np.arange(D), rows]
    others = own.sum(axis=1, keepdims=True) - own
    within = others[:, :, None] + C <= slack  # (P, D, K)
    cheapest = within.argmax(axis=0)
    choice, value = np.nonzero(within.any(axis=0) & listed)
    result = rows[cheapest[choice, value]].astype(float)
    result[np.arange(len(result)), choice] = value
    return np.asarray(result)


def _pairs(A: FloatArray, C: FloatArray, slack: float, row: FloatArray, n: int) -> FloatArray:
    """Return the `n` changes of two choices with the smallest sum of `A` within the budget."""
    other = np.isfinite(A) & (np.arange(A.shape[1]) != row[:, None])
    choice, value = np.nonzero(other)
    a, c = A[choice, value], C[choice, value]
    sums = a[:, None] + a
    sums[(c[:, None] + c > slack) | (choice[:, None] >= choice)] = np.inf
    n = min(n, sums.size)
    least = np.argpartition(sums, n - 1, axis=None)[:n]
    least = least[np.isfinite(sums.ravel()[least])]
    result = np.repeat(row[None], len(least), axis=0)
    for moved in np.unravel_index(least, sums.shape):
        result[np.arange(len(least)), choice[moved]] = value[moved]
    return result
