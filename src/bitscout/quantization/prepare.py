# SPDX-License-Identifier: Apache-2.0
"""From a trained network and a policy to the same network, fake-quantized."""

from __future__ import annotations

import math
from copy import deepcopy

from torch import Tensor, nn

from bitscout.core import QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.quantization.add import Add
from bitscout.quantization.calibrate import calibrate
from bitscout.quantization.config import QuantConfig
from bitscout.quantization.flow import Call, Flow, put_module, record_flow
from bitscout.quantization.folding import fold_batch_norm
from bitscout.quantization.modules import (
    QuantAdd,
    QuantAvgPool,
    QuantConv2d,
    QuantLinear,
    QuantModule,
)
from bitscout.quantization.quantizers import ActivationQuantizer

__all__ = ["layer_names", "parameter_groups", "post_training_quantize", "prepare"]

_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_LAYERS = (nn.Conv2d, nn.Linear)
# Modules through which max(x, 0) may be moved: they choose, copy or append zeros.
_TRANSPARENT = (nn.Identity, nn.Flatten, nn.ZeroPad2d, nn.MaxPool2d)


def prepare(
    module: nn.Module,
    policy: QuantPolicy,
    example_input: Tensor,
    config: QuantConfig | None = None,
) -> nn.Module:
    """Return a copy of `module` whose layers are quantized according to `policy`.

    Batch norm is folded with its running statistics; every Conv2d, Linear, `Add` and average
    pool is replaced, under its own name, by its quantized form; a `torch.nn.ReLU` or
    `torch.nn.ReLU6` all of whose readers are quantized is merged into their quantizers (the
    results and gradients are the same). The steps are still empty: `calibrate` sets them.

    The copy is an ordinary module: it trains, moves, copies and saves like any other. What a
    ``forward`` does between modules (``F.relu``, ``a + b``) stays as it is, in real numbers; use
    `Add` for additions that shall be integer.

    Args:
        module: Any network of convolutions and linears that takes one tensor. Not changed.
        policy: One entry per Conv2d and Linear, by module path (``""`` for a lone layer).
        example_input: One batch the network accepts; every layer must run on it.
        config: Observers, learned steps, bits of adds and pools.

    Raises:
        PolicyError: If the names of the policy are not exactly those of the layers.
        UnsupportedError: Naming a module that has parameters but no quantized form, runs not at
            all or more than once, or a batch norm that cannot be folded.
    """
    config = config or QuantConfig()
    _check_supported(module)
    policy.check_covers(layer_names(module))
    copy = deepcopy(module)
    fold_batch_norm(copy, example_input)
    flow = record_flow(copy, example_input, _is_leaf)
    sources = {name: child for name, child in copy.named_modules() if _is_leaf(child)}
    _check_runs_once(flow, sources)
    quantized = {
        name: _quantized(name, source, policy, config) for name, source in sources.items()
    }
    _merge_activations(copy, flow, quantized)
    for name, new in quantized.items():
        copy = put_module(copy, sources[name], new)
    return copy


def post_training_quantize(
    module: nn.Module,
    policy: QuantPolicy,
    calibration: Tensor,
    config: QuantConfig | None = None,
) -> nn.Module:
    """Return `module` quantized according to `policy` and calibrated: `prepare` + `calibrate`.

    Args:
        module: As for `prepare`. Not changed.
        policy: As for `prepare`.
        calibration: Training images, 256 to 1024 of them, preprocessed as the network expects.
        config: As for `prepare`.
    """
    config = config or QuantConfig()
    prepared = prepare(module, policy, calibration[:2], config)
    calibrate(prepared, [calibration], bias_correction=config.bias_correction)
    return prepared


def layer_names(module: nn.Module) -> list[str]:
    """Return the paths of all Conv2d and Linear modules, the names of a policy."""
    return [name for name, child in module.named_modules() if isinstance(child, _LAYERS)]


def parameter_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters of a prepared network for an optimizer.

    Returns:
        ``(weights, others)``: `weights` take weight decay; `others`, biases and learned steps,
        do not. Decay would shrink a step for no reason in the loss.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.dim() > 1]
    return weights, [parameter for parameter in parameters if parameter.dim() <= 1]


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, (*_LAYERS, Add, *_POOLS))


def _check_supported(module: nn.Module) -> None:
    """Refuse modules whose parameters nothing here quantizes."""
    for name, child in module.named_modules():
        if isinstance(child, QuantModule):
            msg = f"Module {name!r} is quantized already; start from the real network."
            raise UnsupportedError(msg)
        own = next(child.parameters(recurse=False), None)
        if own is None or isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        if not isinstance(child, _LAYERS):
            msg = (
                f"Module {name!r} is a {type(child).__name__}, whose parameters cannot be "
                f"quantized here. Supported: Conv2d and Linear, and BatchNorm behind them."
            )
            raise UnsupportedError(msg)
        kind = nn.Conv2d if isinstance(child, nn.Conv2d) else nn.Linear
        if type(child).forward is not kind.forward:
            msg = (
                f"Module {name!r} is a {type(child).__name__} with a forward of its own, so its "
                f"quantized form is unknown. Use {kind.__name__} and put the rest around it."
            )
            raise UnsupportedError(msg)


def _check_runs_once(flow: Flow, sources: dict[str, nn.Module]) -> None:
    for name, source in sources.items():
        count = len(flow.calls_of(name))
        if count == 1 or (count == 0 and not isinstance(source, _LAYERS)):
            continue
        kind = type(source).__name__
        if count == 0:
            msg = f"{kind} {name!r} does not run on the example input; remove it."
        else:
            msg = (
                f"{kind} {name!r} runs {count} times in one forward pass, and each use needs "
                f"steps of its own. Give every use a module of its own."
            )
        raise UnsupportedError(msg)


def _quantized(
    name: str, source: nn.Module, policy: QuantPolicy, config: QuantConfig
) -> QuantModule:
    if isinstance(source, nn.Conv2d):
        return QuantConv2d(name, source, policy[name], config)
    if isinstance(source, nn.Linear):
        return QuantLinear(name, source, policy[name], config)
    if isinstance(source, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return QuantAvgPool(name, source, config)
    return QuantAdd(name, config)


def _merge_activations(root: nn.Module, flow: Flow, quantized: dict[str, QuantModule]) -> None:
    """Merge each ReLU and ReLU6 into its readers where every reader is a quantizer."""
    for name, child in list(root.named_modules()):
        if type(child) not in (nn.ReLU, nn.ReLU6):
            continue
        readers = [_quantized_readers(flow, call, quantized) for call in flow.calls_of(name)]
        merged: list[ActivationQuantizer] = []
        for found in readers:
            if not found:
                break
            merged.extend(found)
        else:
            clip = (0.0, 6.0 if isinstance(child, nn.ReLU6) else math.inf)
            for quantizer in merged:
                quantizer.merge(clip)
            put_module(root, child, nn.Identity())


def _quantized_readers(
    flow: Flow, call: Call, quantized: dict[str, QuantModule]
) -> list[ActivationQuantizer] | None:
    """Return the quantizers that read what `call` wrote, `None` if anything else does."""
    found: list[ActivationQuantizer] = []
    for value in call.writes:
        readers = flow.readers(value)
        if value in flow.outputs or not readers:
            return None
        for reader in readers:
            if reader.name in quantized:
                quantizers = quantized[reader.name].input_quantizers()
                found += [
                    q for q, read in zip(quantizers, reader.reads, strict=True) if read == value
                ]
            elif isinstance(reader.module, _TRANSPARENT):
                behind = _quantized_readers(flow, reader, quantized)
                if behind is None:
                    return None
                found += behind
            else:
                return None
    return found
