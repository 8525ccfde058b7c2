# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes on the unit coordinates of the choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from bitscout.errors import ConfigError
from bitscout.samplers.gaussian_process import Posterior, negative_log_likelihood, scaled_nll
from bitscout.samplers.kernels import matern52, matern52_slope, squared_distances
from bitscout.samplers.surrogates import MIN_NOISE, Points, check_positive, most_likely_length

__all__ = ["PaperSurrogate", "ScaledSurrogate", "VectorModel", "map_objective"]

FloatArray = NDArray[np.float64]
# Logarithms; far outside what the prior allows, only there to keep the arithmetic finite.
LENGTH_BOUNDS = (log(1e-2), log(1e4))


@dataclass(frozen=True)
class VectorModel:
    """A Matern 5/2 process on unit coordinates.

    Attributes:
        X: Observed unit coordinates, ``(n, D)``.
        y: Observations, ``(n,)``.
        length_scales: Shape ``(D,)``, in the unit of the unit cube.
        noise: Variance added to the diagonal.
        posterior: The factorized process.
    """

    X: FloatArray
    y: FloatArray
    length_scales: FloatArray
    noise: float
    posterior: Posterior

    @classmethod
    def of(
        cls, X: FloatArray, y: FloatArray, length_scales: FloatArray, noise: float
    ) -> VectorModel:
        """Factorize the process with the given parameters; O(n**3)."""
        Z = X / length_scales
        K = matern52(np.sqrt(squared_distances(Z, Z)))
        return cls(X, y, length_scales, noise, Posterior.of(K, y, noise))

    def predict(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation at `points`, each of shape ``(n,)``."""
        return self.posterior.predict(self._cross(points.unit))

    def predict_with_gradient(self, u: FloatArray) -> tuple[float, float, FloatArray, FloatArray]:
        """Return mean, standard deviation and their gradients at one unit point ``(D,)``.

        Where the deviation is 0 its gradient, which does not exist there, is 0.
        """
        offsets = (u - self.X) / self.length_scales
        r = np.sqrt((offsets * offsets).sum(axis=1))
        k = matern52(r)
        dk = 2.0 * matern52_slope(r)[:, None] * offsets / self.length_scales
        mean, sd = self.posterior.predict(k[None])
        # d sqrt(1 - k^T A k) = -(A k)^T dk / sd, with A the inverse.
        solved = cho_solve((self.posterior.L, True), k, check_finite=False)
        slope = -(solved @ dk) / sd[0] if sd[0] > 0 else np.zeros_like(u)
        return float(mean[0]), float(sd[0]), self.posterior.w @ dk, slope

    def condition(self, points: Points, y: FloatArray) -> VectorModel:
        """Return the model that has observed `y` at `points` too."""
        X, y = np.concatenate((self.X, points.unit)), np.concatenate((self.y, y))
        return VectorModel.of(X, y, self.length_scales, self.noise)

    def _cross(self, unit: FloatArray) -> FloatArray:
        distances = squared_distances(unit / self.length_scales, self.X / self.length_scales)
        return matern52(np.sqrt(distances))


@dataclass(frozen=True)
class PaperSurrogate:
    """The Gaussian process of KerasTuner 1.1.3: nothing is fitted.

    Matern 5/2, unit amplitude, one fixed length scale for all dimensions of the unit cube. In 49
    dimensions two random points are 2.8 apart and their covariance is 0.04: the prior is almost
    white, and the sampler explores around the incumbents or anywhere. Kept for fidelity.

    Attributes:
        length_scale: A number > 0, or ``"ml2"`` for the one of largest marginal likelihood in
            ``[1e-5, 1e5]``, as KerasTuner does since 1.2.0 (by restarts; here by a grid and a
            bounded search, which cannot miss the basin).
        noise: Variance added to the diagonal, > 0.
        max_observations: Largest number of observations to fit.

    Raises:
        ConfigError: If a number is not positive.
    """

    length_scale: float | Literal["ml2"] = 1.0
    noise: float = MIN_NOISE
    max_observations: int = 500
    screening: None = None

    def __post_init__(self) -> None:
        """Reject lengths and noises that are not positive."""
        check_positive("noise", self.noise)
        check_positive("max_observations", self.max_observations)
        if self.length_scale != "ml2":
            check_positive("length_scale", self.length_scale)

    def fit(self, points: Points, y: FloatArray) -> VectorModel:
        """Return the model of `y` at `points`."""
        length = self.length_scale
        if length == "ml2":
            squares = squared_distances(points.unit, points.unit)
            length = self._most_likely_length(np.sqrt(squares), y)
        scales = np.full(points.unit.shape[1], length)
        return VectorModel.of(points.unit, y, scales, self.noise)

    def _most_likely_length(self, distances: FloatArray, y: FloatArray) -> float:
        def nll(log_length: float) -> float:
            K = matern52(distances / np.exp(log_length))
            return negative_log_likelihood(Posterior.of(K, y, self.noise), y)

        return most_likely_length(nll, 1e-5, 1e5)


@dataclass(frozen=True)
class ScaledSurrogate:
    """A Gaussian process whose length scales are expected to grow with the dimension.

    Matern 5/2, unit amplitude, length scales in the unit cube with the prior
    ``LogNormal(sqrt(2) + log(D) / 2, sqrt(3))`` of [Hvarfner2024]_ and noise with the prior
    ``LogNormal(-4, 1)``, both BoTorch's defaults; fitted by maximum a posteriori with analytic
    gradients from the priors' modes.

    Attributes:
        groups: Which dimensions share a length scale: ``"isotropic"`` all, ``"ard"`` none, or
            the group of each dimension, numbered from 0. The default was decided by
            benchmarks/sampler_quality.py.
        max_observations: Largest number of observations to condition on.
        max_fit_observations: Largest number of them, the best first, that the parameters are
            fitted to.

    Raises:
        ConfigError: If a number is not positive or a group is missing.

    References:
        .. [Hvarfner2024] C. Hvarfner, E. O. Hellsten, L. Nardi. Vanilla Bayesian Optimization
           Performs Great in High Dimensions. ICML 2024. https://arxiv.org/abs/2402.02229
    """

    groups: Literal["isotropic", "ard"] | tuple[int, ...] = "ard"
    max_observations: int = 500
    max_fit_observations: int = 200
    screening: None = None

    def __post_init__(self) -> None:
        """Reject gaps in the numbering of the groups."""
        check_positive("max_observations", self.max_observations)
        check_positive("max_fit_observations", self.max_fit_observations)
        if isinstance(self.groups, tuple) and set(self.groups) != set(
            range(max(self.groups, default=-1) + 1)
        ):
            msg = f"`groups` must number the groups 0, 1, ... without gaps, got {self.groups}."
            raise ConfigError(msg)

    def fit(self, points: Points, y: FloatArray) -> VectorModel:
        """Return the model of `y` at `points`.

        Raises:
            ConfigError: If `groups` does not have one entry for each dimension.
        """
        groups = self._group_of(points.unit.shape[1])
        best = np.sort(np.argsort(y, kind="stable")[: self.max_fit_observations])
        theta = _map_estimate(points.unit[best], y[best], groups)
        scales = np.exp(theta[:-1])[groups]
        return VectorModel.of(points.unit, y, scales, float(np.exp(theta[-1])))

    def _group_of(self, n_dimensions: int) -> NDArray[np.int64]:
        if self.groups == "isotropic":
            return np.zeros(n_dimensions, dtype=np.int64)
        if self.groups == "ard":
            return np.arange(n_dimensions)
        if len(self.groups) != n_dimensions:
            msg = f"`groups` names {len(self.groups)} dimensions, the space has {n_dimensions}."
            raise ConfigError(msg)
        return np.array(self.groups, dtype=np.int64)


def map_objective(
    X: FloatArray, y: FloatArray, groups: NDArray[np.int64]
) -> tuple[FloatArray, Callable[[FloatArray], tuple[float, FloatArray]]]:
    """Return the modes of the priors, and the negative logarithm of the posterior density.

    Both in terms of the logarithms of the length scales, then of the noise, shape ``(G + 1,)``.
    The density is that of the parameters themselves, as in BoTorch, not of their logarithms;
    constants are dropped. The function returns value and gradient.
    """
    n_groups, n_dimensions = int(groups.max()) + 1, X.shape[1]
    location = np.append(np.full(n_groups, sqrt(2.0) + log(n_dimensions) / 2.0), -4.0)
    spread = np.append(np.full(n_groups, sqrt(3.0)), 1.0)

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = scaled_nll(theta, X, y, groups)
        z = (theta - location) / spread
        return value + float(theta.sum() + 0.5 * z @ z), gradient + 1.0 + z / spread

    return location - spread**2, objective


def _map_estimate(X: FloatArray, y: FloatArray, groups: NDArray[np.int64]) -> FloatArray:
    """Return the logarithms of length scales and noise of largest posterior density."""
    start, objective = map_objective(X, y, groups)
    bounds = [LENGTH_BOUNDS] * (len(start) - 1) + [(log(MIN_NOISE), 0.0)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x)
