# SPDX-License-Identifier: Apache-2.0
"""Numerics of Gaussian-process regression with unit prior variance and zero prior mean.

Notation, used by every function in this module:

    n, m      number of observations and of points to predict
    K         prior covariance of the observations, ``(n, n)``, ones on the diagonal
    k         prior covariance of points and observations, ``(m, n)``
    noise     variance of the observation noise, added to the diagonal of ``K``
    y         standardized observations, ``(n,)``
    L         lower Cholesky factor of ``K + noise I``
    w         weights ``(K + noise I)^-1 y``, ``(n,)``
    theta     logarithms of the hyper-parameters
    X         observed inputs, ``(n, D)``; ``r_ij**2 = sum_d (X_id - X_jd)**2 / l_d**2``

Posterior and marginal likelihood are Algorithm 2.1, the gradient is Eq. (5.9) of [RW2006]_.

References:
    .. [RW2006] C. E. Rasmussen, C. K. I. Williams. Gaussian Processes for Machine Learning.
       MIT Press 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri

from bitscout.samplers.kernels import matern52, matern52_slope, squared_distances

__all__ = ["Posterior", "Standardizer", "negative_log_likelihood", "scaled_nll"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of the observations.

    Attributes:
        mean: Mean of the observations.
        scale: Their standard deviation (divisor ``n``), exactly 0 where they all agree up to
            rounding. A constant is then predicted without uncertainty, in place of a division
            by zero.
    """

    mean: float
    scale: float

    @classmethod
    def of(cls, values: FloatArray) -> Standardizer:
        """Return the standardizer of `values`, shape ``(n,)`` with ``n >= 1``, finite."""
        mean, scale = float(values.mean()), float(values.std())
        rounding = 1e-12 * float(np.abs(values).max())
        return cls(mean, scale if scale > rounding else 0.0)

    def standardize(self, values: FloatArray) -> FloatArray:
        """Return ``(values - mean) / scale``, zeros if the scale is 0."""
        if self.scale == 0.0:
            return np.zeros_like(values)
        return (values - self.mean) / self.scale

    def restore(self, standardized: FloatArray) -> FloatArray:
        """Return the inverse of `standardize`."""
        return self.mean + self.scale * standardized


@dataclass(frozen=True)
class Posterior:
    """A factorized process, ready to predict.

    Attributes:
        L: Lower Cholesky factor, shape ``(n, n)``.
        w: Weights, shape ``(n,)``.
    """

    L: FloatArray
    w: FloatArray

    @classmethod
    def of(cls, K: FloatArray, y: FloatArray, noise: float) -> Posterior:
        """Factorize ``K + noise I``; O(n**3).

        Raises:
            scipy.linalg.LinAlgError: If the matrix is not positive definite.
        """
        L = cholesky(K + noise * np.eye(len(K)), lower=True, check_finite=False)
        return cls(L, cho_solve((L, True), y, check_finite=False))

    def predict(self, k: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the noise-free function, each ``(m,)``.

        The variance is clipped at 0, where rounding makes it negative. O(m n**2).
        """
        V = solve_triangular(self.L, k.T, lower=True, check_finite=False)
        variance = 1.0 - np.einsum("ij,ij->j", V, V)
        return k @ self.w, np.sqrt(np.maximum(variance, 0.0))


def negative_log_likelihood(posterior: Posterior, y: FloatArray) -> float:
    """Return ``-log p(y)``, Eq. (2.30) of [RW2006]_."""
    half_log_det = float(np.log(np.diag(posterior.L)).sum())
    return 0.5 * float(y @ posterior.w) + half_log_det + 0.5 * len(y) * log(2.0 * pi)


def scaled_nll(
    theta: FloatArray, X: FloatArray, y: FloatArray, groups: NDArray[np.int64]
) -> tuple[float, FloatArray]:
    """Return ``-log p(y)`` of a Matern 5/2 process and its gradient in `theta`.

    Args:
        theta: Shape ``(G + 1,)``: the logarithm of the length scale of each group of dimensions,
            then that of the noise.
        X: Shape ``(n, D)``.
        y: Shape ``(n,)``.
        groups: Group of each dimension, in ``[0, G)``, shape ``(D,)``.

    Returns:
        Value and gradient of shape ``(G + 1,)``. One evaluation costs O(n**3 + n**2 D): the
        sums over pairs in the gradient are one product of matrices, not one per dimension.
    """
    noise = float(np.exp(theta[-1]))
    Z = X / np.exp(theta[:-1])[groups]
    r = np.sqrt(squared_distances(Z, Z))
    posterior = Posterior.of(matern52(r), y, noise)
    inverse = _inverse_from_factor(posterior.L)
    # d(-log p) = 1/2 tr(A dK), with A = (K + noise I)^-1 - w w^T.
    A = inverse - np.outer(posterior.w, posterior.w)
    # ds_ij / d log l_d = -2 (Z_id - Z_jd)**2, and M is symmetric:
    # sum_ij M_ij (Z_id - Z_jd)**2 = 2 (sum_i M1_i Z_id**2 - Z_d^T M Z_d).
    M = A * matern52_slope(r)
    pair_sums = 2.0 * (M.sum(axis=1) @ (Z * Z) - np.einsum("id,id->d", Z, M @ Z))
    gradient = np.bincount(groups, weights=-pair_sums, minlength=len(theta) - 1)
    noise_gradient = 0.5 * noise * float(np.trace(A))
    return negative_log_likelihood(posterior, y), np.append(gradient, noise_gradient)


def _inverse_from_factor(L: FloatArray) -> FloatArray:
    """Return ``(L L^T)^-1``; half the work of solving against the identity."""
    inverse, _ = dpotri(L, lower=1)
    lower = np.tril(inverse)
    return np.asarray(lower + np.tril(inverse, -1).T)
