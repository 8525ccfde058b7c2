# SPDX-License-Identifier: Apache-2.0
"""Pareto fronts and the exact hypervolume in up to four dimensions.

Notation: ``Y`` is an array of shape ``(n, n_objectives)``. Every objective is minimized; flip the
sign of the ones to maximize.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import ConfigError

__all__ = ["hypervolume", "pareto_mask"]

Array = NDArray[np.float64]
MAX_DIMENSIONS = 4  # Slicing is exact in any number, but too slow in more for fronts of hundreds.


def pareto_mask(Y: Array) -> NDArray[np.bool_]:
    """Mark the rows that no other row dominates.

    A row dominates another if it is nowhere larger and somewhere smaller. Of exactly equal rows
    the first is kept. Rows with NaN are never on the front. Costs O(n log n) for two objectives,
    O(n * front) otherwise.

    Args:
        Y: Shape ``(n, n_objectives)``, minimized.

    Returns:
        Boolean array of shape ``(n,)``.

    Example:
        >>> pareto_mask(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [1.0, 3.0]]))
        array([ True,  True, False, False])
    """
    Y = _as_points(Y)
    mask = np.zeros(len(Y), dtype=bool)
    valid = np.flatnonzero(~np.isnan(Y).any(axis=1))
    # Sorted lexicographically, a row can only be dominated by an earlier one. The stable last key
    # keeps the first of equal rows in front.
    order = valid[np.lexsort((valid, *Y[valid].T[::-1]))]
    if Y.shape[1] == 2:
        best = np.minimum.accumulate(np.concatenate(([np.inf], Y[order, 1])))[:-1]
        # NOTE: the very first row is on the front even where its second objective is +inf.
        mask[order] = Y[order, 1] < best
        mask[order[:1]] = True
        return mask
    front: list[int] = []
    for row in order:
        if not front or not (Y[front] <= Y[row]).all(axis=1).any():
            front.append(int(row))
    mask[front] = True
    return mask


def hypervolume(Y: Array, ref_point: Array) -> float:
    """Return the volume dominated by `Y` and bounded by `ref_point`.

    Rows that do not strictly dominate the reference point add nothing. Costs O(n log n) in two
    dimensions and a factor n more in each further one.

    Args:
        Y: Shape ``(n, n_objectives)``, minimized; may be empty. 1 to 4 objectives.
        ref_point: Shape ``(n_objectives,)``.

    Returns:
        The exact volume, 0 for an empty set.

    Raises:
        ConfigError: If the shapes do not fit, or there are more than 4 objectives.

    Example:
        >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0]))
        3.0
        >>> hypervolume(np.array([[1.0, 1.0, 2.0]]), np.array([3.0, 3.0, 3.0]))
        4.0
    """
    Y, ref_point = _as_points(Y), np.asarray(ref_point, dtype=float)
    if ref_point.shape != Y.shape[1:] or not 1 <= Y.shape[1] <= MAX_DIMENSIONS:
        msg = (
            f"Expected points (n, d) and a reference (d,) with d from 1 to {MAX_DIMENSIONS}, got "
            f"{Y.shape} and {ref_point.shape}."
        )
        raise ConfigError(msg)
    return _volume(Y[(ref_point > Y).all(axis=1)], ref_point)


def _volume(Y: Array, ref_point: Array) -> float:
    """Return the hypervolume of rows that all dominate `ref_point`: slices along the last axis.

    Between two neighbouring values of the last objective the dominated set is a prism over the
    points seen so far, which is a problem of one dimension less.
    """
    if not len(Y):
        return 0.0
    if Y.shape[1] == 1:
        return float(ref_point[0] - Y.min())
    Y = Y[pareto_mask(Y)]
    Y = Y[np.argsort(Y[:, -1], kind="stable")]
    heights = np.diff(np.append(Y[:, -1], ref_point[-1]))
    if Y.shape[1] == 2:
        # On a front the first objective falls while the second rises.
        return float(heights @ (ref_point[0] - Y[:, 0]))
    return sum(
        float(height) * _volume(Y[: i + 1, :-1], ref_point[:-1])
        for i, height in enumerate(heights)
        if height > 0
    )


def _as_points(Y: Array) -> Array:
    Y = np.asarray(Y, dtype=float)
    if Y.ndim != 2:
        msg = f"Expected an array of shape (n, n_objectives), got {Y.shape}."
        raise ConfigError(msg)
    return Y
