# SPDX-License-Identifier: Apache-2.0
"""The front of a search as points: errors as they are, costs by their decimal logarithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitscout.core import METRIC_DIRECTIONS, FrontObjective, Metrics, pareto_mask
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.records import TrialRecord

__all__ = ["front_metrics", "front_numbers", "front_points", "reference_point"]

FloatArray = NDArray[np.float64]
SMALLEST_COST = 1e-12  # A cost of zero, which has no logarithm, counts as this.


def front_metrics(config: RunConfig) -> tuple[str, ...]:
    """Return the metrics of the front: the objective's own, or accuracy and size."""
    objective = config.build_objective()
    if isinstance(objective, FrontObjective):
        return objective.metrics
    return ("val_accuracy", "size_bytes")


def front_numbers(trials: Sequence[TrialRecord], metrics: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the non-dominated trials, smallest network first."""
    complete = [
        (trial, trial.metrics)
        for trial in trials
        if trial.outcome == "complete" and trial.metrics is not None and trial.is_feasible
    ]
    if not complete:
        return ()
    rows = [[-METRIC_DIRECTIONS[name] * known[name] for name in metrics] for _, known in complete]
    mask = pareto_mask(np.array(rows))
    front = [pair for pair, keep in zip(complete, mask, strict=True) if keep]
    return tuple(
        trial.number for trial, _ in sorted(front, key=lambda pair: pair[1]["size_bytes"])
    )


def front_points(known: Sequence[Metrics], names: Sequence[str]) -> FloatArray:
    """Return one point for each network, every coordinate to be minimized.

    Args:
        known: Metrics of the networks, `names` among them.
        names: Metrics of the front.

    Returns:
        Shape ``(n, len(names))``: ``1 - accuracy``, and log10 of every cost.
    """
    points = np.array([[metrics[name] for name in names] for metrics in known], dtype=float)
    points = points.reshape(len(known), len(names))
    for column, name in enumerate(names):
        if METRIC_DIRECTIONS[name] > 0:
            points[:, column] = 1.0 - points[:, column]
        else:
            points[:, column] = np.log10(np.maximum(points[:, column], SMALLEST_COST))
    return points


def reference_point(points: FloatArray, names: Sequence[str], margin: float = 0.0) -> FloatArray:
    """Return accuracy 0 and the dearest of `points`, times ``10**margin``, shape ``(d,)``."""
    dearest: FloatArray = points.max(axis=0) + margin
    is_accuracy = [METRIC_DIRECTIONS[name] > 0 for name in names]
    return np.where(is_accuracy, 1.0, dearest)
