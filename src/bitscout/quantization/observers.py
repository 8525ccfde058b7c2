# SPDX-License-Identifier: Apache-2.0
"""Observers: from values to the step size that represents them.

Notation:

    W    weights of one layer as a matrix ``(C, K)``: one row per output channel
    x    values of one activation tensor, flattened
    G    second moments of the layer's input patches, ``(groups, K, K)``: ``E[p p^T]``
    c    clipping point; the step is ``c / quant_max``

Every observer returns a strictly positive step. Values that are all zero get ``1 / quant_max``, as
if they reached 1. Nothing here draws random numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitscout.errors import ConfigError

__all__ = [
    "ActivationObserver",
    "ByWidthActivationObserver",
    "ByWidthObserver",
    "LayerOutputObserver",
    "MaxAbsObserver",
    "MinMaxObserver",
    "MseActivationObserver",
    "MseObserver",
    "PercentileObserver",
    "PowerOfTwoObserver",
    "WeightObserver",
    "positive_scale",
    "weight_error",
]

N_CLIP_FRACTIONS = 100  # Specification 5.5.
N_REFINEMENTS = 9  # Points between two coarse ones: the clip is found to 0.1 % of the maximum.
MAX_SAMPLES = 2**16  # Values an activation observer looks at; more changes no digit that matters.

# Steps below this stand for zeros; the product of two is still a normal float32 number.
MIN_SCALE = 2.0**-60

_Error = Callable[[Tensor], Tensor]


class WeightObserver(ABC):
    """Chooses one step per output channel.

    Attributes:
        needs_inputs: Whether `scales` reads the moments of the layer's input.
        is_per_tensor: Whether all channels have the same step, a power of two.
    """

    needs_inputs: ClassVar[bool] = False
    is_per_tensor: ClassVar[bool] = False

    @abstractmethod
    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return the steps of `weight`.

        Args:
            weight: ``W``, shape ``(C, K)``, finite.
            quant_max: Largest code; codes run over ``[-quant_max, quant_max]``.
            moments: ``G``; only read if `needs_inputs`.

        Returns:
            Shape ``(C,)``, > 0.
        """

    def for_width(self, bit_width: int) -> WeightObserver:
        """Return the observer used at `bit_width`: itself, unless it chooses by width."""
        del bit_width
        return self


@dataclass(frozen=True)
class MaxAbsObserver(WeightObserver):
    """Represent the largest magnitude exactly: nothing is clipped."""

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return ``max|w| / quant_max`` per row."""
        del moments
        return positive_scale(weight.abs().amax(dim=1) / quant_max, quant_max)


@dataclass(frozen=True)
class MseObserver(WeightObserver):
    """Minimise the squared error of the weights over the clipping point."""

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return the step of the best of 100 clip fractions, refined, per row."""
        del moments

        def error(scale: Tensor) -> Tensor:
            return weight_error(weight, scale, quant_max)

        return _search(weight.abs().amax(dim=1) / quant_max, quant_max, error)


@dataclass(frozen=True)
class LayerOutputObserver(WeightObserver):
    """Minimise the squared error of the layer's output on the calibration inputs.

    For one output channel that error is ``e G e^T`` with ``e`` the rounding error of its row, so
    the inputs are needed only through ``G``.
    """

    needs_inputs: ClassVar[bool] = True

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return the step of the best of 100 clip fractions, refined, per row.

        Raises:
            ConfigError: If `moments` is missing.
        """
        if moments is None:
            msg = "LayerOutputObserver needs the moments of the layer's input, got None."
            raise ConfigError(msg)

        def error(scale: Tensor) -> Tensor:
            return weight_error(weight, scale, quant_max, moments)

        return _search(weight.abs().amax(dim=1) / quant_max, quant_max, error)


@dataclass(frozen=True)
class PowerOfTwoObserver(WeightObserver):
    """Least squares in powers of two, the rule of QKeras 0.9 (`quantized_bits`, ``auto``).

    The scale starts at ``(max - min) / (2**b - 1)`` and is refined five times: codes from the
    scale, then ``s = <w, q> / <q, q>`` rounded to a power of two. Deviations: one scale per
    output channel also for depthwise kernels, where Keras' channel order made it one per tensor,
    and half-to-even rounding.
    """

    n_iterations: ClassVar[int] = 5

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return a power of two per row."""
        del moments
        spread = weight.amax(dim=1) - weight.amin(dim=1)
        spread = torch.maximum(spread, weight.abs().amax(dim=1))
        scale = positive_scale(spread / (2 * quant_max + 1), quant_max)
        for _ in range(self.n_iterations):
            code = (weight / scale[:, None]).round().clamp(-quant_max, quant_max)
            fit = (weight * code).sum(dim=1) / code.square().sum(dim=1)
            # A row whose codes are all 0 keeps its scale: 0 / 0 is NaN and fails the comparison.
            scale = torch.where(fit > 0, torch.exp2(fit.log2().round()), scale)
        return torch.exp2(scale.log2().round())


@dataclass(frozen=True)
class ByWidthObserver(WeightObserver):
    """Use one observer at narrow widths and another at wide ones.

    Attributes:
        narrow: Used below `threshold` bits.
        wide: Used from `threshold` bits on.
        threshold: Bit-width, in ``[2, 9]``.
    """

    narrow: WeightObserver
    wide: WeightObserver
    threshold: int = 4

    def __post_init__(self) -> None:
        """Reject thresholds that make one side unreachable by mistake."""
        _check_threshold(self.threshold)

    def for_width(self, bit_width: int) -> WeightObserver:
        """Return `narrow` or `wide`."""
        return self.narrow if bit_width < self.threshold else self.wide

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return the steps of the observer for the width that has `quant_max`."""
        bit_width = (quant_max + 1).bit_length()
        return self.for_width(bit_width).scales(weight, quant_max, moments)


class ActivationObserver(ABC):
    """Chooses the one step of an activation tensor."""

    @abstractmethod
    def scale(self, x: Tensor, quant_min: int, quant_max: int) -> float:
        """Return the step for values `x`.

        Args:
            x: Any shape, finite, at least one element.
            quant_min: Smallest code: 0 if no value is negative, else ``-quant_max``.
            quant_max: Largest code.

        Returns:
            The step, > 0.
        """


@dataclass(frozen=True)
class MinMaxObserver(ActivationObserver):
    """Represent every value seen: nothing is clipped."""

    def scale(self, x: Tensor, quant_min: int, quant_max: int) -> float:
        """Return ``max|x| / quant_max``."""
        del quant_min
        low, high = torch.aminmax(x)
        return _positive_float(max(-float(low), float(high)) / quant_max, quant_max)


@dataclass(frozen=True)
class PercentileObserver(ActivationObserver):
    """Clip the largest magnitudes.

    Attributes:
        percentile: Share of the magnitudes that is not clipped, in percent, in ``(50, 100]``.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        """Reject shares that clip most values."""
        if not 50 < self.percentile <= 100:
            msg = f"`percentile` must be in (50, 100], got {self.percentile}."
            raise ConfigError(msg)

    def scale(self, x: Tensor, quant_min: int, quant_max: int) -> float:
        """Return ``percentile(|x|) / quant_max``, by rank in all values."""
        del quant_min
        magnitudes = x.abs().flatten()
        rank = max(1, round(self.percentile / 100 * magnitudes.numel()))
        clip = torch.topk(magnitudes, magnitudes.numel() - rank + 1).values[-1]
        return _positive_float(float(clip) / quant_max, quant_max)


@dataclass(frozen=True)
class MseActivationObserver(ActivationObserver):
    """Minimise the squared error over the clipping point, on at most 2**16 of the values."""

    def scale(self, x: Tensor, quant_min: int, quant_max: int) -> float:
        """Return the step of the best of 100 clip fractions, refined."""
        values = x.flatten()
        # An odd stride walks through all channels and positions of any power-of-two layout.
        stride = (values.numel() - 1) // MAX_SAMPLES + 1
        sample = values[:: stride | 1][None]

        def error(scale: Tensor) -> Tensor:
            code = (sample / scale[:, None]).round_().clamp_(quant_min, quant_max)
            return code.mul_(scale[:, None]).sub_(sample).square_().sum(dim=1)

        return float(_search(values.abs().amax()[None] / quant_max, quant_max, error)[0])


@dataclass(frozen=True)
class ByWidthActivationObserver(ActivationObserver):
    """Use one observer at narrow widths and another at wide ones.

    Attributes:
        narrow: Used below `threshold` bits.
        wide: Used from `threshold` bits on.
        threshold: Bit-width, in ``[2, 9]``.
    """

    narrow: ActivationObserver
    wide: ActivationObserver
    threshold: int = 8

    def __post_init__(self) -> None:
        """Reject thresholds that make one side unreachable by mistake."""
        _check_threshold(self.threshold)

    def scale(self, x: Tensor, quant_min: int, quant_max: int) -> float:
        """Return the step of the observer for the width of this range."""
        bit_width = (quant_max - quant_min).bit_length()
        observer = self.narrow if bit_width < self.threshold else self.wide
        return observer.scale(x, quant_min, quant_max)


def _check_threshold(threshold: int) -> None:
    if not 2 <= threshold <= 9:
        msg = f"`threshold` must be in [2, 9], got {threshold}."
        raise ConfigError(msg)


def weight_error(
    weight: Tensor, scale: Tensor, quant_max: int, moments: Tensor | None = None
) -> Tensor:
    """Return the squared error per row: with `moments` of the layer's output, else of the row."""
    step = scale[:, None]
    rows = (weight / step).round_().clamp_(-quant_max, quant_max).mul_(step).sub_(weight)
    if moments is None:
        return rows.square().sum(dim=1)
    rows = rows.reshape(moments.shape[0], -1, rows.shape[1])
    return ((rows @ moments) * rows).sum(dim=2).flatten()


def positive_scale(scale: Tensor, quant_max: int) -> Tensor:
    """Replace steps that stand for all-zero values by ``1 / quant_max``."""
    return torch.where(scale >= MIN_SCALE, scale, 1.0 / quant_max)


def _positive_float(scale: float, quant_max: int) -> float:
    return scale if scale >= MIN_SCALE else 1.0 / quant_max


def _search(full: Tensor, quant_max: int, error: _Error) -> Tensor:
    """Return per row the step ``f * full`` of least `error` over ``f`` in ``(0, 1]``.

    Ties go to the larger step. Costs ``N_CLIP_FRACTIONS + 2 * N_REFINEMENTS`` evaluations.
    """
    full = positive_scale(full, quant_max)
    fraction = torch.ones_like(full)
    least = error(full)

    def consider(trial: Tensor) -> None:
        nonlocal fraction, least
        new = error(full * trial)
        is_better = new < least
        fraction = torch.where(is_better, trial, fraction)
        least = torch.where(is_better, new, least)

    for index in range(N_CLIP_FRACTIONS - 1, 0, -1):
        consider(torch.full_like(full, index / N_CLIP_FRACTIONS))
    centre = fraction.clone()
    step = 1 / N_CLIP_FRACTIONS / (N_REFINEMENTS + 1)
    for index in range(N_REFINEMENTS, -N_REFINEMENTS - 1, -1):
        consider((centre + index * step).clamp(step, 1.0))
    return full * fraction
