# SPDX-License-Identifier: Apache-2.0
"""Densities that are mixtures of products: they know which choices go together.

Notation as in densities.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bitscout.samplers.densities import (
    Density,
    DensityEstimator,
    Layout,
    Priors,
    cell_masses,
    drawn,
)
from bitscout.samplers.encoding import Encoding
from bitscout.samplers.parzen import MAX_NARROWING, Mixtures, forgetting_weights
from bitscout.samplers.product_parzen import ProductParzen
from bitscout.samplers.surrogates import check_positive

__all__ = ["MixtureDensity", "MixtureParzen", "ParzenBySpace"]

FloatArray = NDArray[np.float64]


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


@dataclass(frozen=True)
class ParzenBySpace:
    """One estimator for spaces whose choices all have few values, another one for the others.

    Where values are few, as bit-widths are, l by choice combines what good trials had in
    different choices, and finds better points sooner; where there are many, as numbers of trees
    are, or a continuum, kernels that keep trials together do.

    Attributes:
        few: Estimator where every choice is tabled.
        many: Estimator where one is not.
    """

    few: DensityEstimator = field(default_factory=ProductParzen)
    many: DensityEstimator = field(default_factory=lambda: MixtureParzen(bandwidth=0.1))

    def layout(self, encoding: Encoding, priors: Priors) -> Layout:
        """Return which columns are tabled."""
        layout = self.few.layout(encoding, priors)
        return self.many.layout(encoding, priors) if len(layout.free) else layout

    def fit(self, layout: Layout, rows: FloatArray, priors: Priors) -> Density:
        """Return the density of `rows`, oldest first, ``(n, D)`` with any `n`; deterministic."""
        estimator = self.many if len(layout.free) else self.few
        return estimator.fit(layout, rows, priors)
