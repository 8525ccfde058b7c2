# SPDX-License-Identifier: Apache-2.0
"""Does a sensitivity order the layers as their quantization does?

What is measured: one layer's weights at some bits, bias corrected, everything else in floating
point; how much accuracy and loss that costs. What is compared: ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from bitscout.core import LayerBits
from bitscout.errors import ConfigError
from bitscout.quantization import QuantConfig
from bitscout.sensitivity.loss import CrossEntropy
from bitscout.sensitivity.quantization_errors import quantized_layer
from bitscout.sensitivity.subject import Subject

__all__ = ["MeasuredDrop", "RankAgreement", "measured_drops", "rank_agreement"]

CHUNK: Final = 256
Z_95: Final = 1.959964  # Of the normal distribution, two-sided 95 %.
MIN_PAIRS: Final = 5  # Below, an interval says nothing.

_Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True, slots=True)
class MeasuredDrop:
    """What quantizing one layer alone costs.

    Attributes:
        name: The layer.
        bits: Of its weights.
        accuracy_drop: Accuracy in floating point less that with the layer quantized, a fraction.
        loss_increase: Mean cross-entropy with the layer quantized less that in floating point.
    """

    name: str
    bits: int
    accuracy_drop: float
    loss_increase: float


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """Spearman's rank correlation.

    Attributes:
        spearman: In ``[-1, 1]``.
        low: Lower end of its 95 % interval, by Fisher's transform with Bonett and Wright's error.
        high: Upper end.
        n: Number of pairs.
    """

    spearman: float
    low: float
    high: float
    n: int


@torch.no_grad()
def measured_drops(  # each has a default
    module: nn.Module,
    calibration: Tensor,
    images: Tensor,
    labels: Tensor,
    *,
    bits: int = 2,
    config: QuantConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[MeasuredDrop, ...]:
    """Quantize the weights of one layer at a time and measure what it costs.

    One inference on `images` for each layer.

    Args:
        module: Any classifier. Not changed.
        calibration: Images the quantizers are calibrated on.
        images: What it is measured on, validation images.
        labels: Their classes.
        bits: Of the weights, in ``[2, 8]``.
        config: Observers and kinds of steps; whether biases are corrected.
        progress: Called with the layers done and the layers there are.

    Raises:
        ConfigError: If there is no layer, or the bits are out of range.
        DataError: If the labels do not fit.
        TrainingError: If the loss or a weight is not finite.
    """
    config = config or QuantConfig()
    subject = Subject.of(module, images, labels, CrossEntropy())
    replacements = _replacements(subject, calibration, bits, config)
    accuracy, loss = _evaluate(subject)
    found = []
    for index, (name, (weight, bias)) in enumerate(replacements.items()):
        layer = subject.layers[name]
        kept = layer.weight.data, None if layer.bias is None else layer.bias.data
        layer.weight.data = weight
        if layer.bias is not None and bias is not None:
            layer.bias.data = bias
        new_accuracy, new_loss = _evaluate(subject)
        layer.weight.data = kept[0]
        if layer.bias is not None and kept[1] is not None:
            layer.bias.data = kept[1]
        found.append(MeasuredDrop(name, bits, accuracy - new_accuracy, new_loss - loss))
        if progress is not None:
            progress(index + 1, len(replacements))
    return tuple(found)


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> RankAgreement:
    """Return Spearman's rank correlation of two lists with its 95 % interval.

    Raises:
        ConfigError: If the lists differ in length, hold fewer than five pairs, or one of them
            holds one value only, so that it has no order.
    """
    if len(first) != len(second) or len(first) < MIN_PAIRS:
        msg = f"Expected at least {MIN_PAIRS} pairs, got {len(first)} and {len(second)} values."
        raise ConfigError(msg)
    if len(set(first)) < 2 or len(set(second)) < 2:
        msg = "A list of equal values has no order to compare."
        raise ConfigError(msg)
    rho = float(spearmanr(first, second).statistic)
    inner = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    half = Z_95 * math.sqrt((1 + inner**2 / 2) / (len(first) - 3))
    z = math.atanh(inner)
    return RankAgreement(rho, math.tanh(z - half), math.tanh(z + half), len(first))


def _replacements(
    subject: Subject, calibration: Tensor, bits: int, config: QuantConfig
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return quantized weights and corrected bias of each layer, for its real inputs."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}

    def watch(name: str, layer: _Layer, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        quantized = quantized_layer(name, layer, LayerBits(bits, 8), config)
        quantized.observe(x)
        weight = quantized.weight_quantizer(layer.weight)
        bias = layer.bias
        if bias is not None and config.bias_correction:
            other = deepcopy(layer)
            other._forward_pre_hooks.clear()
            other.weight.data = weight - layer.weight
            other.bias = None
            shift = other(x)
            channel = 1 if isinstance(layer, nn.Conv2d) else shift.dim() - 1
            axes = [axis for axis in range(shift.dim()) if axis != channel]
            bias = bias - shift.mean(dim=axes)
        found[name] = weight, bias

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, n=name, at=layer: watch(n, at, inputs))
        for name, layer in subject.layers.items()
    ]
    try:
        subject.outputs(calibration)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _evaluate(subject: Subject) -> tuple[float, float]:
    """Return accuracy and mean loss."""
    hits, loss = 0, 0.0
    for images, labels in subject.chunks(CHUNK):
        outputs = subject.outputs(images)
        hits += int((outputs.argmax(dim=1) == labels).sum())
        loss += float(subject.loss.values(outputs, labels).double().sum())
    return hits / len(subject.images), loss / len(subject.images)
