# SPDX-License-Identifier: Apache-2.0
"""What a surrogate is, and what its readings share.

The paper names a Gaussian process with a Matern kernel on edit distances, "following AutoKeras";
the AutoKeras of its time no longer had edit distances. So there are three:

* `PaperSurrogate`: what KerasTuner 1.1.3, the library under AutoKeras in 2022, really did;
* `EditDistanceSurrogate`: what the paper says;
* `ScaledSurrogate`: what works better in many dimensions.

Every surrogate is given standardized observations to be minimized.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from bitscout.errors import ConfigError

__all__ = [
    "MIN_NOISE",
    "Model",
    "Points",
    "Screening",
    "Surrogate",
    "check_positive",
    "most_likely_length",
]

FloatArray = NDArray[np.float64]
MIN_NOISE = 1e-4  # KerasTuner's alpha


class Points(NamedTuple):
    """The same `n` points in the two forms surrogates read.

    Attributes:
        rows: Indices of discrete choices, unit coordinates of continuous ones, ``(n, D)``.
        unit: Unit coordinates of all choices, ``(n, D)``.
    """

    rows: FloatArray
    unit: FloatArray


class Model(Protocol):
    """A fitted surrogate."""

    def predict(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation at `points`, each of shape ``(n,)``."""

    def condition(self, points: Points, y: FloatArray) -> Model:
        """Return the model that has observed `y` at `points` too, its parameters unchanged."""


class Surrogate(Protocol):
    """A way to fit a model; immutable."""

    @property
    def max_observations(self) -> int:
        """Largest number of observations to fit; a longer study is modelled locally."""

    @property
    def screening(self) -> Screening | None:
        """How to thin a pool first, or `None`."""

    def fit(self, points: Points, y: FloatArray) -> Model:
        """Return the model of `y` at `points`, ``n >= 1``; deterministic."""


@dataclass(frozen=True)
class Screening:
    """A cheap surrogate that thins a pool of proposals before a costly one sees it.

    Attributes:
        surrogate: The cheap one, itself without screening.
        n_kept: How many points of the pool are left, by their cheap acquisition.
    """

    surrogate: Surrogate
    n_kept: int


def most_likely_length(nll: Callable[[float], float], low: float, high: float) -> float:
    """Return the length in ``[low, high]`` of least `nll`: a grid, then a bounded search."""
    grid = np.linspace(log(low), log(high), 1 + round(3 * np.log10(high / low)))
    best = int(np.argmin([nll(point) for point in grid]))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(nll, bounds=bracket, method="bounded", options={"maxiter": 6})
    return float(np.exp(found.x if found.fun < nll(grid[best]) else grid[best]))


def check_positive(name: str, number: float) -> None:
    """Raise a `ConfigError` unless `number` is above 0."""
    if not number > 0:
        msg = f"`{name}` must be > 0, got {number}."
        raise ConfigError(msg)
