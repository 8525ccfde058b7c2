# SPDX-License-Identifier: Apache-2.0
"""What sensitivities say about the points of a given network's space, before any training.

Notation: ``x`` a point of the space; ``b_l`` the bits it gives layer ``l``. The expected loss of
``x`` is a sum over layers, so at fixed widths the best bits within additive budgets are an integer
program (`bitscout.sensitivity.allocate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import Budget, Values
from bitscout.errors import InfeasibleError
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.sensitivity import LossTable, allocate
from bitscout.space import ModelSpace

__all__ = ["Guidance"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Shares of a budget, or of the given network's size where there is none.
LADDER: Final = (1.0, 0.97, 0.94, 0.9, 0.85)
FREE_LADDER: Final = (1.0, 0.75, 0.5, 0.375, 0.25)
# Rows that are costed at once: memory stays small for networks of a thousand layers.
CHUNK: Final = 256
# Costs that are the largest of several kinds of hardware are not quite sums: limits are lowered by
# so much at a time until the answer keeps to them.
STEP: Final = 0.99
MAX_STEPS: Final = 50


@dataclass(frozen=True)
class Guidance:
    """Expected losses and integer programs over a given network's space.

    Attributes:
        costs: The space, and what its networks cost.
        losses: Expected increase of the loss for each layer and its bits, at the given widths.
    """

    costs: CandidateCosts
    losses: LossTable

    @property
    def space(self) -> ModelSpace:
        """The space."""
        space = self.costs.space
        assert isinstance(space, ModelSpace), "guidance is for given networks"
        return space

    def expected_loss(self, indices: IndexArray) -> FloatArray:
        """Return the expected increase of the loss of each point.

        At other widths a layer's part changes with the number of its weights: the error and the
        curvature of a weight are taken to stay. So bits are ranked at any widths, but widths are
        not: what a narrower layer loses is not in these numbers.

        Args:
            indices: Shape ``(n, D)``.

        Returns:
            Shape ``(n,)``, >= 0.
        """
        table = self.space.tabulate(indices)
        given = np.array([g.layer.n_weights for g in self.space.description.layers])
        per_layer = self.losses.at(table.weight_bits, table.act_bits)
        total: FloatArray = (per_layer * (table.layers.n_weights / given)).sum(axis=1)
        return total

    def best_bits(self, values: Values, limits: Mapping[str, float]) -> IndexArray | None:
        """Return the point with the widths of `values` whose bits have the least expected loss.

        Args:
            values: A point; only its widths count.
            limits: Largest value of each metric. Those that are no sums over layers (memory) are
                left out.

        Returns:
            Shape ``(D,)``, or `None` if no bits keep to the limits.
        """
        base = self.space.encode(values)
        options = self._options()
        names = [name for name in limits if name in self.costs.batch_metrics]
        if not options:
            return base if self._keeps_to(base, limits, names) else None
        rows, starts = _one_by_one(base, options)
        objective = _split(self._in_chunks(self.expected_loss, rows), starts)
        totals = self._costs_of(np.concatenate([base[None], rows]), names)
        tables = {name: _split(found[1:] - found[0], starts) for name, found in totals.items()}
        for step in range(MAX_STEPS):
            room = {n: limits[n] * STEP**step - float(totals[n][0]) for n in names}
            try:
                chosen = allocate(objective, tables, room)
            except InfeasibleError:
                return None
            point = base.copy()
            for variable, option in zip(options, chosen, strict=True):
                point[list(variable.columns)] = variable.rows[option]
            if self._keeps_to(point, limits, names):
                return point
        return None

    def _keeps_to(
        self, point: IndexArray, limits: Mapping[str, float], names: Sequence[str]
    ) -> bool:
        known = self._costs_of(point[None], names)
        return all(known[name][0] <= limits[name] for name in names)

    def starts(self, budget: Budget) -> list[IndexArray]:
        """Return the points a search begins with: the integer program along a ladder of budgets.

        At the given widths within the whole budget, then within less of it; then within the whole
        budget at every other width, wider networks having fewer bits. Without a budget the ladder
        is one of sizes.

        Returns:
            Different points, each of shape ``(D,)``; none where no bits keep to the budget.
        """
        seed = self.space.seed_values()
        limits = dict(budget.limits().values())
        steps = LADDER
        if not limits:
            size = float(self.space.size_bits(self.space.seed_indices()[None])[0]) / 8
            limits, steps = {"size_bytes": size}, FREE_LADDER
        asked = [(seed, step) for step in steps]
        widths = {choice for choice in self.space.choices if choice.kind == "architecture"}
        for multiplier in self.space.widths:
            others = {choice.name: multiplier for choice in widths}
            asked.append(({**seed, **others}, steps[0]))
        found: dict[bytes, IndexArray] = {}
        for values, step in asked:
            row = self.best_bits(values, {name: step * value for name, value in limits.items()})
            if row is not None:
                row = self.space.canonical_indices(row[None])[0]
                found.setdefault(row.tobytes(), row)
        return list(found.values())

    def _options(self) -> list[_Variable]:
        """Return one variable for each tie that has bits to choose: all its combinations."""
        columns = {choice.name: i for i, choice in enumerate(self.space.choices)}
        found = []
        for label in self.space.bit_layers:
            names = [n for n in (f"{label}.bits", f"{label}.act_bits") if n in columns]
            if names:
                places = tuple(columns[name] for name in names)
                lengths = [len(self.space.choices[place].values) for place in places]
                rows = np.array(list(product(*map(range, lengths))), dtype=np.int64)
                found.append(_Variable(places, rows))
        return found

    def _costs_of(self, rows: IndexArray, names: Sequence[str]) -> dict[str, FloatArray]:
        parts = [
            self.costs.batch(rows[start : start + CHUNK], names)
            for start in range(0, len(rows), CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    @staticmethod
    def _in_chunks(function: Callable[[IndexArray], FloatArray], rows: IndexArray) -> FloatArray:
        starts = range(0, len(rows), CHUNK)
        return np.concatenate([function(rows[start : start + CHUNK]) for start in starts])


@dataclass(frozen=True)
class _Variable:
    """Choices of one tie that the integer program sets together.

    Attributes:
        columns: Their places in a point.
        rows: Every combination of their indices, shape ``(n_options, n_columns)``.
    """

    columns: tuple[int, ...]
    rows: IndexArray


def _one_by_one(base: IndexArray, variables: Sequence[_Variable]) -> tuple[IndexArray, list[int]]:
    """Return `base` with each variable at each of its options, and where variables start."""
    blocks, starts = [], [0]
    for variable in variables:
        block = np.repeat(base[None], len(variable.rows), axis=0)
        block[:, list(variable.columns)] = variable.rows
        blocks.append(block)
        starts.append(starts[-1] + len(block))
    return np.concatenate(blocks), starts


def _split(values: FloatArray, starts: Sequence[int]) -> list[FloatArray]:
    return [values[a:b] for a, b in pairwise(starts)]
