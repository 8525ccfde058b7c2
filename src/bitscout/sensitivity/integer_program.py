# SPDX-License-Identifier: Apache-2.0
"""One option for each group within additive budgets: `scipy.optimize.milp`, prepared and checked.

Notation:

    x_go  1 where group ``g`` takes option ``o``, else 0
    c_go  objective of that option, less the smallest of its group: >= 0
    a_kgo its cost in budget ``k``, with the limit ``b_k``
    l_k   a price >= 0 for budget ``k``
    r_go  reduced cost ``c_go + l a_go``, less the smallest of its group: >= 0
    L(l)  sum over groups of the smallest ``c_go + l a_go``, less ``l b``

Every choice within the limits has an objective of at least ``L + sum r_go x_go``, for any prices.
So an option whose reduced cost exceeds the distance from ``L`` to a known choice, or whose ``c``
alone exceeds that choice's objective, is in no better one. The solver gets what is left, in units
of that objective: its tolerances are absolute, and expected losses span many decades.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, hstack

from bitscout.errors import InfeasibleError
from bitscout.sensitivity.solver_output import discarded_solver_output

__all__ = ["IntegerProgram"]

# Sums in another order than ours may differ by this much, relative to a limit.
ROUNDING: Final = 1e-12
# Up to so many groups the optimum is proved; beyond, to within a part of the objective that no
# expected loss is known to. Proving more takes minutes for a thousand groups.
MAX_PROVED: Final = 128
GAP_OF_MORE: Final = 1e-5
MAX_TIGHTENINGS: Final = 8
# The solver stops within 1e-6 of the optimum, which is then 1e-10 of it.
SOLVER_UNITS: Final = 1e4
# Objectives of the linear program that are rounding, in units of the dearest option.
NOTHING: Final = 1e-14
# Only for the message about what is nearest to limits that cannot be met.
NEAREST_GAP: Final = 1e-4
# Factors of the prices that are tried for a first choice within the limits.
FACTORS: Final = (*(1 + np.logspace(-6, 1, 29)), *np.logspace(1.5, 9, 16))

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """What the linear program says about the integer program.

    Attributes:
        prices: ``l``.
        bound: ``L``.
        reduced: ``r``, infinite for options that are out.
    """

    prices: FloatArray
    bound: float
    reduced: FloatArray


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """The options of all groups one after another.

    Attributes:
        sizes: Options of each group, each at least 1.
        values: ``c``, shape ``(n,)``.
        costs: ``a``, shape ``(n_budgets, n)``.
        limits: ``b``, finite, shape ``(n_budgets,)``.
    """

    sizes: IntArray
    values: FloatArray
    costs: FloatArray
    limits: FloatArray

    @property
    def starts(self) -> IntArray:
        """Place of each group's first option."""
        return np.cumsum(self.sizes) - self.sizes

    def objective(self, chosen: IntArray) -> float:
        """Return the sum of the chosen options' values."""
        return float(self.values[chosen].sum())

    def is_within(self, chosen: IntArray) -> bool:
        """Return whether a choice keeps to all limits."""
        over = self.costs[:, chosen].sum(axis=1) - self.limits
        return bool((over <= ROUNDING * np.abs(self.limits)).all())

    def solve(self) -> IntArray | None:
        """Return the places of the best options, `None` if nothing is within the limits."""
        free = self._smallest(self.values)
        if self.is_within(free):
            return free
        active, best = np.ones(len(self.values), dtype=bool), None
        # The second time without what the first has ruled out, so with a better bound.
        for _ in range(2):
            relaxed = self._relaxed(active)
            if relaxed is None:
                return best
            best = self._better(best, self._rounded(relaxed, active))
            if best is not None:
                objective = self.objective(best)
                active &= self.values <= objective
                active &= relaxed.reduced <= objective - relaxed.bound + 1e-9 * objective
        return self._better(best, self._solve_active(active, best))

    def nearest(self) -> FloatArray:
        """Return the costs of the choice whose largest cost relative to its limit is smallest."""
        units = np.where(self.limits != 0, np.abs(self.limits), 1.0)
        n, n_budgets = len(self.values), len(self.limits)
        choices = hstack([self._one_hot(), csr_array((len(self.sizes), 1))])
        rows = np.hstack([self.costs / units[:, None], -np.ones((n_budgets, 1))])
        with discarded_solver_output():
            result = milp(
                np.append(np.zeros(n), 1.0),
                integrality=np.append(np.ones(n), 0),
                bounds=Bounds(np.append(np.zeros(n), -np.inf), np.append(np.ones(n), np.inf)),
                constraints=[
                    LinearConstraint(choices, 1, 1),
                    LinearConstraint(rows, -np.inf, np.sign(self.limits)),
                ],
                options={"mip_rel_gap": NEAREST_GAP},
            )
        costs: FloatArray = self.costs[:, self._largest(result.x[:-1])].sum(axis=1)
        return costs

    def _better(self, chosen: IntArray | None, other: IntArray | None) -> IntArray | None:
        """Return the choice with the smaller objective, the first of equal ones."""
        if chosen is None or other is None:
            return other if chosen is None else chosen
        return other if self.objective(other) < self.objective(chosen) else chosen

    def _relaxed(self, active: BoolArray) -> _Relaxed | None:
        """Return what the linear program of active options says, `None` without a solution.

        Solved twice, the second time in units of its own objective.
        """
        units, prices = self._units(active), np.zeros(len(self.limits))
        scale = float(self.values[active].max()) or 1.0
        for _ in range(2):
            result = linprog(
                self.values[active] / scale,
                A_ub=csr_array(self.costs[:, active] / units[:, None]),
                b_ub=self.limits / units,
                A_eq=self._one_hot()[:, active],
                b_eq=np.ones(len(self.sizes)),
            )
            if result.x is None:
                return None
            prices = np.maximum(-result.ineqlin.marginals, 0) * scale / units
            if result.fun > NOTHING:  # An optimum of nothing says nothing about its unit.
                scale *= float(result.fun)
        priced = np.where(active, self.values + prices @ self.costs, np.inf)
        smallest = np.minimum.reduceat(priced, self.starts)
        bound = float(smallest.sum() - prices @ self.limits)
        return _Relaxed(prices, bound, priced - np.repeat(smallest, self.sizes))

    def _rounded(self, relaxed: _Relaxed, active: BoolArray) -> IntArray | None:
        """Return the choice at the lowest prices that keeps to the limits, then improved."""
        prices = np.where(relaxed.prices > 0, relaxed.prices, relaxed.prices.max() * 1e-6)
        for factor in FACTORS:
            priced = self.values + factor * (prices @ self.costs)
            chosen = self._smallest(np.where(active, priced, np.inf))
            if self.is_within(chosen):
                return self._improved(chosen)
        return None

    def _improved(self, chosen: IntArray) -> IntArray:
        """Return a choice after taking, as long as there is one, the best change of one group."""
        best = chosen.copy()
        groups = np.repeat(np.arange(len(self.sizes)), self.sizes)
        for _ in range(len(self.values)):
            taken = self.costs[:, best]
            after = taken.sum(axis=1)[:, None] + self.costs - taken[:, groups]
            gains = self.values[best][groups] - self.values
            gains[(after > self.limits[:, None]).any(axis=0)] = 0
            place = int(gains.argmax())
            if gains[place] <= 0:
                break
            best[groups[place]] = place
        return best if self.is_within(best) else chosen

    def _solve_active(self, active: BoolArray, best: IntArray | None) -> IntArray | None:
        """Return the best choice of active options, `None` if none is within the limits."""
        scale = float(self.values.max()) if best is None else self.objective(best)
        scale = (scale or 1.0) / SOLVER_UNITS
        units = self._units(active)
        rows = csr_array(self.costs[:, active] / units[:, None])
        n, limits = int(active.sum()), self.limits.copy()
        gap = 0.0 if len(self.sizes) <= MAX_PROVED else GAP_OF_MORE
        for _ in range(MAX_TIGHTENINGS):
            with discarded_solver_output():
                result = milp(
                    self.values[active] / scale,
                    integrality=np.ones(n),
                    bounds=Bounds(0, 1),
                    constraints=[
                        LinearConstraint(self._one_hot()[:, active], 1, 1),
                        LinearConstraint(rows, -np.inf, limits / units),
                    ],
                    options={"mip_rel_gap": gap},
                )
            if result.x is None:
                return None
            x = np.full(len(self.values), -1.0)
            x[active] = result.x
            chosen = self._largest(x)
            if self.is_within(chosen):
                return self._improved(chosen)
            # Within the solver's tolerance, but not within the limit: ask for a little less.
            over = self.costs[:, chosen].sum(axis=1) - self.limits
            limits = np.where(over > 0, limits - 2 * over, limits)
        msg = "The integer program cannot be solved: its costs span too many decades."
        raise InfeasibleError(msg)

    def _units(self, active: BoolArray) -> FloatArray:
        largest = np.abs(self.costs[:, active]).max(axis=1)
        return np.where(largest > 0, largest, 1.0)

    def _one_hot(self) -> csr_array:
        n = len(self.values)
        rows = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return csr_array((np.ones(n), (rows, np.arange(n))), shape=(len(self.sizes), n))

    def _smallest(self, values: FloatArray) -> IntArray:
        """Return the place of the smallest value of each group, the first of equal ones."""
        smallest = np.repeat(np.minimum.reduceat(values, self.starts), self.sizes)
        hits = np.flatnonzero(values == smallest)
        return hits[np.searchsorted(hits, self.starts)]

    def _largest(self, x: FloatArray) -> IntArray:
        return self._smallest(-x)
