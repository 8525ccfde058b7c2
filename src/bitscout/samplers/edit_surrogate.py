# SPDX-License-Identifier: Apache-2.0
"""A Gaussian process on the edit distance between networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from bitscout.samplers.edit_distance import Descriptors, edit_distances
from bitscout.samplers.gaussian_process import Posterior
from bitscout.samplers.kernels import matern52
from bitscout.samplers.surrogates import Points, Screening, check_positive, most_likely_length
from bitscout.samplers.vector_surrogates import PaperSurrogate

__all__ = ["EditDistanceModel", "EditDistanceSurrogate"]

FloatArray = NDArray[np.float64]
# Sizes measured in benchmarks/sampler_ask.py.
SCREENING = Screening(PaperSurrogate(max_observations=200), n_kept=64)


@dataclass(frozen=True)
class EditDistanceSurrogate:
    """A Gaussian process on the edit distance between networks.

    ``K = k(d / l)`` with the Matern 5/2 covariance, ``l`` in ``[0.1, 10] median(d)`` and the
    noise of largest marginal likelihood. An edit distance is not Euclidean, so `K` may have
    negative eigenvalues: ``max(0, -lambda_min) + 1e-6`` is added to its diagonal. That replaces
    AutoKeras 0.4.0's Bourgain embedding, whose training and prediction kernels disagree.

    Attributes:
        describe: Maps an index array ``(n, D)`` to the layers and skips of the `n` networks.
        max_observations: Largest number of observations to fit.
        screening: A pool of thousands is thinned by the cheap vector process first; the edit
            distances of all would take seconds.
    """

    describe: Callable[[NDArray[np.int64]], Descriptors]
    max_observations: int = 200
    screening: Screening | None = SCREENING

    def __post_init__(self) -> None:
        """Reject an empty model."""
        check_positive("max_observations", self.max_observations)

    def fit(self, points: Points, y: FloatArray) -> EditDistanceModel:
        """Return the model of `y` at `points`."""
        networks = self.describe(points.rows.astype(np.int64))
        distances = edit_distances(networks, networks)
        length, noise = _most_likely_length_and_noise(distances, y)
        return EditDistanceModel.of(self.describe, (networks,), distances, y, (length, noise))


@dataclass(frozen=True)
class EditDistanceModel:
    """A fitted `EditDistanceSurrogate`; see there.

    Attributes:
        describe: Maps an index array to networks.
        networks: Observed networks, one batch after the other, `n` in all.
        distances: Distances between them, ``(n, n)``.
        y: Observations, ``(n,)``.
        parameters: Length scale and noise.
        posterior: The factorized process.
    """

    describe: Callable[[NDArray[np.int64]], Descriptors]
    networks: tuple[Descriptors, ...]
    distances: FloatArray
    y: FloatArray
    parameters: tuple[float, float]
    posterior: Posterior

    @classmethod
    def of(
        cls,
        describe: Callable[[NDArray[np.int64]], Descriptors],
        networks: tuple[Descriptors, ...],
        distances: FloatArray,
        y: FloatArray,
        parameters: tuple[float, float],
    ) -> EditDistanceModel:
        """Repair and factorize the covariance; O(n**3)."""
        length, noise = parameters
        K = matern52(distances / length)
        repair = _repair(np.asarray(np.linalg.eigvalsh(K)))
        posterior = Posterior.of(K, y, noise + repair)
        return cls(describe, networks, distances, y, parameters, posterior)

    def predict(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation at `points`, each of shape ``(n,)``."""
        networks = self.describe(points.rows.astype(np.int64))
        return self.posterior.predict(matern52(self._cross(networks) / self.parameters[0]))

    def condition(self, points: Points, y: FloatArray) -> EditDistanceModel:
        """Return the model that has observed `y` at `points` too."""
        new = self.describe(points.rows.astype(np.int64))
        cross = self._cross(new)
        distances = np.block([[self.distances, cross.T], [cross, edit_distances(new, new)]])
        return EditDistanceModel.of(
            self.describe,
            (*self.networks, new),
            distances,
            np.concatenate((self.y, y)),
            self.parameters,
        )

    def _cross(self, networks: Descriptors) -> FloatArray:
        return np.concatenate([edit_distances(networks, b) for b in self.networks], axis=1)


# Per decade two values; a noise of 1 means that the model explains nothing.
_NOISES = np.logspace(-4, 0, 9)


def _most_likely_length_and_noise(distances: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Return the length in ``[0.1, 10] median(d)`` and the noise of largest likelihood."""
    pairs = distances[np.triu_indices(len(distances), k=1)]
    median = float(np.median(pairs)) if pairs.size and np.median(pairs) > 0 else 1.0

    def nlls(log_length: float) -> FloatArray:
        # One eigendecomposition gives the repair and the likelihood for every noise.
        values, vectors = np.linalg.eigh(matern52(distances / np.exp(log_length)))
        spectrum = values[:, None] + _repair(values) + _NOISES
        squares = (vectors.T @ y)[:, None] ** 2
        return np.asarray(0.5 * (squares / spectrum + np.log(spectrum)).sum(axis=0))

    length = most_likely_length(
        lambda log_length: float(nlls(log_length).min()), 0.1 * median, 10.0 * median
    )
    return length, float(_NOISES[np.argmin(nlls(log(length)))])


def _repair(eigenvalues: FloatArray) -> float:
    """Return what the diagonal needs for the matrix to be positive definite."""
    return max(0.0, -float(eigenvalues.min())) + 1e-6
