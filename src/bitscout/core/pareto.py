# SPDX-License-Identifier: Apache-2.0
"""Pareto fronts and the exact hypervolume in two dimensions.

Notation: ``Y`` is an array of shape ``(n, n_objectives)``. Every objective is minimized; flip the
sign of the ones to maximize.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import ConfigError

__all__ = ["hypervolume_2d", "pareto_mask"]

Array = NDArray[np.float64]


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


def hypervolume_2d(Y: Array, ref_point: Array) -> float:
    """Return the area dominated by `Y` and bounded by `ref_point`.

    Rows that do not strictly dominate the reference point add nothing.

    Args:
        Y: Shape ``(n, 2)``, minimized; may be empty.
        ref_point: Shape ``(2,)``.

    Returns:
        The exact area, 0 for an empty set.

    Raises:
        ConfigError: If the shapes do not fit.

    Example:
        >>> hypervolume_2d(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0]))
        3.0
    """
    Y, ref_point = _as_points(Y), np.asarray(ref_point, dtype=float)
    if Y.shape[1] != 2 or ref_point.shape != (2,):
        msg = f"Expected points (n, 2) and a reference (2,), got {Y.shape} and {ref_point.shape}."
        raise ConfigError(msg)
    Y = Y[(ref_point > Y).all(axis=1)]
    if not len(Y):
        return 0.0
    front = Y[pareto_mask(Y)]
    front = front[np.argsort(front[:, 0])]
    widths = np.diff(np.append(front[:, 0], ref_point[0]))
    return float(widths @ (ref_point[1] - front[:, 1]))


def _as_points(Y: Array) -> Array:
    Y = np.asarray(Y, dtype=float)
    if Y.ndim != 2:
        msg = f"Expected an array of shape (n, n_objectives), got {Y.shape}."
        raise ConfigError(msg)
    return Y
