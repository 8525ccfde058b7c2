# SPDX-License-Identifier: Apache-2.0
"""The curves behind the charts, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

from bitscout.core import BompScore, hypervolume, pareto_mask
from bitscout.pipeline import TrialRecord, front_points, reference_point

__all__ = [
    "best_so_far",
    "equal_score_accuracy",
    "log_ticks",
    "lowest_usual",
    "running_hypervolume",
]

Array = NDArray[np.float64]

MIN_TICKS = 3  # One or two do not tell the scale of a logarithmic axis.


def best_so_far(values: Sequence[float]) -> list[float]:
    """Return the largest value up to each place.

    Example:
        >>> best_so_far([1.0, 3.0, 2.0])
        [1.0, 3.0, 3.0]
    """
    return np.maximum.accumulate(np.asarray(values, dtype=float)).tolist() if values else []


def equal_score_accuracy(objective: BompScore, score: float, size_bytes: Array) -> Array:
    """Return the accuracy that gives `score` at each size: Eq. (1) solved for the accuracy.

    Args:
        objective: The references of the score.
        score: The score to hold.
        size_bytes: Sizes, > 1/8, any shape.

    Returns:
        Fractions of the same shape; outside ``[0, 1]`` where no accuracy reaches the score.
    """
    return objective.ref_accuracy * (score - objective.ref_size / np.log10(8 * size_bytes))


def running_hypervolume(complete: Sequence[TrialRecord], names: Sequence[str]) -> list[float]:
    """Return the hypervolume after each trial, on the axes of `front_points`.

    The reference point is that of `RunResult.hypervolume`, taken from the whole history, so that
    the curve never falls and ends at that number. Costs O(n * front).

    Args:
        complete: Evaluated trials in the order of their numbers.
        names: Metrics of the front.
    """
    points = front_points([t.metrics for t in complete if t.metrics is not None], names)
    if len(points) < 2:
        return [0.0] * len(points)
    reference = reference_point(points, names)
    front: Array = np.empty((0, len(names)))
    volumes: list[float] = []
    for point in points:
        grown = np.vstack((front, point))
        mask = pareto_mask(grown)
        # Most points are dominated when they come: the front stays, and so does its volume.
        is_new = bool(mask[-1]) or not volumes
        front = grown[mask]
        volumes.append(hypervolume(front, reference) if is_new else volumes[-1])
    return volumes


def log_ticks(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten in ``[low, high]``, at least three.

    Where there are fewer, the ticks are the multiples of the largest step 1, 2 or 5 times a
    power of ten that fits three times: 3 to 8 of them.

    Args:
        low: Smallest number of the axis, > 0.
        high: Largest number of the axis, > `low`.

    Example:
        >>> log_ticks(0.4, 12)
        [0.5, 1.0, 2.0, 5.0, 10.0]
        >>> log_ticks(17, 48)
        [20.0, 30.0, 40.0]
    """
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    return shown if len(shown) >= MIN_TICKS else _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    widest = (high - low) / MIN_TICKS
    power = floor(log10(widest))
    step = max(s for digit in (1, 2, 5) if (s := float(f"{digit}e{power}")) <= widest)
    # Rounded, since 3 * 0.1 is not 0.3.
    return [float(f"{n * step:.12g}") for n in range(ceil(low / step), floor(high / step) + 1)]


def lowest_usual(values: Sequence[float]) -> float:
    """Return the smallest value within 1.5 interquartile ranges of the lower quartile.

    Where an axis starts: candidates that learned nothing would squeeze all others into a line.
    (Tukey's lower fence.)

    Args:
        values: At least one.

    Example:
        >>> lowest_usual([0.1, 0.93, 0.94, 0.95, 0.96])
        0.93
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return float(min(value for value in values if value >= low - 1.5 * (high - low)))
