# SPDX-License-Identifier: Apache-2.0
"""A given network as data: its layers, which of them can be searched, and why the others cannot.

The network runs, and is left as it was. Nothing is left out: what multiplies by weights is a
layer, searched or unsupported with a reason; what else has parameters is named in the notes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from bitscout.core import Layer
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.networks.blocks_and_stages import block_labels, stage_labels
from bitscout.networks.calls import CallRecord, Value, short_line
from bitscout.networks.channel_groups import ChannelGroups, find_channel_groups
from bitscout.networks.found_layers import FoundLayer
from bitscout.networks.network_graph import FoundNode, NetworkGraph, network_graph
from bitscout.networks.record_calls import record_calls
from bitscout.networks.verify_groups import verify_groups
from bitscout.quantization import LayerSite, layer_sites, scale_sites
from bitscout.space import Axis, GivenLayer, GivenNode, ModelDescription

__all__ = ["check_classes", "describe"]

LATE_NORM: Final = (
    "A batch norm that no layer in front of it can absorb: one 8-bit scale and a shift a channel."
)
_LISTED = 8  # Names in a note before it says how many more there are.


def describe(
    module: nn.Module, input_shape: tuple[int, ...], *, name: str = "the network"
) -> ModelDescription:
    """Return what a search space has to know about `module`.

    Blocks and stages are those of `block_labels` and `stage_labels`; channel groups those of
    `find_channel_groups`, each built once with other widths to see that the network runs with
    them.

    Args:
        module: A classifier: it takes one tensor of images and returns one of ``(n, classes)``.
        input_shape: Shape of one input without the batch, ``(C, H, W)`` or ``(features,)``.
        name: What messages call it.

    Raises:
        UnsupportedError: If the network does not run on such an input, naming the line, or
            returns something else than one tensor of outputs.
        ConfigError: If it has no layer that can be searched.
    """
    record = record_calls(module, input_shape)
    _check_output(record, name)
    graph = network_graph(record)
    sites = layer_sites(module, _images(module, input_shape))
    groups = find_channel_groups(record)
    blocks = block_labels(graph)
    stages = stage_labels(graph, blocks)
    is_whole = all(site.is_supported or site.stays_real for site in sites.values())
    # Where a layer has no quantized form, nor has the network, and its norms stay what they are.
    norms = scale_sites(module, _images(module, input_shape)) if is_whole else ()
    shared = dict(_sharing(module, graph))
    layers = tuple(
        _given_layer(found, sites, shared, groups, blocks, stages) for found in graph.layers
    )
    _check_searchable(layers, name)
    description = ModelDescription(
        name=name,
        groups=groups.groups,
        layers=layers,
        nodes=tuple(_given_node(found, groups) for found in graph.nodes),
        notes=tuple(_notes(record, graph, sites, norms)),
        weights=groups.weights,
    )

    def layers_of(network: nn.Module) -> tuple[Layer, ...]:
        return network_graph(record_calls(network, input_shape)).plain.layers

    verified = verify_groups(module, input_shape, description, layers_of)
    return replace(verified, layers=_with_norms(verified.layers, graph, record, groups, norms))


def _with_norms(
    layers: tuple[GivenLayer, ...],
    graph: NetworkGraph,
    record: CallRecord,
    groups: ChannelGroups,
    names: Collection[str],
) -> tuple[GivenLayer, ...]:
    """Return the layers and, where they run, the batch norms that are layers of their own."""
    at = [(found.call.index, layer) for found, layer in zip(graph.layers, layers, strict=True)]
    for call in record.calls:
        if call.function != "batch_norm" or call.path not in names:
            continue
        x = call.args[0]
        channels, size = x.shape[1], x.shape[2:] or (1, 1)
        before = [layer.stage for index, layer in at if index < call.index]
        norm = Layer(
            call.path,
            "conv",
            channels,
            channels,
            groups=channels,
            input_size=(size[0], size[-1]),
            output_size=(size[0], size[-1]),
        )
        axis = _fitting(groups.axis(x, 1), channels, groups)
        stage = before[-1] if before else layers[0].stage
        given = GivenLayer(norm, axis, axis, call.path, stage, "fixed", LATE_NORM)
        at.append((call.index, given))
        at.sort(key=lambda entry: entry[0])
    return tuple(layer for _, layer in at)


def check_classes(module: nn.Module, input_shape: tuple[int, ...], n_classes: int) -> None:
    """Check that the network has as many outputs as the data has classes.

    Raises:
        ConfigError: If it has another number.
        UnsupportedError: If it does not run on such an input, or returns something else than one
            tensor of outputs.
    """
    record = record_calls(module, input_shape)
    n_outputs = _check_output(record, "the network").shape[1]
    if n_outputs != n_classes:
        msg = (
            f"The network has {n_outputs} outputs, but the data has {n_classes} classes. Make the "
            f"network with {n_classes} classes (for an import path: an argument such as "
            "`n_classes` among its options), or take other data."
        )
        raise ConfigError(msg)


def _check_output(record: CallRecord, name: str) -> Value:
    output = record.output
    if isinstance(output, Value) and len(output.shape) == 2 and output.is_result:
        return output
    what = (
        f"a tensor of shape {output.shape}"
        if isinstance(output, Value)
        else (f"a {type(output).__name__}")
    )
    msg = (
        f"Expected {name} to return one tensor of shape (n, classes) in evaluation mode, got "
        f"{what}. Wrap it in a module that returns the class scores alone."
    )
    raise UnsupportedError(msg)


def _check_searchable(layers: tuple[GivenLayer, ...], name: str) -> None:
    if any(layer.state == "searched" for layer in layers):
        return
    why = layers[0].reason if layers else "It has no convolution and no linear layer that runs."
    msg = f"No layer of {name} can be searched. {why}"
    raise ConfigError(msg)


def _given_layer(
    found: FoundLayer,
    sites: Mapping[str, LayerSite],
    shared: Mapping[str, str],
    groups: ChannelGroups,
    blocks: Mapping[str, str],
    stages: Mapping[str, str],
) -> GivenLayer:
    layer = found.layer
    dim = 1 if found.call.function == "conv2d" else -1
    reason = _reason(found, sites.get(layer.name)) or shared.get(layer.name, "")
    return GivenLayer(
        layer,
        _fitting(groups.axis(found.x, dim), layer.in_channels, groups),
        _fitting(groups.axis(found.y, dim), layer.out_channels, groups),
        block=blocks[layer.name],
        stage=stages[layer.name],
        state="unsupported" if reason else "searched",
        reason=reason,
    )


def _reason(found: FoundLayer, site: LayerSite | None) -> str:
    """Return why a layer cannot be quantized, or nothing."""
    if found.problem and found.n_uses == 1:
        return found.problem
    if site is None:
        return (
            f"`{found.call.function}` in {found.call.where} is no layer that can be replaced: "
            "use a Conv2d or Linear module."
        )
    return site.reason or found.problem


def _fitting(axis: Axis, channels: int, groups: ChannelGroups) -> Axis:
    """Return an axis that has as many entries as a layer has channels, else none."""
    n_entries = sum(groups.groups[part.group].channels * part.factor for part in axis)
    return axis if n_entries == channels else ()


def _given_node(found: FoundNode, groups: ChannelGroups) -> GivenNode:
    """Return an operation, its channels in the first place."""
    node, value = found.node, found.value
    for position, size in enumerate(node.shape):
        dim = position + len(value.shape) - len(node.shape)
        axis = _fitting(groups.axis(value, dim), size, groups) if dim > 0 else ()
        if axis:
            rest = (*node.shape[:position], *node.shape[position + 1 :])
            return GivenNode(replace(node, shape=(size, *rest)), axis)
    return GivenNode(node)


def _sharing(module: nn.Module, graph: NetworkGraph) -> Iterator[tuple[str, str]]:
    """Yield the layers whose weights belong to other layers too, and a reason."""
    owners: dict[int, list[str]] = {}
    names = {found.layer.name for found in graph.layers}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        if owner in names and parameter.dim() > 1:
            owners.setdefault(id(parameter), []).append(owner)
    for found in owners.values():
        for owner in found if len(set(found)) > 1 else ():
            others = ", ".join(repr(other) for other in dict.fromkeys(found) if other != owner)
            reason = (
                f"Layer {owner!r} shares its weights with {others}, and each would get bits of "
                "its own. Give every layer weights of its own, or call one module several times."
            )
            yield owner, reason


def _notes(
    record: CallRecord,
    graph: NetworkGraph,
    sites: Mapping[str, LayerSite],
    norms: Collection[str],
) -> Iterator[str]:
    names = {found.layer.name for found in graph.layers}
    for name, site in sites.items():
        if name not in names and site.reason:
            yield site.reason
    real = list(dict.fromkeys(_real_parameters(record, graph)))
    real = [name for name in real if name.rpartition(".")[0] not in norms]
    if real:
        more = f" and {len(real) - _LISTED} more" if len(real) > _LISTED else ""
        yield (
            f"These parameters stay in floating point and are not counted in the size: "
            f"{', '.join(real[:_LISTED])}{more}."
        )
    if record.number_reads:
        lines = ", ".join(short_line(line) for line in record.number_reads if line)
        yield (
            f"The forward makes numbers or decisions of activations{f' ({lines})' * bool(lines)}: "
            "only the path of one image was looked at."
        )


def _real_parameters(record: CallRecord, graph: NetworkGraph) -> Iterator[str]:
    """Yield every parameter that runs and is neither a layer's nor folded into one."""
    of_layers = {
        parameter.name
        for call in (*(found.call for found in graph.layers), *graph.folded)
        for value in call.reads
        for parameter in record.weights_of(value)
    }
    for call in record.calls:
        for value in call.reads:
            if value.is_parameter and value.name not in of_layers:
                yield value.name


def _images(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros((2, *input_shape), dtype=like.dtype, device=like.device)
