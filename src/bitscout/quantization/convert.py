# SPDX-License-Identifier: Apache-2.0
"""A copy of a network in which all that is to be quantized is a module of its own.

Functions become modules, weights that are computed become weights, batch norms are folded, and
those that no layer absorbs become a factor and a shift per channel: a depthwise convolution of
one pixel. In floating point the copy computes what the network does, and that is checked.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bitscout.errors import UnsupportedError
from bitscout.quantization.arguments import averaged_dims, bound, equivalent, weighted
from bitscout.quantization.flow import Call, Flow, is_opaque, put_module
from bitscout.quantization.folding import (
    TOLERANCE,
    fold_batch_norm,
    fold_into_readers,
    scale_and_shift,
)
from bitscout.quantization.function_sites import FunctionSites
from bitscout.quantization.survey import LayerSite, is_leaf, sites_of, survey_flow

__all__ = ["Converted", "convert"]

# Modules whose fast path in evaluation reads the weights of their layers itself, unless a mode
# watches the functions they call.
_WITH_FAST_PATH = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
# Of a whole network: roundings of one layer grow in those behind it. Measured on the networks of
# the tests: at most 3 times the tolerance of one layer.
_WHOLE = 100 * TOLERANCE


@dataclass(eq=False)
class Converted:
    """A converted copy of a network.

    Attributes:
        root: The copy, in floating point.
        flow: What it does.
        layers: Name of every layer of a policy, by the path of its module in the copy.
        scales: Name of every batch norm that became a depthwise convolution, by its path.
        names: What to call the other modules that replace functions, by path.
        masks: Where the weights of a layer are not zero, by path, for those that were masked.
        sites: The layers of the network as it was, by name.
        normalized: Paths of the layers that a batch norm was folded into.
    """

    root: nn.Module
    flow: Flow
    layers: dict[str, str]
    scales: dict[str, str]
    names: dict[str, str]
    masks: dict[str, Tensor]
    sites: dict[str, LayerSite]
    normalized: frozenset[str]


@dataclass(eq=False)
class _Replaced:
    root: nn.Module
    functions: FunctionSites | None = None
    layers: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def convert(module: nn.Module, example_input: Tensor) -> Converted:
    """Return a copy of `module` whose layers, sums, averages and norms are modules.

    Args:
        module: Any network that takes one tensor. Not changed.
        example_input: One batch the network accepts.

    Raises:
        UnsupportedError: Naming a layer that cannot be quantized, a batch norm that cannot be
            folded, or if the copy does not compute what the network does.
    """
    flow = survey_flow(module, example_input)
    sites = sites_of(module, flow)
    for site in sites.values():
        if site.reason and not site.stays_real:
            raise UnsupportedError(site.reason)
    replaced = _with_modules(deepcopy(module), flow, sites)
    root = replaced.root
    folding = fold_batch_norm(root, example_input)
    scales = {}
    if folding.left:
        middle = survey_flow(root, example_input)
    for path in folding.left:
        norm = root.get_submodule(path)
        if isinstance(norm, nn.BatchNorm1d):
            fold_into_readers(root, middle, path)
        else:
            assert isinstance(norm, nn.BatchNorm2d)
            root = put_module(root, norm, scale_and_shift(norm))
            scales[path] = replaced.names.get(path, path)
    after = survey_flow(root, example_input)
    if _differ(flow.result, after.result):
        after = _repaired(module, replaced, root, example_input)
    return Converted(
        root,
        after,
        replaced.layers,
        scales,
        replaced.names,
        replaced.masks,
        dict(sites),
        frozenset(folding.layers.values()),
    )


def _with_modules(root: nn.Module, flow: Flow, sites: dict[str, LayerSite]) -> _Replaced:
    """Put modules in the places of functions and of layers with computed weights."""
    replaced = _Replaced(root)
    hosts = {
        path: child
        for path, child in root.named_modules()
        if not (is_leaf(child) or is_opaque(child) or type(child) is nn.Sequential)
    }
    moved = set()
    for name, site in sites.items():
        if not site.is_supported:
            continue
        if site.call is None:
            replaced.layers[name] = name
        elif _is_whole(name, site.call, flow):
            moved.add(name)
            _replace_layer(replaced, name, site.call)
    functions = [call for call in flow.calls if _is_function_site(call, flow, sites, moved)]
    has_fast_path = any(isinstance(child, _WITH_FAST_PATH) for child in hosts.values())
    if functions or has_fast_path:
        replaced.functions = FunctionSites.installed(
            replaced.root, {path: host for path, host in hosts.items() if path not in moved}
        )
    for call in functions:
        _replace_function(replaced, call, flow)
    return replaced


def _is_whole(path: str, call: Call, flow: Flow) -> bool:
    """Whether the module at `path` does nothing but the recorded call, each time it runs."""
    spans = flow.spans[path]
    first = spans[0]
    return first.reads == call.reads[:1] and first.returns == call.writes


def _replace_layer(replaced: _Replaced, path: str, call: Call) -> None:
    layer = weighted(call)
    assert layer is not None
    old = replaced.root.get_submodule(path)
    layer.training = old.training
    raw = getattr(old, "weight", None)
    replaced.root = put_module(replaced.root, old, layer)
    replaced.layers[path] = path
    _keep_mask(replaced, path, layer.weight, raw)


def _keep_mask(replaced: _Replaced, path: str, weight: Tensor, raw: object) -> None:
    is_zero = weight == 0
    is_raw = isinstance(raw, Tensor) and raw.shape == weight.shape and torch.equal(raw, weight)
    if is_zero.any() and not is_raw:
        replaced.masks[path] = ~is_zero


def _is_function_site(
    call: Call, flow: Flow, sites: dict[str, LayerSite], moved: set[str]
) -> bool:
    place = call.place
    if place is None or not place.kind or place.host in moved or not call.reads:
        return False
    if call.reads[0] not in flow.derived:
        return False
    if call.function in ("conv2d", "linear"):
        return place.host in sites and sites[place.host].call is not None
    if call.function == "add":
        return flow.derived.issuperset(call.reads)
    constants = [t for key, t in bound(call).items() if key != "input" and isinstance(t, Tensor)]
    return flow.derived.isdisjoint(v for t in constants if (v := call.value_of(t)))


def _is_half_of_a_mean(call: Call, flow: Flow) -> bool:
    """Whether a call is the first of ``x.mean(3).mean(2)``, and nothing else reads its result."""
    dims, x, y = averaged_dims(call), bound(call)["input"], call.result
    if x.dim() != 4 or len(dims) != 1 or not dims < {2, 3} or not isinstance(y, Tensor):
        return False
    others = {2, 3} - dims if y.dim() == 4 else {2}
    readers = flow.readers(call.writes[0])
    return [
        reader.function == "mean" and averaged_dims(reader) == others for reader in readers
    ] == [True]


def _replace_function(replaced: _Replaced, call: Call, flow: Flow) -> None:
    functions, place = replaced.functions, call.place
    assert functions is not None
    assert place is not None
    if functions.at(place) is not None:
        return  # The host runs several times.
    is_half = call.function == "mean" and _is_half_of_a_mean(call, flow)
    new = nn.AdaptiveAvgPool2d(1) if is_half else equivalent(call)
    if new is None:
        return
    host = replaced.root.get_submodule(place.host)
    new.train(host.training)
    is_layer = call.function in ("conv2d", "linear")
    kind = "pool" if isinstance(new, nn.AvgPool2d | nn.AdaptiveAvgPool2d) else call.function
    is_host = (is_layer or call.function == "batch_norm") and place.host
    name = functions.put(place, place.host if is_host else f"{place.host}.{kind}".lstrip("."), new)
    path = functions.path_of(name)
    _freeze_read(host, call)
    if not is_layer:
        replaced.names[path] = name
        return
    replaced.layers[path] = place.host
    _keep_mask(replaced, path, new.get_parameter("weight"), getattr(host, "weight", None))


def _freeze_read(host: nn.Module, call: Call) -> None:
    """Stop the training of parameters that a replaced function reads: it has its own."""
    read = [t for t in bound(call).values() if isinstance(t, nn.Parameter)]
    for parameter in host.parameters(recurse=False):
        if any(parameter.shape == t.shape and torch.equal(parameter, t) for t in read):
            parameter.requires_grad_(False)


def _repaired(
    module: nn.Module, replaced: _Replaced, root: nn.Module, example_input: Tensor
) -> Flow:
    """Return the flow of a copy that computed something else than `module`, mended."""
    before = survey_flow(module, example_input).result
    again = survey_flow(module, example_input).result
    if _differ(before, again):
        return survey_flow(root, example_input)  # It draws at random, even in evaluation.
    if replaced.functions is not None:
        replaced.functions.writes_through = True
    after = survey_flow(root, example_input)
    if not _differ(before, after.result):
        return after
    msg = (
        "With modules in the place of its functions the network computes something else than "
        "before, so it cannot be quantized as it is. Look for modules that loop over their own "
        "children, or whose weights or steps change with every call."
    )
    raise UnsupportedError(msg)


def _differ(before: object, after: object) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.shape != after.shape:
            return True
        if not before.is_floating_point():
            return False  # Indices of a largest value, say, may tie.
        scale = max(float(before.abs().amax()), 1.0) if before.numel() else 1.0
        return bool(((before - after).abs() > _WHOLE * scale).any())
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return any(_differ(a, b) for a, b in zip(before, after, strict=True))
    return False
