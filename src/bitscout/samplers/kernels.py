# SPDX-License-Identifier: Apache-2.0
"""The Matern 5/2 covariance and its derivative.

Notation: ``r >= 0`` is a distance divided by the length scale, ``s = r**2``, ``k(0) = 1``.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["matern52", "matern52_slope", "squared_distances"]

FloatArray = NDArray[np.float64]
SQRT5 = sqrt(5.0)


def matern52(r: FloatArray) -> FloatArray:
    """Return ``k(r) = (1 + sqrt(5) r + 5/3 r**2) exp(-sqrt(5) r)``, Eq. (4.17) of [RW2006]_.

    Example:
        >>> matern52(np.array([0.0, 0.5, 1.0, 2.0])).round(6)
        array([1.      , 0.828649, 0.523994, 0.13866 ])

    References:
        .. [RW2006] C. E. Rasmussen, C. K. I. Williams. Gaussian Processes for Machine Learning.
           MIT Press 2006.
    """
    t = SQRT5 * r
    return np.asarray((1.0 + t + t * t / 3.0) * np.exp(-t))


def matern52_slope(r: FloatArray) -> FloatArray:
    """Return ``dk/ds = -5/6 (1 + sqrt(5) r) exp(-sqrt(5) r)``, finite at 0 unlike ``dr/ds``."""
    t = SQRT5 * r
    return np.asarray(-5.0 / 6.0 * (1.0 + t) * np.exp(-t))


def squared_distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return ``|a_i - b_j|**2``, shape ``(len(A), len(B))``, by one matrix product.

    Cancellation costs at most about ``4 eps |a| |b|``; negative results are set to 0, and so is
    the diagonal where `A` is `B`.
    """
    squares = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1)[None, :] - 2.0 * (A @ B.T)
    np.maximum(squares, 0.0, out=squares)
    if A is B:
        np.fill_diagonal(squares, 0.0)
    return np.asarray(squares)
