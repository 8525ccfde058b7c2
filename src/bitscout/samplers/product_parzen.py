# SPDX-License-Identifier: Apache-2.0
"""Densities that are products over the choices: HyperOpt's estimators.

Notation as in densities.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitscout.samplers.densities import Layout, Priors, cell_masses, drawn
from bitscout.samplers.encoding import Encoding
from bitscout.samplers.parzen import Mixtures, fit_parzen, forgetting_weights, pseudo_counts
from bitscout.samplers.surrogates import check_positive

__all__ = ["ProductDensity", "ProductParzen"]

FloatArray = NDArray[np.float64]


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
