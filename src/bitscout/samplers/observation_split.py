# SPDX-License-Identifier: Apache-2.0
"""Which observations are desirable and which are not: the thresholds of tree Parzen estimators.

Notation:

    y      observed objectives, shape ``(n,)``, to be minimized
    t      model-based iteration: 0 for the first proposal after the startup trials
    c_t    ``c alpha^t``, the annealed share
    k_t    number of clusters, ``1 / c_t`` rounded up

Algorithm 1 of [Azizi2024]_ maximizes; here the best cluster is the one of the smallest values.
Line 11, lost in print, is taken to be ``k = ceil(1 / c)``: the text starts from k = 4 with
c = 0.25 and lets k grow as c shrinks.

References:
    .. [Azizi2024] S. Azizi, M. Nazemi, A. Fayyazi, M. Pedram. Sensitivity-Aware Mixed-Precision
       Quantization and Width Optimization of Deep Neural Networks Through Cluster-Based
       Tree-Structured Parzen Estimation. 2024. Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bitscout.core import kmeans_1d, lloyd_1d
from bitscout.errors import ConfigError
from bitscout.samplers.surrogates import check_positive

__all__ = ["ClusterSplit", "QuantileSplit", "Split", "SplitRule", "winsorized"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Split(NamedTuple):
    """Which of `n` observations each density is fitted to; what is in neither is left out.

    Attributes:
        good: Those of the desirable density l, ``(n,)``.
        bad: Those of the undesirable density g, ``(n,)``, disjoint from `good`.
    """

    good: BoolArray
    bad: BoolArray


class SplitRule(Protocol):
    """A way to split observations; immutable."""

    def split(self, y: FloatArray, t: int) -> Split | None:
        """Return the split of finite values `y` to be minimized, or `None` if all are alike."""


@dataclass(frozen=True)
class ClusterSplit:
    """The best and the worst of k clusters of the objectives; those between are in neither.

    Clusters are of distinct values, so that equal objectives are always on the same side. With
    fewer distinct values than ``k_t`` there are as many clusters as values; two clusters are
    best and worst without a middle.

    Attributes:
        c: Share of Algorithm 1, in (0, 1].
        alpha: Factor of `c` a model-based iteration, in (0, 1].
        rounding: How ``1 / c_t`` becomes a whole number.
        k: A fixed number of clusters instead of the schedule, >= 2.
        bad: The worst cluster, as the paper, or all but the best one.
        solver: The optimal clusters, or Lloyd's iteration from quantiles, at most 100 steps.
        winsorize: Whether bad outliers, such as large penalties, are first moved to
            ``Q75 + 1.5 IQR``. Otherwise one of them is a cluster of its own.

    Raises:
        ConfigError: If a number is out of range.

    Example:
        >>> [ClusterSplit().n_clusters(t) for t in (0, 1, 12, 21, 80, 120)]
        [4, 5, 6, 7, 21, 46]
    """

    c: float = 0.25
    alpha: float = 0.98
    rounding: Literal["ceil", "floor", "round"] = "ceil"
    k: int | None = None
    bad: Literal["cluster", "rest"] = "cluster"
    solver: Literal["exact", "lloyd"] = "exact"
    winsorize: bool = True

    def __post_init__(self) -> None:
        """Reject shares outside (0, 1] and fewer than two clusters."""
        for name in ("c", "alpha"):
            if not 0 < getattr(self, name) <= 1:
                msg = f"`{name}` must be in (0, 1], got {getattr(self, name)}."
                raise ConfigError(msg)
        if self.k is not None and self.k < 2:
            msg = f"`k` must be at least 2, a best and a worst cluster, got {self.k}."
            raise ConfigError(msg)

    def n_clusters(self, t: int) -> int:
        """Return ``k_t``."""
        if self.k is not None:
            return self.k
        inverse = 1.0 / (self.c * self.alpha**t)
        # NOTE: 1 / 0.25 must not become 5 by the last bit of a float.
        rounded = {"ceil": ceil(inverse - 1e-9), "floor": floor(inverse + 1e-9)}
        return rounded.get(self.rounding, floor(inverse + 0.5))

    def split(self, y: FloatArray, t: int) -> Split | None:
        """Return the split of finite values `y` to be minimized, or `None` if all are alike."""
        if not len(y):
            return None
        y = winsorized(y) if self.winsorize else y
        solve = kmeans_1d if self.solver == "exact" else lloyd_1d
        clusters = solve(y, max(self.n_clusters(t), 2))
        if clusters.k < 2:
            return None
        good = clusters.labels == clusters.k - 1  # Label 0 has the largest centroid.
        return Split(good, ~good if self.bad == "rest" else clusters.labels == 0)


@dataclass(frozen=True)
class QuantileSplit:
    """A number of best observations, and all others: the single threshold of plain TPE.

    Attributes:
        share: Share of the good ones among the observations, or factor of the square root.
        maximum: Most good observations.
        of_root: Whether the good ones are ``share sqrt(n)``, as in HyperOpt, not ``share n``, as
            in Optuna.

    Raises:
        ConfigError: If a number is not positive.
    """

    share: float = 0.1
    maximum: int = 25
    of_root: bool = False

    def __post_init__(self) -> None:
        """Reject empty sides."""
        check_positive("share", self.share)
        check_positive("maximum", self.maximum)

    def split(self, y: FloatArray, t: int) -> Split | None:
        """Return the split of finite values `y` to be minimized; earlier ones win ties."""
        size = sqrt(len(y)) if self.of_root else len(y)
        n_good = min(ceil(self.share * size - 1e-9), self.maximum, len(y) - 1)
        if n_good < 1 or np.ptp(y) == 0:
            return None
        good = np.zeros(len(y), dtype=bool)
        good[np.argsort(y, kind="stable")[:n_good]] = True
        return Split(good, ~good)


def winsorized(y: FloatArray) -> FloatArray:
    """Return `y`, to be minimized, with values above ``Q75 + 1.5 IQR`` moved there.

    Where the middle half of the values is alike there is no scale, and nothing is moved.

    Example:
        >>> winsorized(np.array([0.0, 1.0, 2.0, 3.0, 50.0]))
        array([0., 1., 2., 3., 6.])
    """
    low, high = np.quantile(y, [0.25, 0.75])
    return y if high == low else np.minimum(y, high + 1.5 * (high - low))
