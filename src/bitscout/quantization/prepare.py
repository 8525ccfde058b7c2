# SPDX-License-Identifier: Apache-2.0
"""From a trained network and a policy to the same network, fake-quantized."""

from __future__ import annotations

from torch import Tensor, nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.quantization.add import Add
from bitscout.quantization.calibrate import calibrate
from bitscout.quantization.config import QuantConfig
from bitscout.quantization.convert import Converted, convert
from bitscout.quantization.flow import put_module
from bitscout.quantization.merging import merge_activations
from bitscout.quantization.modules import (
    QuantAdd,
    QuantAvgPool,
    QuantConv2d,
    QuantLinear,
    QuantModule,
)
from bitscout.quantization.quantizers import ActivationQuantizer, WeightQuantizer
from bitscout.quantization.survey import layer_sites

__all__ = ["layer_names", "learned_steps", "parameter_groups", "post_training_quantize", "prepare"]

_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_LAYERS = (nn.Conv2d, nn.Linear)


def prepare(
    module: nn.Module,
    policy: QuantPolicy,
    example_input: Tensor,
    config: QuantConfig | None = None,
) -> nn.Module:
    """Return a copy of `module` whose layers are quantized according to `policy`.

    Batch norm is folded with its running statistics into the layer in front of it; one that no
    layer can absorb becomes a quantized factor and shift per channel. Every convolution, linear,
    `Add` and average pool is replaced, under its own name, by its quantized form, and so are
    additions of two results and average pools that a ``forward`` writes as functions, by modules
    below ``function_sites``. A weight that is computed (masked, standardized, normalized) becomes
    a plain one; zeros of a mask stay zeros. A `torch.nn.ReLU` or `torch.nn.ReLU6` all of whose
    readers are quantized is merged into their quantizers (the results and gradients are the
    same). The steps are still empty: `calibrate` sets them.

    The copy is an ordinary module: it trains, moves, copies and saves like any other, and its
    ``forward`` is the network's own. All else stays in real numbers: see `kept_in_float`. A layer
    that runs several times has one set of steps for all its uses; layers that share a parameter
    get one each.

    Args:
        module: Any network that takes one tensor. Not changed.
        policy: One entry for every name in `layer_names`: convolutions and linears by module path
            (``""`` for a lone layer), but those that do not run in evaluation mode. It may name
            batch norms that no layer absorbs (`scale_sites`), which have `config.norm_bits`
            otherwise.
        example_input: One batch the network accepts.
        config: Observers, learned steps, bits of adds, pools and batch norms.

    Raises:
        PolicyError: If the names of the policy are not exactly those of the layers.
        UnsupportedError: Naming a layer that has no quantized form, where, and what to do.
    """
    config = config or QuantConfig()
    _check_not_quantized(module)
    converted = convert(module, example_input)
    _check_policy(policy, converted)
    root, flow = converted.root, converted.flow
    sources = {
        path: child
        for path, child in root.named_modules()
        if path in converted.layers or path in converted.scales or _is_joint(child)
    }
    quantized = {}
    for path, source in sources.items():
        new = _quantized(path, source, policy, converted, config)
        new.uses = max(len(flow.calls_of(path)), 1)
        quantized[path] = new
    merge_activations(root, flow, quantized)
    for path, new in quantized.items():
        root = put_module(root, sources[path], new)
    return root


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


def layer_names(module: nn.Module, example_input: Tensor | None = None) -> list[str]:
    """Return the names of all layers, the names of a policy.

    Args:
        module: The network.
        example_input: One batch it accepts. Without one, the paths of all `Conv2d` and `Linear`
            modules: those that `prepare` wants as long as all of them run, and no other module
            computes a convolution.
    """
    if example_input is None:
        return [name for name, child in module.named_modules() if isinstance(child, _LAYERS)]
    sites = layer_sites(module, example_input)
    return [name for name, site in sites.items() if site.is_supported]


def parameter_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters of a prepared network for an optimizer.

    Returns:
        ``(weights, others)``: `weights` take weight decay; `others`, biases and learned steps,
        do not. Decay would shrink a step for no reason in the loss.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.dim() > 1]
    return weights, [parameter for parameter in parameters if parameter.dim() <= 1]


def _check_policy(policy: QuantPolicy, converted: Converted) -> None:
    """Check that the policy names every layer; it may name norms that are layers too."""
    norms = {*converted.scales.values()}
    layers = QuantPolicy({name: bits for name, bits in policy.items() if name not in norms})
    layers.check_covers(list(converted.layers.values()))


def learned_steps(module: nn.Module) -> list[nn.Parameter]:
    """Return the steps that are trained, a part of the others in `parameter_groups`."""
    quantizers = (WeightQuantizer, ActivationQuantizer)
    return [
        part.scale
        for part in module.modules()
        if isinstance(part, quantizers) and isinstance(part.scale, nn.Parameter)
    ]


def _is_joint(module: nn.Module) -> bool:
    return isinstance(module, (Add, *_POOLS))


def _check_not_quantized(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, QuantModule):
            msg = f"Module {name!r} is quantized already; start from the real network."
            raise UnsupportedError(msg)


def _quantized(
    path: str, source: nn.Module, policy: QuantPolicy, converted: Converted, config: QuantConfig
) -> QuantModule:
    """Return the quantized form of the module at `path`."""
    if isinstance(source, nn.Conv2d | nn.Linear):
        if path in converted.scales:
            name = converted.scales[path]
            bits = policy.get(name, LayerBits(config.norm_bits, config.norm_bits))
        else:
            name, bits = converted.layers[path], policy[converted.layers[path]]
        layer = (
            QuantConv2d(name, source, bits, config)
            if isinstance(source, nn.Conv2d)
            else QuantLinear(name, source, bits, config)
        )
        layer.was_normalized = path in converted.normalized
        if path in converted.masks:
            layer.keep_zeros(converted.masks[path])
        return layer
    name = converted.names.get(path, path)
    if isinstance(source, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return QuantAvgPool(name, source, config)
    return QuantAdd(name, config)
