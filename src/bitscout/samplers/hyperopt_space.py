# SPDX-License-Identifier: Apache-2.0
"""HyperOpt's search spaces as rows: labels as columns, conditions, and densities under them.

A label below `hp.choice` or `hp.pchoice` exists only where its branch is taken. Rows hold all
labels; those without effect are at their first value, so that equal points have equal rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bitscout.errors import ConfigError, UnsupportedError
from bitscout.samplers.densities import Density, DensityEstimator, Priors
from bitscout.samplers.encoding import Encoding
from bitscout.samplers.product_parzen import ProductDensity
from bitscout.samplers.ratio_selection import NEEDS_PRODUCT

__all__ = ["ConditionalDensity", "HyperoptSpace"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
# A conjunction: labels of choices and the branch that each must take.
Condition = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class HyperoptSpace:
    """The labels of a HyperOpt domain.

    Attributes:
        encoding: One column a label.
        steps: By label, the unit of a quantized label, whose column counts units.
        priors: By column, the probabilities `hp.pchoice` gives.
        conditions: By label, the conjunctions of which one must hold, in column order; an empty
            conjunction always does.
    """

    encoding: Encoding
    steps: Mapping[str, float]
    priors: Priors
    conditions: tuple[frozenset[Condition], ...]

    @classmethod
    def of(cls, domain: Any) -> HyperoptSpace:  # noqa: ANN401  # HyperOpt has no types
        """Return the space of a `hyperopt.base.Domain`.

        Raises:
            UnsupportedError: If a label has an unbounded or log-quantized distribution.
        """
        conditions: dict[str, set[Condition]] = {label: set() for label in domain.params}
        _walk(domain.expr, frozenset(), conditions)
        distributions: dict[str, BaseDistribution] = {}
        steps: dict[str, float] = {}
        priors: dict[int, FloatArray] = {}
        for column, (label, node) in enumerate(domain.params.items()):
            distributions[label] = _distribution(label, node)
            if node.name == "quniform":
                steps[label] = float(node.arg["q"].obj)
            if node.name == "categorical":
                weights = np.array([p.obj for p in node.pos_args[0].pos_args], dtype=float)
                priors[column] = weights / weights.sum()
        ordered = tuple(frozenset(conditions[label]) for label in domain.params)
        return cls(Encoding.of(distributions), steps, priors, ordered)

    def encode(self, points: Sequence[Mapping[str, Any]]) -> tuple[FloatArray, BoolArray]:
        """Return rows, ``(n, D)``, and which labels each point has, ``(n, D)``."""
        names = self.encoding.names
        active = np.array([[name in point for name in names] for point in points], dtype=bool)
        rows = np.zeros(active.shape)
        for d, (name, column) in enumerate(zip(names, self.encoding.columns, strict=True)):
            with_label = active[:, d]
            values = [point[name] for point in points if name in point]
            if name in self.steps:
                values = [round(value / self.steps[name]) for value in values]
            rows[with_label, d] = column.encode(values) if values else []
        return rows, active

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """Return the values of the labels that have an effect in `row`, of shape ``(D,)``."""
        active = self.active(row[None])[0]
        point = self.encoding.decode(row)
        return {
            name: point[name] * self.steps[name] if name in self.steps else point[name]
            for name, has_effect in zip(self.encoding.names, active, strict=True)
            if has_effect
        }

    def active(self, rows: FloatArray) -> BoolArray:
        """Return which labels have an effect in each of `rows`, ``(n, D)``."""
        column = {name: d for d, name in enumerate(self.encoding.names)}
        return np.stack(
            [
                np.any([self._holds(rows, condition, column) for condition in of_label], axis=0)
                for of_label in self.conditions
            ],
            axis=1,
        )

    def canonical(self, rows: FloatArray) -> FloatArray:
        """Return `rows` with labels without effect at their first value."""
        return np.where(self.active(rows), rows, 0.0)

    def _holds(
        self, rows: FloatArray, condition: Condition, column: Mapping[str, int]
    ) -> BoolArray:
        holds = np.ones(len(rows), dtype=bool)
        for name, branch in condition:
            # Branches count from 0, and so do the values of a choice.
            holds &= rows[:, column[name]] == branch
        return holds


@dataclass(frozen=True)
class ConditionalDensity:
    """A product over groups of labels that exist together, each fitted where it does.

    Attributes:
        space: The labels.
        groups: Columns of each group and their density over these columns.
    """

    space: HyperoptSpace
    groups: tuple[tuple[NDArray[np.int64], Density], ...]

    @classmethod
    def fit(
        cls, space: HyperoptSpace, estimator: DensityEstimator, rows: FloatArray, active: BoolArray
    ) -> ConditionalDensity:
        """Return the density of `rows`, of which the entries that are `active` count."""
        groups = []
        for condition in dict.fromkeys(space.conditions):
            columns = np.flatnonzero([c == condition for c in space.conditions])
            names = tuple(space.encoding.names[d] for d in columns)
            encoding = Encoding(names, tuple(space.encoding.columns[d] for d in columns))
            owned = enumerate(columns.tolist())
            priors = {i: space.priors[d] for i, d in owned if d in space.priors}
            layout = estimator.layout(encoding, priors)
            present = rows[active[:, columns].all(axis=1)][:, columns]
            groups.append((columns, estimator.fit(layout, present, priors)))
        return cls(space, tuple(groups))

    def sample(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` canonical rows drawn from it, ``(n, D)``."""
        rows = np.zeros((n, len(self.space.conditions)))
        for columns, density in self.groups:
            rows[:, columns] = density.sample(rng, n)
        return self.space.canonical(rows)

    def log_density(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of the density of what has an effect in `rows`, shape ``(n,)``."""
        active, result = self.space.active(rows), np.zeros(len(rows))
        for columns, density in self.groups:
            result += np.where(active[:, columns[0]], density.log_density(rows[:, columns]), 0.0)
        return result

    def log_marginals(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of each label's density, 0 without effect; shape ``(n, D)``.

        Raises:
            ConfigError: If the estimator is not one of each label by itself.
        """
        result = np.zeros(rows.shape)
        for columns, density in self.groups:
            if not isinstance(density, ProductDensity):
                raise ConfigError(NEEDS_PRODUCT)
            result[:, columns] = density.log_marginals(rows[:, columns])
        return np.where(self.space.active(rows), result, 0.0)


def _walk(node: Any, condition: Condition, found: dict[str, set[Condition]]) -> None:  # noqa: ANN401
    """Collect in `found` under which conditions each label below `node` is looked at."""
    if node.name == "hyperopt_param":
        found[node.arg["label"].obj].add(condition)
        return
    inputs = node.inputs()
    if node.name == "switch":
        choice, *branches = inputs
        _walk(choice, condition, found)
        label = choice.arg["label"].obj
        for i, branch in enumerate(branches):
            _walk(branch, condition | {(label, i)}, found)
        return
    for child in inputs:
        _walk(child, condition, found)


def _distribution(label: str, node: Any) -> BaseDistribution:  # noqa: ANN401
    """Return the distribution of a label.

    A quantized label counts units of its step. HyperOpt rounds a uniform draw, so that the values
    at its ends may be half as likely as the others; here all are alike.
    """
    if node.name == "categorical":
        return CategoricalDistribution(tuple(range(len(node.pos_args[0].pos_args))))
    if node.name not in {"randint", "uniform", "quniform", "loguniform"}:
        msg = (
            f"Label {label!r} has the distribution {node.name!r}; k-means TPE takes hp.choice, "
            "pchoice, randint, uniformint, quniform, uniform and loguniform. Give it bounds."
        )
        raise UnsupportedError(msg)
    numbers = [argument.obj for argument in node.pos_args]
    if node.name == "randint":
        low, high = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
        return CategoricalDistribution(tuple(range(low, high)))
    low, high = numbers[:2]
    if node.name == "uniform":
        return FloatDistribution(low, high)
    if node.name == "loguniform":
        return FloatDistribution(float(np.exp(low)), float(np.exp(high)), log=True)
    step = node.arg["q"].obj
    return IntDistribution(int(np.rint(low / step)), int(np.rint(high / step)))
