# SPDX-License-Identifier: Apache-2.0
"""Batch norm brought back for a training of the quantized network.

Notation, per output channel of a layer whose batch norm was folded:

    z, b    product of quantized weight and quantized input, and the bias: the layer gives z + b
    m, v    mean and variance of z
    g, h    factor and shift of the batch norm

A folded network is harder to train at few bits: channels differ in size, so that no learning rate
fits all, and what a weight that changes its code does to the mean of a channel stays. So each
such layer gets a batch norm again, ``g (z - m) / sqrt(v + eps) + h`` with ``g = sqrt(v + eps)``
and ``h = m + b``: the same function at first. It makes the size of the weights free, and each
channel's is set to that of a fresh network. After the training it is folded: weights and steps
are multiplied by ``g / sqrt(v + eps)``, rounded as steps are, so that the codes stay.

What it is worth: docs/adr/0014-low-bit-fine-tuning.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitscout.quantization.exact_steps import nearest_steps
from bitscout.quantization.flow import evaluating
from bitscout.quantization.modules import QuantizedLayer, QuantModule
from bitscout.quantization.observers import positive_scale

__all__ = ["fold_norms", "revive_norms"]


@torch.no_grad()
def revive_norms(prepared: nn.Module, images: Tensor) -> int:
    """Put a batch norm behind every layer one was folded into, in place.

    In evaluation mode the network computes what it did; in training mode every such norm uses
    and updates statistics of the batch. `fold_norms` takes them out again and has to, before the
    network is exported, saved or judged. Layers that run several times are left out, and those
    with one step for all channels, which no norm could be folded into.

    Args:
        prepared: Result of `prepare`, calibrated.
        images: Some hundred training images for the first statistics.

    Returns:
        How many norms there are.
    """
    layers = [layer for layer in _layers(prepared) if _can_have_norm(layer)]
    passes = [_Reviving() for _ in layers]
    try:
        for layer, current in zip(layers, passes, strict=True):
            layer.current_pass = current
        with evaluating(prepared):
            prepared(images)
    finally:
        for layer in layers:
            layer.current_pass = None
    for layer in layers:
        if layer.norm is not None:
            layer.norm.train(prepared.training)
    return sum(layer.norm is not None for layer in layers)


@torch.no_grad()
def fold_norms(prepared: nn.Module) -> None:
    """Fold what `revive_norms` put in, with the running statistics, in place."""
    for layer in _layers(prepared):
        if layer.norm is not None:
            _fold(layer, layer.norm)
            layer.norm = None


class _Reviving:
    """Give the layer that runs a batch norm with the statistics of its own output."""

    def run(self, module: QuantModule, inputs: tuple[Tensor, ...]) -> Tensor:
        assert isinstance(module, QuantizedLayer)
        result, bias = module.quantized(*inputs), module.quantized_bias()
        if bias is None or result.dim() not in (2, 4):
            return result
        product = module.product(inputs[0], None)
        is_map = product.dim() == 4
        variance, mean = torch.var_mean(product, (0, 2, 3) if is_map else (0,), correction=0)
        scale = _scale_to_fresh(module)
        norm = (nn.BatchNorm2d if is_map else nn.BatchNorm1d)(len(mean)).to(mean.device)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean * scale)
        norm.running_var.copy_(variance * scale**2)
        norm.weight.copy_((norm.running_var + norm.eps).sqrt() / scale)
        norm.bias.copy_(mean + bias)
        norm.eval()
        module.norm = norm
        return result


def _scale_to_fresh(layer: QuantizedLayer) -> Tensor:
    """Multiply each channel's weights and steps by a power of two; return the factors.

    They get the mean square of fresh weights, ``2 / fan_in``. A power of two changes no code, and
    no step with few mantissa bits to one with more.
    """
    rows = layer.masked_weight().flatten(1)
    size = rows.square().mean(dim=1).sqrt()
    wanted = (2 / rows.shape[1]) ** 0.5
    factor = torch.where(size > 0, torch.exp2((wanted / size).log2().round()), 1.0)
    layer.weight.mul_(_per_channel(factor, layer.weight))
    layer.weight_quantizer.scale.mul_(factor)
    return factor


def _fold(layer: QuantizedLayer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert layer.bias is not None
    quantizer = layer.weight_quantizer
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    layer.bias.copy_(norm.bias.double() - norm.running_mean.double() * factor)
    steps = quantizer.steps().double()
    folded = positive_scale((steps * factor.abs()).to(layer.weight.dtype), quantizer.quant_max)
    if quantizer.mantissa_bits is not None:
        folded = nearest_steps(folded, quantizer.mantissa_bits)
    # NOTE: weights follow their step, rounded as it is. Trained ones crowd where the code changes:
    # 0.3 % of other codes took 5 of 68 % of accuracy at 2 bits, and a factor per channel none.
    layer.weight.mul_(_per_channel(folded / steps * factor.sign(), layer.weight))
    quantizer.scale.copy_(folded)
    layer.fit_bias()


def _can_have_norm(layer: QuantizedLayer) -> bool:
    is_per_tensor = layer.weight_quantizer.observer.is_per_tensor
    return layer.was_normalized and layer.uses == 1 and not is_per_tensor


def _layers(module: nn.Module) -> list[QuantizedLayer]:
    return [child for child in module.modules() if isinstance(child, QuantizedLayer)]


def _per_channel(values: Tensor, weight: Tensor) -> Tensor:
    return values.to(weight.dtype).reshape(-1, *[1] * (weight.dim() - 1))
