# SPDX-License-Identifier: Apache-2.0
"""From sensitivities to the bit-widths worth trying in each layer.

Layers are clustered by the curvature of a weight, the trace divided by the number of weights. The
layers of a tie, which share their bits, count as one layer: its trace is the sum of theirs and its
weights are all theirs, so that its score is their mean, weighted with their weights. That is what
the objective asks for: the errors of a tie at some bits add up to
``sum_l trace_l / n_l * ||dW_l||^2``, and ``||dW_l||^2`` grows with ``n_l``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bitscout.core import kmeans_1d
from bitscout.errors import ConfigError
from bitscout.sensitivity.result import Sensitivity

__all__ = ["bit_windows", "candidate_bits", "cluster_labels", "tie_scores"]

EDGE_WINDOW: Final = 2  # Bit-widths of the first and of the last window,
INNER_WINDOW: Final = 3  # and of the others: {8,6}, {6,4,3}, {4,3,2}, {3,2} in the paper.

Scale = Literal["log", "raw"]
Ties = Mapping[str, Sequence[str]]


def tie_scores(sensitivity: Sensitivity, ties: Ties) -> dict[str, float]:
    """Return the curvature of a weight in each tie, the sum of traces over the sum of weights.

    Args:
        sensitivity: Of every layer of the ties.
        ties: Names of the layers that share their bits, by the tie's label.

    Raises:
        ConfigError: If a layer was not measured, or a tie is empty.
    """
    known = {layer.name: layer for layer in sensitivity.layers}
    scores = {}
    for label, names in ties.items():
        missing = [name for name in names if name not in known]
        if missing or not names:
            msg = (
                f"The tie {label!r} needs layers whose sensitivity was measured, got "
                f"{', '.join(missing) or 'none'}. Measure all layers of the network."
            )
            raise ConfigError(msg)
        layers = [known[name] for name in names]
        n_weights = sum(layer.n_weights for layer in layers)
        scores[label] = sum(layer.trace for layer in layers) / n_weights
    return scores


def cluster_labels(
    scores: Sequence[float], *, n_clusters: int = 4, scale: Scale = "log"
) -> NDArray[np.int64]:
    """Return the cluster of each score; 0 is the most sensitive.

    Exact k-means of logarithms, because traces span decades and raw ones would leave nearly all
    layers in the lowest cluster. First and last are then put into cluster 0 whatever their
    scores, as all published configurations have it; a cluster that only they were in is gone.

    Args:
        scores: In the order of execution, at least one, finite. Those below the smallest positive
            one, noise around zero, count as that.
        n_clusters: At most; fewer where there are fewer distinct scores.
        scale: ``"log"``, or ``"raw"`` as in the paper.

    Raises:
        ConfigError: If there is no score, or no cluster.
    """
    values = np.asarray(scores, dtype=np.float64)
    if scale == "log" and values.size:
        positive = values[values > 0]
        values = np.log10(np.maximum(values, positive.min() if positive.size else 1.0))
    labels = kmeans_1d(values, n_clusters).labels
    labels[[0, -1]] = 0
    renumbered: NDArray[np.int64] = np.unique(labels, return_inverse=True)[1]
    return renumbered


def bit_windows(bits: Sequence[int], n_clusters: int) -> tuple[tuple[int, ...], ...]:
    """Return the bit-widths of each cluster, most sensitive first, each descending.

    Windows over the bit-widths in descending order, of two at either end and of three between,
    evenly spaced, and longer where they would not reach the next. One cluster has all.

    Args:
        bits: To choose from, in any order, at least one.
        n_clusters: >= 1.

    Raises:
        ConfigError: If there are no bits, or no cluster.

    Example:
        >>> bit_windows([2, 3, 4, 6, 8], 4)
        ((8, 6), (6, 4, 3), (4, 3, 2), (3, 2))
    """
    if not bits or n_clusters < 1:
        msg = f"Expected bit-widths and at least one cluster, got {bits} and {n_clusters}."
        raise ConfigError(msg)
    ordered = sorted(set(bits), reverse=True)
    if n_clusters == 1:
        return (tuple(ordered),)
    last = n_clusters - 1
    room = max(len(ordered) - EDGE_WINDOW, 0)
    starts = [ceil(index * room / last - 0.5) for index in range(n_clusters)]
    windows = []
    for index, start in enumerate(starts):
        size = EDGE_WINDOW if index in (0, last) else INNER_WINDOW
        reach = starts[index + 1] + 1 if index < last else len(ordered)
        windows.append(tuple(ordered[start : max(start + size, reach)]))
    return tuple(windows)


def candidate_bits(
    sensitivity: Sensitivity,
    bits: Sequence[int],
    *,
    ties: Ties | None = None,
    n_clusters: int = 4,
    scale: Scale = "log",
) -> dict[str, tuple[int, ...]]:
    """Return the bit-widths to choose from for each tie, ascending.

    Args:
        sensitivity: Of every layer.
        bits: To choose from.
        ties: Names of the layers that share their bits, by label, in the order of execution;
            every layer for itself by default.
        n_clusters: At most.
        scale: Of the clustering, see `cluster_labels`.

    Raises:
        ConfigError: If a layer of a tie was not measured, or there are no bits.
    """
    scores = tie_scores(sensitivity, ties or {name: (name,) for name in sensitivity.names})
    labels = cluster_labels(list(scores.values()), n_clusters=n_clusters, scale=scale)
    windows = bit_windows(bits, int(labels.max()) + 1)
    return {
        label: tuple(sorted(windows[cluster]))
        for label, cluster in zip(scores, labels, strict=True)
    }
