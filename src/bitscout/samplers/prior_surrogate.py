# SPDX-License-Identifier: Apache-2.0
"""The surrogate that knows expected losses, with the notation of `prior_process`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular

from bitscout.errors import ConfigError
from bitscout.samplers.prior_process import Effects, Parameters, PriorModel, near_correlation
from bitscout.samplers.surrogates import Points, check_positive

__all__ = ["GAMMAS", "PriorSurrogate"]

FloatArray = NDArray[np.float64]

# The grid that the marginal likelihood is maximized on. Accuracy falls less than in proportion to
# the loss where losses are large, and more so where images near the boundary are few.
GAMMAS = (0.5, 1.0, 2.0)
TAUS = (0.3, 1.0)
PHIS = (0.2, 0.8)  # an objective that is mostly noise, and a deterministic one
AMPLITUDES = np.geomspace(0.01, 3.0, 14)  # of a, in standard deviations of y
RESIDUALS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of sqrt(v), likewise
EXPECTED_RESIDUAL = 0.3  # median of a log-normal prior with standard deviation 1


@dataclass(frozen=True)
class PriorSurrogate:
    """A Gaussian process around expected losses, of maximum likelihood on a fixed grid.

    Bad observations are compressed, as a search needs to know that they are bad but not how bad:
    what is further above the best than twice the median distance grows logarithmically.

    Attributes:
        losses: Expected losses: for each choice an array with one number a value, all in one
            unit, or `None` for a choice that nothing is known of. `None` if nothing is known.
        max_observations: Largest number of observations to condition on.
        max_fit_observations: Largest number, the best first, that the parameters are fitted to.

    Raises:
        ConfigError: If a number is not positive or an expected loss is not finite.
    """

    losses: Sequence[FloatArray | None] | None = None
    max_observations: int = 200
    max_fit_observations: int = 80
    screening: None = None

    def __post_init__(self) -> None:
        """Reject losses that no model can use."""
        check_positive("max_observations", self.max_observations)
        check_positive("max_fit_observations", self.max_fit_observations)
        for d, losses in enumerate(self.losses or ()):
            if losses is not None and not (np.size(losses) and np.isfinite(losses).all()):
                msg = f"The expected losses of choice {d} must be finite numbers, got {losses}."
                raise ConfigError(msg)

    def fit(self, points: Points, y: FloatArray) -> PriorModel:
        """Return the model of `y` at `points`, ``n >= 1``.

        Raises:
            ConfigError: If the losses are not those of the choices of `points`.
        """
        table = self._table(points)
        best = np.sort(np.argsort(y, kind="stable")[: self.max_fit_observations])
        y = _compressed(y)
        some = Points(points.rows[best], points.unit[best])
        fits = []
        for gamma in GAMMAS if table.any() else GAMMAS[:1]:
            effects = Effects.of(table, gamma)
            fits.append((*_most_likely(effects, gamma, some, y[best]), effects))
        _, parameters, effects = min(fits, key=lambda fit: fit[0])
        return PriorModel.of(effects, parameters, points, y)

    def _table(self, points: Points) -> FloatArray:
        """Return ``p_d(j)``, zeros where nothing is known, shape ``(D, K)``."""
        D = points.unit.shape[1]
        losses = [None] * D if self.losses is None else list(self.losses)
        if len(losses) != D:
            msg = f"There are expected losses of {len(losses)} choices, but the space has {D}."
            raise ConfigError(msg)
        n_values = [0 if given is None else len(given) for given in losses]
        table = np.zeros((D, max(n_values, default=0)))
        for row, given in zip(table, losses, strict=True):
            if given is not None:
                row[: len(given)] = np.asarray(given) - np.min(given)
        return table


def _compressed(y: FloatArray) -> FloatArray:
    distances = y - y.min()
    bend = max(2.0 * float(np.median(distances)), 1e-12)
    # log1p(x - 1) = log(x), without a warning where the other branch is taken.
    bent = bend * (1.0 + np.log1p(np.maximum(distances / bend, 1.0) - 1.0))
    return np.asarray(y.min() + np.where(distances > bend, bent, distances))


def _most_likely(
    effects: Effects, gamma: float, points: Points, y: FloatArray
) -> tuple[float, Parameters]:
    """Return the smallest penalized ``-log p(y)`` on the grid, and where it is.

    Whitening by the covariance of ``g`` and noise, and taking ``b`` out by a projection, leaves
    one eigendecomposition for all ``a`` and ``v``; O(n**3) for each ``tau`` and ``phi``.
    """
    own, n = effects.features(points), len(y)
    if n == 1:  # Nothing to go by: losses as they are.
        return abs(np.log(gamma)), Parameters(gamma, TAUS[0], PHIS[-1], 1.0, EXPECTED_RESIDUAL**2)
    near, additive = near_correlation(own, own), own.F @ own.F.T
    spread = max(float(y.std()), 1e-6)
    a = spread * AMPLITUDES[:, None, None]
    v = (spread * np.array(RESIDUALS)[:, None]) ** 2
    penalty = 0.5 * np.log(np.array(RESIDUALS) / EXPECTED_RESIDUAL) ** 2
    best = (np.inf, Parameters(gamma, TAUS[0], PHIS[0], spread, spread**2))
    for phi in PHIS:
        L = cholesky(phi * near + (1.0 - phi) * np.eye(n), lower=True, check_finite=False)
        columns = np.column_stack((np.ones(n), y, own.mu))
        white = solve_triangular(L, columns, lower=True, check_finite=False)
        basis = _orthogonal_to(white[:, 0])
        half = basis.T @ solve_triangular(L, additive, lower=True, check_finite=False)
        projected = solve_triangular(L, half.T, lower=True, check_finite=False).T @ basis
        eigenvalues, Q = eigh(projected, check_finite=False)
        y_part, mu_part = Q.T @ (basis.T @ white[:, 1]), Q.T @ (basis.T @ white[:, 2])
        log_det = float(np.log(np.diag(L)).sum())
        for tau in TAUS:
            variances = (a * tau) ** 2 * np.maximum(eigenvalues, 0.0) + v
            errors = (y_part - a * mu_part) ** 2
            nll = 0.5 * (errors / variances + np.log(variances)).sum(axis=-1) + log_det + penalty
            i, j = np.unravel_index(int(nll.argmin()), nll.shape)
            if nll[i, j] < best[0]:
                found = Parameters(gamma, tau, phi, float(a[i, 0, 0]), float(v[j, 0]))
                best = (float(nll[i, j]), found)
    return best


def _orthogonal_to(vector: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the complement of `vector`, shape ``(n, n - 1)``.

    The columns, but the first, of the Householder reflection that turns `vector` to an axis.
    """
    unit = vector / np.linalg.norm(vector)
    unit[0] += np.copysign(1.0, unit[0])
    reflection = np.eye(len(unit)) - np.outer(unit, unit) / abs(unit[0])
    return np.asarray(reflection[:, 1:])
