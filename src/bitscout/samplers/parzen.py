# SPDX-License-Identifier: Apache-2.0
"""Adaptive Parzen estimators of HyperOpt, for many choices at once.

Notation, for `D` one-dimensional estimators over the same `n` observations:

    x        observations in ``[low, high]``, shape ``(n, D)``
    w        weight of each observation
    m        components: ``n + 1``, one an observation and the prior
    K        number of values of a choice; ``[low, high]`` is then K cells of one width

The density is a mixture of normals, truncated as a whole to ``[low, high]``. The prior is a
normal at the middle whose standard deviation is the range; every other component is as wide as
the larger gap to its neighbours in sorted order, the prior's mean among them.

References:
    .. [Bergstra2011] J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl. Algorithms for
       Hyper-Parameter Optimization. NIPS 2011. Section 4.
    .. [Bergstra2013] J. Bergstra, D. Yamins, D. Cox. Making a Science of Model Search. ICML
       2013: HyperOpt, whose rules (widths, forgetting, pseudo-counts) these are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

__all__ = ["MAX_NARROWING", "Mixtures", "fit_parzen", "forgetting_weights", "pseudo_counts"]

FloatArray = NDArray[np.float64]
# Of HyperOpt: no component is narrower than a hundredth of the range.
MAX_NARROWING: Final = 100


@dataclass(frozen=True)
class Mixtures:
    """`D` mixtures of normals, each truncated to ``[low, high]``.

    Attributes:
        weights: Weights of the components, the same in every mixture, summing to 1, ``(m,)``.
        means: Centres, ``(m, D)``.
        sigmas: Standard deviations before truncation, > 0, ``(m, D)``.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    weights: FloatArray
    means: FloatArray
    sigmas: FloatArray
    low: float
    high: float

    def columns(self, chosen: NDArray[np.int64]) -> Mixtures:
        """Return the mixtures of the columns `chosen`."""
        return replace(self, means=self.means[:, chosen], sigmas=self.sigmas[:, chosen])

    def component_cdf(self, x: FloatArray) -> FloatArray:
        """Return the distribution function of each component at `x`.

        Args:
            x: Points, ``(q, D)``; what is outside the range counts as its end.

        Returns:
            Shape ``(q, m, D)``, of the normals before truncation.
        """
        clipped = np.clip(x, self.low, self.high)[:, None, :]
        return np.asarray(ndtr((clipped - self.means) / self.sigmas))

    def mass(self, lower: FloatArray, upper: FloatArray) -> FloatArray:
        """Return the probability of ``[lower, upper]``, each ``(q, D)``; shape ``(q, D)``."""
        inside = self.component_cdf(upper) - self.component_cdf(lower)
        return np.asarray(self.weights @ inside / (self.weights @ self.accepted))

    def density(self, x: FloatArray) -> FloatArray:
        """Return the density at `x` within the range, shape ``(q, D)``."""
        z = (x[:, None, :] - self.means) / self.sigmas
        bells = np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * self.sigmas)
        return np.asarray(self.weights @ bells / (self.weights @ self.accepted))

    def sample(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Return `n` independent draws of each mixture, shape ``(n, D)``."""
        shares = np.cumsum(self.weights[:, None] * self.accepted, axis=0)
        points = rng.random((n, shares.shape[1])) * shares[-1]
        component = (points[:, None, :] >= shares).sum(axis=1).clip(max=len(shares) - 1)
        return self.sample_components(rng, component)

    def sample_components(
        self, rng: np.random.Generator, component: NDArray[np.int64]
    ) -> FloatArray:
        """Return a draw of the `component` of each mixture, truncated; shapes ``(n, D)``."""
        chosen = (component, np.arange(component.shape[1]))
        low = self.component_cdf(np.full((1, component.shape[1]), self.low))[0]
        quantile = low[chosen] + rng.random(component.shape) * self.accepted[chosen]
        draws = self.means[chosen] + self.sigmas[chosen] * ndtri(quantile)
        return np.asarray(np.clip(draws, self.low, self.high))

    @cached_property
    def accepted(self) -> FloatArray:
        """Mass of each component within the range, ``(m, D)``."""
        ends = np.repeat(np.array([[self.low], [self.high]]), self.means.shape[1], axis=1)
        below, above = self.component_cdf(ends)
        return np.asarray(above - below)


def fit_parzen(
    x: FloatArray, w: FloatArray, *, low: float, high: float, prior_weight: float = 1.0
) -> Mixtures:
    """Return the adaptive Parzen estimators of the columns of `x`.

    A component's width is clipped to ``[range / min(100, m + 1), range]``. A single observation
    is half as wide as the range.

    Args:
        x: Observations within the range, ``(n, D)``; `n` may be 0.
        w: Weight of each observation, ``(n,)``.
        low: Lower end of the range.
        high: Upper end of the range, above `low`.
        prior_weight: Weight of the prior, > 0.

    Returns:
        Mixtures whose first component is the prior, the others in the order of `x`.

    Example:
        >>> fit = fit_parzen(np.array([[1.0], [3.0]]), np.ones(2), low=-0.5, high=4.5)
        >>> fit.sigmas[:, 0]
        array([5.  , 1.25, 1.25])
    """
    spread = high - low
    n, n_columns = x.shape
    # The prior comes first, so that a stable sort puts it before observations at its mean.
    means = np.concatenate((np.full((1, n_columns), (low + high) / 2), x))
    sigmas = np.full_like(means, spread / 2)
    if n >= 2:
        order = np.argsort(means, axis=0, kind="stable")
        gaps = np.diff(np.take_along_axis(means, order, axis=0), axis=0)
        wider = np.maximum(np.concatenate((gaps[:1], gaps)), np.concatenate((gaps, gaps[-1:])))
        np.put_along_axis(sigmas, order, wider, axis=0)
    sigmas = np.clip(sigmas, spread / min(MAX_NARROWING, n + 2), spread)
    sigmas[0] = spread
    weights = np.concatenate(([prior_weight], w))
    return Mixtures(weights / weights.sum(), means, sigmas, low, high)


def pseudo_counts(
    indices: NDArray[np.int64], w: FloatArray, prior: FloatArray, *, prior_weight: float = 1.0
) -> FloatArray:
    """Return the probabilities of `K` categories, shape ``(K,)``.

    Weighted counts, plus ``K prior_weight`` counts spread as the prior is.

    Args:
        indices: Observed categories, ``(n,)``.
        w: Weight of each observation, ``(n,)``.
        prior: Probabilities before any observation, ``(K,)``.
        prior_weight: Counts of the prior a category.

    Example:
        >>> pseudo_counts(np.array([0, 0, 0, 2]), np.ones(4), np.full(5, 0.2)).round(4)
        array([0.4444, 0.1111, 0.2222, 0.1111, 0.1111])
    """
    counts = len(prior) * prior_weight * prior
    counts = counts + np.bincount(indices, weights=w, minlength=len(prior))
    return np.asarray(counts / counts.sum())


def forgetting_weights(n: int, n_full: int | None = 25) -> FloatArray:
    """Return weights of `n` observations, oldest first: 1 for the newest, a ramp for the others.

    Args:
        n: Number of observations.
        n_full: How many of the newest have weight 1, HyperOpt's 25; `None` for all.

    Returns:
        Shape ``(n,)``; the ramp rises from ``1 / n`` to 1.
    """
    if n_full is None or n <= n_full:
        return np.ones(n)
    return np.concatenate((np.linspace(1.0 / n, 1.0, num=n - n_full), np.ones(n_full)))
