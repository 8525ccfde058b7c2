# SPDX-License-Identifier: Apache-2.0
"""Batch-norm folding: ``W' = W g / sqrt(v + eps)`` and ``b' = beta + (b - m) g / sqrt(v + eps)``.

Notation: ``g, beta`` weight and bias of the batch norm, ``m, v`` its running mean and variance.

For per-channel steps that scale with the weights (largest magnitude, mean squared error) and a
narrow range, quantizing and then normalising equals quantizing the folded weights, also where
``g`` is negative: ``Q(a W_c) = a Q(W_c)``. Not so for power-of-two or per-tensor steps, nor for
the full range.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitscout.errors import UnsupportedError
from bitscout.quantization.flow import Call, Flow, evaluating, put_module, record_flow

__all__ = ["fold_batch_norm"]

# Float32 rounding of one layer, relative to the largest output: eps times the root of the longest
# sum (2**14 terms), times 8 for the batch norm's own operations.
TOLERANCE = 2.0**-23 * 2.0**7 * 8

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_Layer = nn.Conv2d | nn.Linear


@torch.no_grad()
def fold_batch_norm(module: nn.Module, example_input: Tensor) -> None:
    """Fold every batch norm into the layer in front of it, in place.

    The pairs are found by following tensors from module to module in one forward pass. Each
    batch norm becomes an `torch.nn.Identity`. The folded network is then compared, layer by
    layer, with the original on `example_input`.

    Args:
        module: Any network of convolutions and linears. Its running statistics are used, whatever
            its mode; its mode stays.
        example_input: One batch, at least one image.

    Raises:
        UnsupportedError: Naming the batch norm that no layer in front can absorb, or the layer
            whose output the folding changed.
    """
    norms = {
        name: child for name, child in module.named_modules() if isinstance(child, _BATCH_NORMS)
    }
    if not norms:
        return
    flow = record_flow(module, example_input, _is_leaf)
    pairs = [(name, _layer_before(flow, name)) for name in norms]
    before = _outputs(module, [name for name, _ in pairs], example_input)
    for name, layer in pairs:
        if layer is not None:
            _fold(layer[1], norms[name])
    for name, _ in pairs:
        put_module(module, norms[name], nn.Identity())
    after = _outputs(module, [name for name, _ in pairs], example_input)
    for name, layer in pairs:
        if layer is not None:
            _check(name, layer[0], before[name], after[name])


def _layer_before(flow: Flow, name: str) -> tuple[str, _Layer] | None:
    """Return the layer that the batch norm `name` follows; `None` if it never runs."""
    calls = flow.calls_of(name)
    if not calls:
        return None
    norm = calls[0].module
    assert isinstance(norm, _BATCH_NORMS)
    if len(calls) > 1:
        msg = f"Batch norm {name!r} runs {len(calls)} times; give every use a module of its own."
        raise UnsupportedError(msg)
    if norm.running_mean is None:
        msg = (
            f"Batch norm {name!r} keeps no running statistics (track_running_stats=False), so "
            f"there is nothing to fold. Train it with running statistics."
        )
        raise UnsupportedError(msg)
    layer = flow.writer(calls[0].reads[0]) if calls[0].reads else None
    return _checked_layer(flow, name, calls[0], layer)


def _checked_layer(flow: Flow, name: str, norm: Call, layer: Call | None) -> tuple[str, _Layer]:
    value = norm.reads[0]
    if layer is None or layer.name is None or not isinstance(layer.module, nn.Conv2d | nn.Linear):
        what = "the input of the network" if layer is None else (layer.name or "a function")
        msg = (
            f"Batch norm {name!r} reads {what!r}, not the output of a Conv2d or Linear, so it "
            f"cannot be folded. Put it directly behind a convolution."
        )
        raise UnsupportedError(msg)
    if len(flow.calls_of(layer.name)) > 1:
        msg = f"Layer {layer.name!r} runs several times; give every use a module of its own."
        raise UnsupportedError(msg)
    if flow.readers(value) != [norm] or value in flow.outputs:
        msg = (
            f"Batch norm {name!r} cannot be folded into {layer.name!r}: something else reads "
            f"that layer's output too."
        )
        raise UnsupportedError(msg)
    return layer.name, layer.module


def _fold(layer: _Layer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # float64: each folded weight is rounded once.
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if layer.bias is not None:
        shift = shift + layer.bias.double() * factor
    rows = factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.double() * rows).to(dtype))
    layer.bias = nn.Parameter(shift.to(dtype))


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
    return isinstance(module, (nn.Conv2d, nn.Linear, *_BATCH_NORMS))
