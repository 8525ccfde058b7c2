# SPDX-License-Identifier: Apache-2.0
"""What a search optimizes: one scalar score, or several metrics at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log10
from typing import ClassVar

from bitscout.core.metrics import METRIC_DIRECTIONS, Metrics
from bitscout.errors import ConfigError

__all__ = ["AccuracyScore", "BompScore", "FrontObjective", "Objective", "PenalizedScore"]


@dataclass(frozen=True, slots=True)
class BompScore:
    """The scalar score of BOMP-NAS, Eq. (1) of [vanSon2023]_, larger is better.

    ``score = accuracy / ref_accuracy + ref_size / log10(size_bits)``. The paper prints the
    accuracy in percent but the equation is balanced for fractions only, with
    ``ref_accuracy = 0.8``.

    Attributes:
        ref_accuracy: Reference accuracy, a fraction in ``(0, 1]``.
        ref_size: Reference of the decimal logarithm of the size in bits, > 0: 8 for CIFAR-10
            and 6 for CIFAR-100 in the paper.

    References:
        .. [vanSon2023] D. van Son, F. de Putter, S. Vogel, H. Corporaal. BOMP-NAS: Bayesian
           Optimization Mixed Precision NAS. DATE 2023. https://arxiv.org/abs/2301.11810
    """

    ref_accuracy: float = 0.8
    ref_size: float = 8.0
    metrics: ClassVar[tuple[str, ...]] = ("val_accuracy", "size_bytes")

    def __post_init__(self) -> None:
        """Reject references that turn the score upside down."""
        if not 0 < self.ref_accuracy <= 1:
            msg = f"`ref_accuracy` must be a fraction in (0, 1], got {self.ref_accuracy}."
            raise ConfigError(msg)
        if not (isfinite(self.ref_size) and self.ref_size > 0):
            msg = f"`ref_size` must be finite and > 0, got {self.ref_size}."
            raise ConfigError(msg)

    def score(self, accuracy: float, size_bits: float) -> float:
        """Return Eq. (1).

        Args:
            accuracy: Fraction in ``[0, 1]``.
            size_bits: Model size in bits, > 1, so that its logarithm is positive.

        Raises:
            ConfigError: If `size_bits` is not above 1.

        Example:
            >>> round(BompScore().score(0.6736, 4570 * 8), 4)
            2.5952
        """
        return accuracy / self.ref_accuracy + self.size_term(size_bits)

    def size_term(self, size_bits: float) -> float:
        """Return the part of the score that needs no training."""
        if not size_bits > 1:
            msg = f"`size_bits` must be above 1, got {size_bits}."
            raise ConfigError(msg)
        return self.ref_size / log10(size_bits)

    def values(self, metrics: Metrics) -> tuple[float, ...]:
        """Return the one value to maximize."""
        return (self.score(metrics["val_accuracy"], 8 * metrics["size_bytes"]),)


@dataclass(frozen=True, slots=True)
class AccuracyScore:
    """Validation accuracy alone; what a network may cost is for a budget to say."""

    metrics: ClassVar[tuple[str, ...]] = ("val_accuracy",)

    def values(self, metrics: Metrics) -> tuple[float, ...]:
        """Return the one value to maximize."""
        return (metrics["val_accuracy"],)


@dataclass(frozen=True, slots=True)
class PenalizedScore:
    """Accuracy less a penalty for what is over the budget, as k-means TPE has it.

    ``J = accuracy - weight * sum(max(0, cost / limit - 1))``, the Lagrangian of [Azizi2023]_ with
    fixed multipliers. The best network is the best one *within* the budget: a penalty only shows
    a searcher the way.

    Attributes:
        limits: Metric and largest allowed value, in the metric's unit.
        weight: Accuracy, a fraction, that 100 % over a limit costs; > 0.

    Raises:
        ConfigError: If there is no limit or the weight is not finite and > 0.

    References:
        .. [Azizi2023] S. Azizi, M. Nazemi, A. Fayyazi, M. Pedram. Sensitivity-Aware
           Mixed-Precision Quantization and Width Optimization of Deep Neural Networks Through
           Cluster-Based Tree-Structured Parzen Estimation. arXiv:2308.06422.

    Example:
        >>> score = PenalizedScore((("size_bytes", 1000.0),))
        >>> score.values(Metrics(val_accuracy=0.9, size_bytes=1250))
        (0.65,)
    """

    limits: tuple[tuple[str, float], ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Reject penalties without a limit or without an effect."""
        if not self.limits:
            msg = "A penalized score needs a budget to be over; got none. Set one or more bounds."
            raise ConfigError(msg)
        if not (isfinite(self.weight) and self.weight > 0):
            msg = f"`weight` of a penalty must be finite and > 0, got {self.weight}."
            raise ConfigError(msg)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics the score is made of."""
        return ("val_accuracy", *(name for name, _ in self.limits))

    def penalty(self, metrics: Metrics) -> float:
        """Return what is subtracted from the accuracy, >= 0."""
        return self.weight * sum(
            max(0.0, metrics[name] / limit - 1.0) for name, limit in self.limits
        )

    def values(self, metrics: Metrics) -> tuple[float, ...]:
        """Return the one value to maximize."""
        return (metrics["val_accuracy"] - self.penalty(metrics),)


@dataclass(frozen=True, slots=True)
class FrontObjective:
    """Several metrics, optimized at once; the answer is a Pareto front.

    Attributes:
        metrics: Two or more different metric names; directions come from `METRIC_DIRECTIONS`.

    Raises:
        ConfigError: If a name is unknown or repeated, or fewer than two are given.
    """

    metrics: tuple[str, ...] = ("val_accuracy", "size_bytes")

    def __post_init__(self) -> None:
        """Reject unknown or repeated names."""
        unknown = [name for name in self.metrics if name not in METRIC_DIRECTIONS]
        if unknown or len(set(self.metrics)) != len(self.metrics) or len(self.metrics) < 2:
            msg = (
                f"A front needs two or more different metrics of {', '.join(METRIC_DIRECTIONS)}; "
                f"got {', '.join(self.metrics)}."
            )
            raise ConfigError(msg)

    def values(self, metrics: Metrics) -> tuple[float, ...]:
        """Return one value per metric, each in its own direction."""
        return tuple(metrics[name] for name in self.metrics)


Objective = AccuracyScore | BompScore | PenalizedScore | FrontObjective
