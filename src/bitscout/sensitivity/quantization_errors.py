# SPDX-License-Identifier: Apache-2.0
"""What each bit-width costs each layer: squared errors, and the loss expected of them.

Notation, for one layer at some bits:

    dW   error of its weights, ``Q(W) - W``, batch norm folded
    dx   error of what it reads, for one image
    T, n trace of the curvature in the weights, and their number
    t, m trace of the curvature in the input for one image, and its number of values

To second order, with errors of no preferred direction, the mean loss grows by

    1/2 (T / n) ||dW||^2  +  1/2 (t / m) E||dx||^2,

the first term the papers' objective, halved, the second its counterpart for activations: with
both, the bits of weights and inputs are told in the same unit, that of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from bitscout.core import LayerBits
from bitscout.errors import ConfigError
from bitscout.quantization import QuantConfig, QuantConv2d, QuantizedLayer, QuantLinear
from bitscout.sensitivity.result import Sensitivity
from bitscout.sensitivity.subject import prepared_copy

__all__ = ["LossTable", "QuantizationErrors", "quantization_errors", "quantized_layer"]

FloatArray = NDArray[np.float64]
_Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class QuantizationErrors:
    """Squared errors of every layer at every bit-width.

    Attributes:
        names: The layers.
        bits: The bit-widths, ascending.
        weights: ``||dW||^2``, shape ``(n_layers, n_bits)``.
        inputs: ``E||dx||^2`` for one image, same shape.
    """

    names: tuple[str, ...]
    bits: tuple[int, ...]
    weights: FloatArray
    inputs: FloatArray


@dataclass(frozen=True)
class LossTable:
    """Expected increase of the mean loss by each layer at each bit-width.

    Attributes:
        names: The layers.
        bits: The bit-widths, ascending.
        weights: Due to the layer's weights, shape ``(n_layers, n_bits)``, >= 0.
        inputs: Due to what it reads, same shape; 0 where its curvature is unknown.
    """

    names: tuple[str, ...]
    bits: tuple[int, ...]
    weights: FloatArray
    inputs: FloatArray

    @classmethod
    def of(cls, sensitivity: Sensitivity, errors: QuantizationErrors) -> LossTable:
        """Return curvature times error; negative traces, noise around zero, count as zero.

        Raises:
            ConfigError: If the sensitivity of a layer is missing.
        """
        missing = sorted(set(errors.names) - set(sensitivity.names))
        if missing:
            msg = f"The sensitivity of {', '.join(missing)} was not measured; measure all layers."
            raise ConfigError(msg)
        layers = [sensitivity[name] for name in errors.names]
        means = np.array([max(layer.mean, 0.0) for layer in layers])
        input_means = np.array([max(layer.input_mean, 0.0) for layer in layers])
        return cls(
            errors.names,
            errors.bits,
            0.5 * means[:, None] * errors.weights,
            0.5 * input_means[:, None] * errors.inputs,
        )

    def at(self, weight_bits: ArrayLike, act_bits: ArrayLike) -> FloatArray:
        """Return the expected increase by each layer.

        Args:
            weight_bits: Of every layer, shape ``(*, n_layers)``.
            act_bits: Same shape.

        Returns:
            The same shape; the sum over the last axis is that of the network.

        Raises:
            ConfigError: If a bit-width is not in the table.
        """
        layers = np.arange(len(self.names))
        weight, act = self._places(weight_bits), self._places(act_bits)
        total: FloatArray = self.weights[layers, weight] + self.inputs[layers, act]
        return total

    def _places(self, bits: ArrayLike) -> NDArray[np.int64]:
        given = np.asarray(bits)
        places = np.searchsorted(self.bits, given).clip(max=len(self.bits) - 1)
        if given.shape[-1:] != (len(self.names),) or (np.array(self.bits)[places] != given).any():
            msg = (
                f"Expected one of {self.bits} bits for each of {len(self.names)} layers, got "
                f"{sorted(set(given.flatten().tolist()))} in an array of shape {given.shape}."
            )
            raise ConfigError(msg)
        return places


@torch.no_grad()
def quantization_errors(
    module: nn.Module,
    images: Tensor,
    bits: Sequence[int],
    *,
    config: QuantConfig | None = None,
) -> QuantizationErrors:
    """Return the squared errors of weights and inputs, with the project's own quantizers.

    Every layer is quantized on its own, reading what it reads in the real network. One forward
    pass; memory is that of one inference on all images and of one layer's patches.

    Args:
        module: Any network. Not changed; batch norm is folded in a copy.
        images: Calibration images, 64 or more, preprocessed as the network expects.
        bits: Bit-widths in ``[2, 8]``.
        config: Observers and kinds of steps.

    Raises:
        ConfigError: If there is no layer, or a bit-width is out of range.
        TrainingError: If a weight is not finite.
        DataError: If an input is not finite.
    """
    config, ordered = config or QuantConfig(), tuple(sorted(set(bits)))
    copy = prepared_copy(module, images)
    layers = copy.layers
    found = {name: np.zeros((2, len(ordered))) for name in layers}

    def watch(name: str, layer: _Layer, inputs: tuple[Tensor, ...]) -> None:
        for index, width in enumerate(ordered):
            quantized = quantized_layer(name, layer, LayerBits(width, width), config)
            quantized.observe(inputs[0])
            found[name][:, index] = _errors(quantized, inputs[0])

    handles = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, name=name: watch(name, layer, inputs)
        )
        for name, layer in layers.items()
    ]
    try:
        copy.module(images)
    finally:
        for handle in handles:
            handle.remove()
    table = np.stack(list(found.values()))
    return QuantizationErrors(tuple(layers), ordered, table[:, 0], table[:, 1] / len(images))


def quantized_layer(
    name: str, layer: _Layer, bits: LayerBits, config: QuantConfig
) -> QuantizedLayer:
    """Return the quantized form of one layer, not calibrated yet."""
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d(name, layer, bits, config)
    return QuantLinear(name, layer, bits, config)


def _errors(quantized: QuantizedLayer, x: Tensor) -> tuple[float, float]:
    weight = quantized.weight
    weight_error = (quantized.weight_quantizer(weight) - weight).double().square().sum()
    input_error = (quantized.input_quantizer(x) - x).square().sum(dtype=torch.float64)
    return float(weight_error), float(input_error)
