# SPDX-License-Identifier: Apache-2.0
"""Densities over a search space, fitted to rows: what tree Parzen estimators compare.

Notation:

    D      choices, in two kinds: *tabled* ones, whose few values are listed, and *free* ones
    C, F   numbers of tabled and of free choices
    K      largest number of values of a tabled choice
    m      components of a mixture

Every choice is looked at on its unit axis (see `Encoding`), where ``n`` values are ``n`` cells:
HyperOpt's rules for quantized choices, ``low = -0.5``, ``high = n - 0.5`` and steps of 1, are the
same on any axis. Categories, which have no order, get pseudo-counts. The densities of discrete
choices are probabilities, those of continuous ones densities on the unit axis; a ratio of two
densities has no unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from bitscout.errors import ConfigError
from bitscout.samplers.encoding import Encoding
from bitscout.samplers.parzen import Mixtures

__all__ = [
    "Density",
    "DensityEstimator",
    "Layout",
    "Priors",
    "cell_masses",
    "drawn",
    "priors_of",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
# Priors by column: probabilities of the values of a tabled choice.
Priors = Mapping[int, FloatArray]
# Ordered choices of more values than this are free: their cells are computed where needed.
MAX_TABLED: Final = 64


class Density(Protocol):
    """A fitted density."""

    def sample(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` rows drawn from it, ``(n, D)``."""

    def log_density(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of the density at `rows`, shape ``(n,)``."""


class DensityEstimator(Protocol):
    """A way to fit a density; immutable."""

    def layout(self, encoding: Encoding, priors: Priors) -> Layout:
        """Return how the columns are looked at."""

    def fit(self, layout: Layout, rows: FloatArray, priors: Priors) -> Density:
        """Return the density of `rows`, oldest first, ``(n, D)`` with any `n`; deterministic."""


@dataclass(frozen=True)
class Layout:
    """Which columns of a space are tabled, and which are not.

    Attributes:
        encoding: The columns.
        counted: Which columns are categories without an order, ``(D,)``.
        tabled: Columns whose values are listed, the counted ones among them, ``(C,)``.
        free: The other columns, ``(F,)``.
    """

    encoding: Encoding
    counted: BoolArray
    tabled: IndexArray
    free: IndexArray

    @classmethod
    def of(
        cls, encoding: Encoding, *, count_all: bool = False, with_prior: Priors | None = None
    ) -> Layout:
        """Return the layout of `encoding`.

        Args:
            encoding: The columns.
            count_all: Whether all listed values are taken for categories without an order.
            with_prior: Columns that must be tabled.
        """
        n_values = encoding.n_values
        counted = np.array(
            [isinstance(c.distribution, CategoricalDistribution) for c in encoding.columns],
            dtype=bool,
        )
        even = np.array([c.n_values > 0 and not c.is_log for c in encoding.columns], dtype=bool)
        if count_all:
            counted |= even
        listed = counted | (even & (n_values <= MAX_TABLED))
        listed[list(with_prior or {})] = True
        return cls(encoding, counted, np.flatnonzero(listed), np.flatnonzero(~listed))

    @cached_property
    def is_value(self) -> BoolArray:
        """Which entries of a table ``(C, K)`` are values; the others pad it."""
        n_values = self.encoding.n_values[self.tabled]
        return np.asarray(np.arange(max(n_values, default=0)) < n_values[:, None])

    @cached_property
    def edges(self) -> FloatArray:
        """Ends of the cells of the tabled choices, ``(K + 1, C)``, at most 1."""
        n_values = self.encoding.n_values[self.tabled]
        return np.minimum(np.arange(self.is_value.shape[1] + 1)[:, None] / n_values, 1.0)

    @cached_property
    def is_continuous(self) -> BoolArray:
        """Which free choices have no cells, ``(F,)``."""
        return np.asarray(self.encoding.n_values[self.free] == 0)

    def cells(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the cells of `rows` in the free choices, ``(n, F)`` each."""
        lower, upper = self.encoding.cells(rows)
        return lower[:, self.free], upper[:, self.free]

    def rows(self, indices: IndexArray, unit: FloatArray) -> FloatArray:
        """Return rows of tabled `indices`, ``(n, C)``, and free coordinates `unit`, ``(n, F)``."""
        full = np.zeros((len(unit), len(self.encoding.names)))
        full[:, self.free] = unit
        rows = self.encoding.snap(full)
        rows[:, self.tabled] = indices
        return rows


def cell_masses(layout: Layout, tabled: Mixtures, priors: Priors) -> FloatArray:
    """Return the mass of each component in the cells of the tabled choices, ``(m, C, K)``.

    The first component, the prior, is what `priors` say where they say something.
    """
    masses = np.diff(tabled.component_cdf(layout.edges), axis=0).transpose(1, 2, 0).copy()
    for d, prior in priors.items():
        c = int(np.flatnonzero(layout.tabled == d)[0])
        masses[0, c] = 0.0
        masses[0, c, : len(prior)] = prior
    return masses


def drawn(cumulative: FloatArray, u: FloatArray) -> IndexArray:
    """Return the first index whose `cumulative` share exceeds `u`.

    Args:
        cumulative: Ascending shares along the last axis, ``(..., C, K)``, the last about 1.
        u: Uniform draws, ``(n, C)``.
    """
    reached = u[..., None] * cumulative[..., -1:] >= cumulative
    # The largest `u` may round to the end; values that pad a table have no share.
    last = (cumulative < cumulative[..., -1:]).sum(axis=-1)
    return np.asarray(np.minimum(reached.sum(axis=-1), last))


def priors_of(log_prior: Mapping[str, Sequence[float]], encoding: Encoding) -> Priors:
    """Return the prior probabilities of the values, by column.

    Raises:
        ConfigError: If a name is unknown or has not one number a value.
    """
    priors: dict[int, FloatArray] = {}
    for name, logs in log_prior.items():
        d = encoding.names.index(name) if name in encoding.names else -1
        n_values = int(encoding.n_values[d]) if d >= 0 else 0
        if len(logs) != n_values or not np.isfinite(logs).all():
            msg = (
                f"`log_prior[{name!r}]` must have one finite number for each of the choice's "
                f"{n_values} values, got {len(logs)}. The choices are {encoding.names}."
            )
            raise ConfigError(msg)
        weights = np.exp(np.asarray(logs, dtype=float) - np.max(logs))
        priors[d] = weights / weights.sum()
    return priors
