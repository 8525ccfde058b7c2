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

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from scipy.special import logsumexp

from bitscout.samplers.encoding import Encoding
from bitscout.samplers.parzen import (
    MAX_NARROWING,
    Mixtures,
    fit_parzen,
    forgetting_weights,
    pseudo_counts,
)
from bitscout.samplers.surrogates import check_positive

__all__ = [
    "Density",
    "DensityEstimator",
    "Layout",
    "MixtureDensity",
    "MixtureParzen",
    "ProductDensity",
    "ProductParzen",
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


@dataclass(frozen=True)
class ProductDensity:
    """A product of one-dimensional densities.

    Attributes:
        layout: The columns.
        table: Probabilities of the tabled choices, ``(C, K)``, 0 beyond their values.
        mixtures: Densities of the free choices on the unit axis, `F` of them.
    """

    layout: Layout
    table: FloatArray
    mixtures: Mixtures

    def sample(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` rows drawn from it, ``(n, D)``."""
        indices = drawn(np.cumsum(self.table, axis=1), rng.random((n, len(self.table))))
        return self.layout.rows(indices, self.mixtures.sample(rng, n))

    def log_density(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of the density at `rows`, shape ``(n,)``."""
        return np.asarray(self.log_marginals(rows).sum(axis=1))

    def log_marginals(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of each choice's own density at `rows`, shape ``(n, D)``."""
        layout, result = self.layout, np.empty(rows.shape)
        indices = rows[:, layout.tabled].astype(np.int64)
        result[:, layout.tabled] = self.table[np.arange(len(self.table)), indices]
        if len(layout.free):
            lower, upper = layout.cells(rows)
            mass = self.mixtures.mass(lower, upper)
            is_continuous = layout.is_continuous
            if is_continuous.any():
                mass = np.where(is_continuous, self.mixtures.density(lower), mass)
            result[:, layout.free] = mass
        return np.asarray(np.log(result))


@dataclass(frozen=True)
class ProductParzen:
    """HyperOpt's estimators, each choice on its own.

    Attributes:
        estimator: ``ordinal`` puts normals on the index of an ordered choice, the literal
            ``fit_gaussian`` of the paper; ``categorical`` counts values. Optuna's categorical
            distributions are always counted.
        n_full: Number of newest observations that are not forgotten, HyperOpt's 25; `None`
            forgets nothing. The paper does not speak of it, but integrates into HyperOpt.
        prior_weight: Weight of the prior against one observation, > 0.

    Raises:
        ConfigError: If a number is not positive.
    """

    estimator: Literal["ordinal", "categorical"] = "ordinal"
    n_full: int | None = 25
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        """Reject numbers that are not positive."""
        check_positive("prior_weight", self.prior_weight)
        check_positive("n_full", 1 if self.n_full is None else self.n_full)

    def layout(self, encoding: Encoding, priors: Priors) -> Layout:
        """Return which columns are tabled."""
        return Layout.of(encoding, count_all=self.estimator == "categorical", with_prior=priors)

    def fit(self, layout: Layout, rows: FloatArray, priors: Priors) -> ProductDensity:
        """Return the density of `rows`, oldest first, ``(n, D)`` with any `n`; deterministic."""
        w = forgetting_weights(len(rows), self.n_full)
        unit = layout.encoding.unit(rows)
        mixtures = fit_parzen(unit, w, low=0.0, high=1.0, prior_weight=self.prior_weight)
        tabled = mixtures.columns(layout.tabled)
        masses = cell_masses(layout, tabled, priors)
        table = np.tensordot(tabled.weights, masses, axes=1)
        for c, d in enumerate(layout.tabled.tolist()):
            if layout.counted[d]:
                n_values = int(layout.encoding.n_values[d])
                prior = priors.get(d, np.full(n_values, 1.0 / n_values))
                indices = rows[:, d].astype(np.int64)
                counts = pseudo_counts(indices, w, prior, prior_weight=self.prior_weight)
                table[c, :n_values] = counts
        table /= table.sum(axis=1, keepdims=True)
        return ProductDensity(layout, table, mixtures.columns(layout.free))


@dataclass(frozen=True)
class MixtureDensity:
    """A mixture whose components are products over the choices: it knows what goes together.

    Attributes:
        layout: The columns.
        weights: Weights of the components, ``(m,)``.
        tables: Kernels of the tabled choices, ``(m, C, K)``, each summing to 1.
        kernels: Kernels of the free choices, each truncated by itself.
    """

    layout: Layout
    weights: FloatArray
    tables: FloatArray
    kernels: Mixtures

    def sample(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` rows drawn from it, ``(n, D)``."""
        component = drawn(np.cumsum(self.weights)[None], rng.random((n, 1)))[:, 0]
        u = rng.random((n, len(self.layout.tabled)))
        indices = drawn(np.cumsum(self.tables, axis=2)[component], u)
        repeated = np.repeat(component[:, None], len(self.layout.free), axis=1)
        return self.layout.rows(indices, self.kernels.sample_components(rng, repeated))

    def log_density(self, rows: FloatArray) -> FloatArray:
        """Return the logarithm of the density at `rows`, shape ``(n,)``."""
        layout = self.layout
        indices = rows[:, layout.tabled].astype(np.int64)
        with np.errstate(divide="ignore"):
            # A kernel's tail may underflow to 0; the prior's never does.
            parts = np.log(self.tables[:, np.arange(indices.shape[1]), indices]).sum(axis=2).T
            if len(layout.free):
                lower, upper = layout.cells(rows)
                kernels = self.kernels
                mass = kernels.component_cdf(upper) - kernels.component_cdf(lower)
                z = (lower[:, None, :] - kernels.means) / kernels.sigmas
                bells = np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * kernels.sigmas)
                values = np.where(layout.is_continuous, bells, mass) / kernels.accepted
                parts = parts + np.log(values).sum(axis=2)
        return np.asarray(logsumexp(parts + np.log(self.weights), axis=1))


@dataclass(frozen=True)
class MixtureParzen:
    """A multivariate estimator: one kernel an observation, over all choices at once.

    Widths follow Scott's rule, ``bandwidth n^(-1 / (D + 4))`` of the range, at least the narrowest
    of `fit_parzen`, as in Optuna's multivariate TPE.

    Attributes:
        bandwidth: Width at one observation, in ranges, > 0.
        n_full: Number of newest observations that are not forgotten; `None` forgets nothing.
        prior_weight: Weight of the prior against one observation, > 0.

    Raises:
        ConfigError: If a number is not positive.
    """

    bandwidth: float = 0.2
    n_full: int | None = 25
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        """Reject numbers that are not positive."""
        check_positive("bandwidth", self.bandwidth)
        check_positive("prior_weight", self.prior_weight)
        check_positive("n_full", 1 if self.n_full is None else self.n_full)

    def layout(self, encoding: Encoding, priors: Priors) -> Layout:
        """Return which columns are tabled."""
        return Layout.of(encoding, with_prior=priors)

    def fit(self, layout: Layout, rows: FloatArray, priors: Priors) -> MixtureDensity:
        """Return the density of `rows`, oldest first, ``(n, D)`` with any `n`; deterministic."""
        n, n_columns = rows.shape
        w = np.concatenate(([self.prior_weight], forgetting_weights(n, self.n_full)))
        means = np.concatenate((np.full((1, n_columns), 0.5), layout.encoding.unit(rows)))
        width = self.bandwidth * max(n, 1) ** (-1.0 / (n_columns + 4))
        sigmas = np.full_like(means, max(width, 1.0 / min(MAX_NARROWING, n + 2)))
        sigmas[0] = 1.0
        kernels = Mixtures(w / w.sum(), means, sigmas, 0.0, 1.0)
        tables = cell_masses(layout, kernels.columns(layout.tabled), priors)
        for c, d in enumerate(layout.tabled.tolist()):
            if layout.counted[d]:
                n_values = int(layout.encoding.n_values[d])
                # One count for the observed category, and the prior's share of one for each.
                tables[1:, c, :n_values] = self.prior_weight / max(n, 1)
                tables[np.arange(1, n + 1), c, rows[:, d].astype(np.int64)] += 1.0
                tables[0, c, :n_values] = priors.get(d, np.full(n_values, 1.0 / n_values))
        tables /= tables.sum(axis=2, keepdims=True)
        return MixtureDensity(layout, kernels.weights, tables, kernels.columns(layout.free))


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
