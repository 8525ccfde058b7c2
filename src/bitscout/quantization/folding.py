# SPDX-License-Identifier: Apache-2.0
"""Batch-norm folding: ``W' = W g / sqrt(v + eps)`` and ``b' = beta + (b - m) g / sqrt(v + eps)``.

Notation: ``g, beta`` weight and bias of the batch norm, ``m, v`` its running mean and variance.

For per-channel steps that scale with the weights (largest magnitude, mean squared error) and a
narrow range, quantizing and then normalising equals quantizing the folded weights, also where
``g`` is negative: ``Q(a W_c) = a Q(W_c)``. Not so for power-of-two or per-tensor steps, nor for
the full range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bitscout.errors import UnsupportedError
from bitscout.quantization.flow import Flow, evaluating, put_module, record_flow
from bitscout.quantization.survey import is_batch_norm, is_layer

__all__ = ["TOLERANCE", "Folding", "fold_batch_norm", "fold_into_readers", "scale_and_shift"]

# Float32 rounding of one layer, relative to the largest output: eps times the root of the longest
# sum (2**14 terms), times 8 for the batch norm's own operations.
TOLERANCE = 2.0**-23 * 2.0**7 * 8

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
_Layer = nn.Conv2d | nn.Linear


class Folding(NamedTuple):
    """What became of the batch norms of a network, by their paths.

    Attributes:
        layers: Path of the layer that a folded one is in.
        left: Why another one, which runs, could not be folded.
    """

    layers: Mapping[str, str]
    left: Mapping[str, str]


@torch.no_grad()
def fold_batch_norm(module: nn.Module, example_input: Tensor) -> Folding:
    """Fold every batch norm that can be into the layer in front of it, in place.

    The pairs are found by following tensors from module to module in one forward pass. Each
    batch norm becomes an `torch.nn.Identity`. The folded network is then compared, layer by
    layer, with the original on `example_input`.

    Args:
        module: Any network of convolutions and linears. Its running statistics are used, whatever
            its mode; its mode stays.
        example_input: One batch, at least one image.

    Returns:
        What was folded into what, and what was left.

    Raises:
        UnsupportedError: Naming a batch norm that gives no finite values, or the layer whose
            output the folding changed.
    """
    norms = {name: child for name, child in module.named_modules() if is_batch_norm(child)}
    if not norms:
        return Folding({}, {})
    flow = record_flow(module, example_input, _is_leaf)
    found = {name: _layer_before(flow, name) for name in norms if flow.calls_of(name)}
    pairs = {name: layer for name, layer in found.items() if not isinstance(layer, str)}
    before = _outputs(module, list(pairs), example_input)
    for name, (_, layer) in pairs.items():
        fold(layer, norms[name])
        put_module(module, norms[name], nn.Identity())
    after = _outputs(module, list(pairs), example_input)
    for name, (layer_name, _) in pairs.items():
        _check(name, layer_name, before[name], after[name])
    return Folding(
        {name: layer_name for name, (layer_name, _) in pairs.items()},
        {name: reason for name, reason in found.items() if isinstance(reason, str)},
    )


@torch.no_grad()
def fold_into_readers(module: nn.Module, flow: Flow, name: str) -> bool:
    """Fold a batch norm of vectors into the linears behind it, in place.

    Args:
        module: The network.
        flow: What it does.
        name: Path of the batch norm.

    Returns:
        Whether it was folded: it runs once, and nothing but `Linear`s reads it.
    """
    norm = module.get_submodule(name)
    assert isinstance(norm, BatchNorm)
    (call, *others) = flow.calls_of(name)
    (value,) = call.writes
    readers = flow.readers(value)
    layers = [reader.module for reader in readers if isinstance(reader.module, nn.Linear)]
    runs_once = all(len(flow.calls_of(reader.name or "")) == 1 for reader in readers)
    if others or value in flow.outputs or not runs_once or not 0 < len(readers) == len(layers):
        return False
    factor, shift = _factor_and_shift(norm)
    for layer in layers:
        weight = layer.weight.double()
        bias = weight @ shift
        if layer.bias is not None:
            bias = bias + layer.bias.double()
        layer.weight = nn.Parameter((weight * factor).to(layer.weight.dtype))
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
    put_module(module, norm, nn.Identity())
    return True


def scale_and_shift(norm: BatchNorm) -> nn.Conv2d:
    """Return the depthwise convolution of one pixel that computes what a batch norm does."""
    assert norm.running_mean is not None
    channels = len(norm.running_mean)
    mean = norm.running_mean
    layer = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    layer.weight = nn.Parameter(torch.ones_like(mean).reshape(-1, 1, 1, 1))
    fold(layer, norm)
    return layer


def _layer_before(flow: Flow, name: str) -> tuple[str, _Layer] | str:
    """Return the layer that the batch norm `name` follows, or why none can absorb it."""
    calls = flow.calls_of(name)
    if len(calls) > 1:
        return f"Batch norm {name!r} runs {len(calls)} times."
    (norm,) = calls
    value = norm.reads[0]
    layer = flow.writer(value)
    if layer is None or layer.name is None or not isinstance(layer.module, nn.Conv2d | nn.Linear):
        what = "the input of the network" if layer is None else (layer.name or layer.function)
        return f"Batch norm {name!r} reads {what!r}, not the output of a Conv2d or Linear."
    if len(flow.calls_of(layer.name)) > 1:
        return f"Batch norm {name!r} reads layer {layer.name!r}, which runs several times."
    if flow.readers(value) != [norm] or value in flow.outputs:
        return (
            f"Batch norm {name!r} cannot be folded into {layer.name!r}: something else reads "
            f"that layer's output too."
        )
    return layer.name, layer.module


def fold(layer: _Layer, norm: BatchNorm) -> None:
    """Let `layer` compute what `norm` makes of its result, in place."""
    factor, shift = _factor_and_shift(norm)
    if layer.bias is not None:
        shift = shift + layer.bias.double() * factor
    rows = factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.double() * rows).to(dtype))
    layer.bias = nn.Parameter(shift.to(dtype))


def _factor_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Return what a batch norm multiplies by and adds, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # float64: each folded weight is rounded once.
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return factor, shift


def _outputs(module: nn.Module, names: list[str], example_input: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    children = dict(module.named_modules())

    def keep(name: str, result: Tensor) -> None:
        outputs[name] = result.clone()

    handles = [
        children[name].register_forward_hook(
            lambda _module, _inputs, result, name=name: keep(name, result)
        )
        for name in names
    ]
    try:
        with evaluating(module):
            module(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _check(norm: str, layer: str, before: Tensor, after: Tensor) -> None:
    if not before.isfinite().all():
        msg = f"Batch norm {norm!r} gives NaN or infinite values; look for a diverged training."
        raise UnsupportedError(msg)
    difference = float((before - after).abs().amax())
    allowed = TOLERANCE * max(float(before.abs().amax()), 1.0)
    if not difference <= allowed:
        msg = (
            f"Folding batch norm {norm!r} into {layer!r} changed its output by {difference:.3g} "
            f"(allowed {allowed:.3g}): {layer!r} does more than its weight and bias say. Fold it "
            f"by hand before quantizing."
        )
        raise UnsupportedError(msg)


def _is_leaf(module: nn.Module) -> bool:
    return is_layer(module) or is_batch_norm(module)
