# SPDX-License-Identifier: Apache-2.0
"""A Gaussian process that is told beforehand what each choice is expected to cost.

Notation, used by every function in this module:

    n, m        number of observations and of points to predict
    D, K        number of choices, and of values of the one with most
    x           a point: value ``x_d`` of choice ``d``
    p_d(j)      expected loss of value ``j`` of choice ``d``, less the smallest of the choice
    gamma       power that turns expected losses into the objective's
    e_d(j)      ``p_d(j)**gamma``, in units of its root mean square over all values and choices
    mu(x)       ``sum_d e_d(x_d)``
    a, tau      objective per unit of ``e``, > 0, and how wrong single effects are, relatively
    v, phi      variance of what is not additive, and the share of it that near points have in
                common
    y           standardized observations, to be minimized

The model is ``y = b + a mu(x) + a f(x) + g(x) + noise`` with a flat prior on ``b`` and

    cov f   ``tau**2 sum_d e_d(x_d) e_d(x'_d) (1 + [x_d = x'_d]) / 2``: a choice matters more or
            less than expected as a whole, and so does each of its values by itself
    cov g   ``v phi exp(-sum_d |u_d - u'_d| / LENGTH)`` in unit coordinates ``u``
    noise   ``v (1 - phi)``

A choice nothing is known of has no part in ``mu``; its part of ``f`` is a parabola in its unit
coordinate, with coefficients of the order of a typical known effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

from bitscout.samplers.surrogates import Points

__all__ = ["Effects", "Features", "Parameters", "PriorModel", "near_correlation"]

FloatArray = NDArray[np.float64]

# What is not additive in accuracies of a ResNet-8 has a correlation of 0.44 where one of five bit-
# widths is one step away, and of 0.2 where two are.
LENGTH = 0.3


@dataclass(frozen=True)
class Parameters:
    """``gamma, tau, phi, a, v`` of the notation."""

    gamma: float
    tau: float
    phi: float
    a: float
    v: float


@dataclass(frozen=True)
class Features:
    """Points as the kernels read them: ``cov f = tau**2 F F'^T`` and ``mu``."""

    mu: FloatArray
    F: FloatArray
    unit: FloatArray


@dataclass(frozen=True)
class Effects:
    """``e_d(j)`` for one power, shape ``(D, K)``; zeros for unknown choices."""

    table: FloatArray

    @classmethod
    def of(cls, losses: FloatArray, gamma: float) -> Effects:
        """Return the effects of ``p_d(j)``, shape ``(D, K)``."""
        known = losses.any(axis=1)
        if not known.any():
            return cls(losses)
        # Relative to the largest, so that no power of a small loss is rounded to zero.
        effects = (losses / losses.max()) ** gamma
        return cls(effects / np.sqrt((effects[known] ** 2).mean()))

    def features(self, points: Points) -> Features:
        """Return the features of `points`; O(n D K)."""
        n = len(points.unit)
        known = np.flatnonzero(self.table.any(axis=1))
        values = points.rows[:, known].astype(np.int64)
        effects = self.table[known, values]
        single = np.zeros((n, len(known) * self.table.shape[1]))
        places = np.arange(len(known)) * self.table.shape[1] + values
        single[np.arange(n)[:, None], places] = effects
        centred = np.delete(points.unit, known, axis=1) - 0.5
        # Of unit variance for a uniform coordinate, the second uncorrelated with the first.
        linear = np.sqrt(12.0) * centred
        curved = 0.5 * np.sqrt(180.0) * (centred**2 - 1.0 / 12.0)
        half = np.sqrt(0.5)
        F = np.hstack((half * effects, half * single, linear, curved))
        return Features(effects.sum(axis=1), F, points.unit)


def near_correlation(A: Features, B: Features) -> FloatArray:
    """Return the correlation of ``g``, shape ``(len(A), len(B))``."""
    return np.asarray(np.exp(cdist(A.unit, B.unit, "cityblock") / -LENGTH))


@dataclass(frozen=True)
class PriorModel:
    """The fitted process.

    Attributes:
        effects: Maps points to features.
        parameters: Of the kernels.
        points: Observed ones.
        observed: Their features.
        y: Observations, shape ``(n,)``.
        L: Cholesky factor of their covariance.
        w: Weights of the residuals, shape ``(n,)``.
        ones: The covariance's inverse times a vector of ones.
        b: Estimated constant.
    """

    effects: Effects
    parameters: Parameters
    points: Points
    observed: Features
    y: FloatArray
    L: FloatArray
    w: FloatArray
    ones: FloatArray
    b: float

    @classmethod
    def of(
        cls, effects: Effects, parameters: Parameters, points: Points, y: FloatArray
    ) -> PriorModel:
        """Factorize the process; O(n**3)."""
        own = effects.features(points)
        K = _covariance(own, own, parameters)
        K[np.diag_indices_from(K)] += parameters.v * (1.0 - parameters.phi)
        L = cholesky(K, lower=True, check_finite=False)
        ones = cho_solve((L, True), np.ones(len(y)), check_finite=False)
        w = cho_solve((L, True), y - parameters.a * own.mu, check_finite=False)
        b = float(w.sum() / ones.sum())
        return cls(effects, parameters, points, own, y, L, w - b * ones, ones, b)

    def predict(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation without noise at `points`, each ``(m,)``."""
        given, theta = self.effects.features(points), self.parameters
        k = _covariance(given, self.observed, theta)
        V = solve_triangular(self.L, k.T, lower=True, check_finite=False)
        own = (theta.a * theta.tau) ** 2 * (given.F * given.F).sum(axis=1) + theta.v * theta.phi
        unexplained = 1.0 - k @ self.ones  # What the uncertain constant adds.
        variance = own - np.einsum("ij,ij->j", V, V) + unexplained**2 / self.ones.sum()
        mean = self.b + theta.a * given.mu + k @ self.w
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def condition(self, points: Points, y: FloatArray) -> PriorModel:
        """Return the model that has observed `y` at `points` too."""
        joined = Points(
            np.concatenate((self.points.rows, points.rows)),
            np.concatenate((self.points.unit, points.unit)),
        )
        return PriorModel.of(self.effects, self.parameters, joined, np.concatenate((self.y, y)))


def _covariance(A: Features, B: Features, theta: Parameters) -> FloatArray:
    additive = (theta.a * theta.tau) ** 2 * (A.F @ B.F.T)
    return np.asarray(additive + theta.v * theta.phi * near_correlation(A, B))
