# SPDX-License-Identifier: Apache-2.0
"""Optuna's distributions as columns of an array.

Notation:

    row   one point, shape ``(D,)``: the index ``j`` of a discrete choice, or the unit coordinate
          of a continuous one
    n     number of values of a discrete choice, 0 for a continuous one
    u     unit coordinate in ``[0, 1]``: ``(j + 0.5) / n`` for a discrete choice

Choices are ordinal: integers, floats with a step and categories alike are ordered by their
position in the list of values, as in KerasTuner 1.1.3. The one deviation: an integer with
``log=True`` has its unit coordinate on the logarithmic scale, since its list may hold millions
of values. Continuous floats are linear in ``u``, or linear in the logarithm.
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

from bitscout.errors import UnsupportedError

__all__ = ["Encoding"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class _Column:
    """One choice: its distribution and how its values are numbered."""

    distribution: BaseDistribution
    n_values: int
    is_log: bool

    @classmethod
    def of(cls, distribution: BaseDistribution) -> _Column:
        if isinstance(distribution, CategoricalDistribution):
            return cls(distribution, len(distribution.choices), False)
        if isinstance(distribution, IntDistribution):
            n_values = (distribution.high - distribution.low) // distribution.step + 1
            return cls(distribution, n_values, distribution.log)
        if isinstance(distribution, FloatDistribution):
            if distribution.single():
                return cls(distribution, 1, False)
            if distribution.step is None:
                return cls(distribution, 0, distribution.log)
            steps = (distribution.high - distribution.low) / distribution.step
            return cls(distribution, round(steps) + 1, False)
        msg = f"Expected an integer, float or categorical distribution, got {distribution!r}."
        raise UnsupportedError(msg)

    def encode(self, values: Sequence[Any]) -> FloatArray:
        """Return indices or unit coordinates; NaN where the choice has no such value."""
        dist = self.distribution
        if isinstance(dist, CategoricalDistribution):
            return np.array([_position(dist, value) for value in values], dtype=float)
        assert isinstance(dist, IntDistribution | FloatDistribution)
        column = np.asarray(values, dtype=float)
        if self.n_values:
            index = np.rint((column - dist.low) / (dist.step or 1.0))
            off_grid = ~np.isclose(dist.low + index * (dist.step or 1.0), column, rtol=1e-9)
            index[off_grid | (index < 0) | (index >= self.n_values)] = np.nan
            return index
        outside = (column < dist.low) | (column > dist.high)
        low, high = float(dist.low), float(dist.high)
        if self.is_log:
            column, low, high = np.log(column.clip(low, high)), np.log(low), np.log(high)
        unit = (column - low) / (high - low)
        unit[outside] = np.nan
        return np.asarray(unit, dtype=float)

    def decode(self, entry: float) -> Any:  # noqa: ANN401  # Optuna's parameters are any
        """Return the native Python value of one entry of a row."""
        dist = self.distribution
        if isinstance(dist, CategoricalDistribution):
            return dist.choices[int(entry)]
        if isinstance(dist, IntDistribution):
            return int(dist.low + int(entry) * dist.step)
        assert isinstance(dist, FloatDistribution)
        if self.n_values:
            value = dist.low + int(entry) * (dist.step or 0.0)
        elif self.is_log:
            value = np.exp(np.log(dist.low) + entry * (np.log(dist.high) - np.log(dist.low)))
        else:
            value = dist.low + entry * (dist.high - dist.low)
        return float(min(max(value, dist.low), dist.high))

    def log_bounds(self) -> tuple[float, float]:
        """Return the logarithms of the ends of an integer's range, each cell its own half wide."""
        assert isinstance(self.distribution, IntDistribution)
        return float(np.log(self.distribution.low - 0.5)), float(
            np.log(self.distribution.high + 0.5)
        )


@dataclass(frozen=True)
class Encoding:
    """The columns of a search space.

    Attributes:
        names: Parameter names, in column order.
        columns: What each column stands for.
    """

    names: tuple[str, ...]
    columns: tuple[_Column, ...]

    @classmethod
    def of(cls, search_space: Mapping[str, BaseDistribution]) -> Encoding:
        """Return the encoding of `search_space`, columns in its order.

        Raises:
            UnsupportedError: If a distribution is not one of Optuna's three kinds.
        """
        columns = tuple(_Column.of(distribution) for distribution in search_space.values())
        return cls(tuple(search_space), columns)

    @property
    def n_values(self) -> NDArray[np.int64]:
        """Number of values of each choice, 0 for a continuous one; shape ``(D,)``."""
        return np.array([column.n_values for column in self.columns], dtype=np.int64)

    @property
    def continuous_names(self) -> tuple[str, ...]:
        """Names of the choices without an index."""
        pairs = zip(self.names, self.columns, strict=True)
        return tuple(name for name, column in pairs if not column.n_values)

    @property
    def size(self) -> float:
        """Number of points, infinite if a choice is continuous."""
        counts = self.n_values.astype(float)
        return float(np.prod(np.where(counts > 0, counts, np.inf)))

    def encode(self, points: Sequence[Sequence[Any]]) -> FloatArray:
        """Return the rows of `points`, values in column order; shape ``(n, D)``.

        A value outside its distribution becomes NaN.
        """
        if not points:
            return np.empty((0, len(self.names)))
        by_name = zip(*points, strict=True)
        rows = [column.encode(vs) for column, vs in zip(self.columns, by_name, strict=True)]
        return np.ascontiguousarray(np.stack(rows, axis=1))

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """Return the parameters of one row of shape ``(D,)``, as native Python values."""
        entries = zip(self.names, self.columns, row.tolist(), strict=True)
        return {name: column.decode(entry) for name, column, entry in entries}

    def unit(self, rows: FloatArray) -> FloatArray:
        """Return the unit coordinates of `rows`, shape ``(n, D)``.

        Example:
            >>> space = {"bits": IntDistribution(4, 8), "rate": FloatDistribution(0, 1)}
            >>> Encoding.of(space).unit(np.array([[0, 0.3], [4, 0.6]]))
            array([[0.1, 0.3],
                   [0.9, 0.6]])
        """
        n_values = self.n_values
        unit = np.where(n_values > 0, (rows + 0.5) / np.maximum(n_values, 1), rows)
        for d in self._log_integers:
            low, high = self.columns[d].log_bounds()
            value = _low(self.columns[d]) + rows[:, d]
            unit[:, d] = (np.log(value) - low) / (high - low)
        return unit

    def cells(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the cells of `rows` on the unit axes, each of shape ``(n, D)``.

        A continuous choice has no cell: both ends are its unit coordinate.

        Example:
            >>> Encoding.of({"bits": IntDistribution(4, 8)}).cells(np.array([[1.0]]))
            (array([[0.2]]), array([[0.4]]))
        """
        n_values = self.n_values
        counts = np.maximum(n_values, 1)
        lower = np.where(n_values > 0, rows / counts, rows)
        upper = np.where(n_values > 0, (rows + 1) / counts, rows)
        for d in self._log_integers:
            low, high = self.columns[d].log_bounds()
            value = _low(self.columns[d]) + rows[:, d]
            lower[:, d] = (np.log(value - 0.5) - low) / (high - low)
            upper[:, d] = (np.log(value + 0.5) - low) / (high - low)
        return lower, upper

    def snap(self, unit: FloatArray) -> FloatArray:
        """Return the rows whose cells hold `unit`, shape ``(n, D)``: ``floor(u n)``, clipped."""
        n_values = self.n_values
        last = np.maximum(n_values - 1, 0)
        rows = np.where(n_values > 0, np.clip(np.floor(unit * n_values), 0, last), unit)
        for d in self._log_integers:
            low, high = self.columns[d].log_bounds()
            value = np.rint(np.exp(low + unit[:, d] * (high - low)))
            rows[:, d] = np.clip(value - _low(self.columns[d]), 0, last[d])
        return rows

    def random_rows(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` rows, uniform in the unit cube; shape ``(n, D)``."""
        return self.snap(rng.random((n, len(self.names))))

    def all_rows(self) -> FloatArray:
        """Return every point of a finite space, shape ``(size, D)``; check `size` first."""
        grid = np.indices(tuple(self.n_values)).reshape(len(self.names), -1)
        return np.ascontiguousarray(grid.T, dtype=float)

    @property
    def _log_integers(self) -> tuple[int, ...]:
        return tuple(d for d, c in enumerate(self.columns) if c.is_log and c.n_values)


def _low(column: _Column) -> int:
    assert isinstance(column.distribution, IntDistribution)
    return column.distribution.low


def _position(distribution: CategoricalDistribution, value: object) -> float:
    try:
        return distribution.to_internal_repr(value)  # type: ignore[arg-type]  # checked by Optuna
    except ValueError:
        return float("nan")
