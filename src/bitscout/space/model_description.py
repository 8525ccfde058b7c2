# SPDX-License-Identifier: Apache-2.0
"""A given network as plain data: its layers, and which channels have to change together.

A *channel group* is a set of channels that one number counts: the channels of a residual stream,
of a depthwise convolution and the layer before it. Whatever the widths of the groups, every
tensor's channels are a sequence of groups, an *axis*; a concatenation joins axes, and flattening
``(C, H, W)`` gives every channel a *factor* of ``H * W`` entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import gcd
from typing import Any, Final, NamedTuple

from bitscout.core import Layer, LayerGraph, Node
from bitscout.errors import ConfigError
from bitscout.space.summary import LayerState

__all__ = [
    "Axis",
    "ChannelGroup",
    "GivenLayer",
    "GivenNode",
    "GivenWeight",
    "ModelDescription",
    "Segment",
]


class Segment(NamedTuple):
    """The channels of one group, each with `factor` entries in a row.

    Attributes:
        group: Index of the group.
        factor: Consecutive entries of one channel; ``H * W`` after flattening, otherwise 1.
    """

    group: int
    factor: int = 1


FIXED_BITS: Final = 8  # Of weights and inputs of layers whose bits are no choice.
Axis = tuple[Segment, ...]
"""The channels of a tensor, in order; ``()`` where their number never changes."""


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that change together.

    Attributes:
        name: Of the first layer that writes them, ``layer1.0.conv1``; ``input`` for the image's.
        channels: Their number in the given network.
        multiple: Their number must be a multiple of this: the groups of grouped convolutions.
        fixed: Why their number cannot change, a sentence; `None` where it can.
    """

    name: str
    channels: int
    multiple: int = 1
    fixed: str | None = None

    def width(self, multiplier: float) -> int:
        """Return the number of channels at `multiplier`, at least one `multiple`.

        ``multiplier * channels`` to the nearest multiple, halves up (16 * 0.875 = 14).
        """
        if self.fixed is not None:
            return self.channels
        steps = int(multiplier * self.channels / self.multiple + 0.5)
        return max(steps, 1) * self.multiple


@dataclass(frozen=True, slots=True)
class GivenLayer:
    """One convolution or linear layer of the given network.

    Attributes:
        layer: The layer as it is given, batch norm folded.
        inputs: The axis it reads.
        outputs: The axis it writes.
        block: Label of the residual block (or depthwise and pointwise pair) it belongs to; its
            own name where it belongs to none.
        stage: Label of its stage, the layers around it of the same resolution.
        state: ``"searched"`` where its bits can be chosen, ``"unsupported"`` where it cannot be
            quantized, ``"fixed"`` where it always has `FIXED_BITS`: a batch norm with no layer in
            front.
        reason: Why it is not searched, with file and line and what to do; ``""`` where it is.
    """

    layer: Layer
    inputs: Axis
    outputs: Axis
    block: str
    stage: str
    state: LayerState = "searched"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GivenNode:
    """One operation of the given network.

    Attributes:
        node: The operation as it is given.
        channels: The axis of the first dimension of its output.
    """

    node: Node
    channels: Axis = ()


@dataclass(frozen=True, slots=True)
class GivenWeight:
    """One parameter or buffer of the given network whose shape depends on the widths.

    Attributes:
        name: Its key in the state dict, ``layer1.0.conv1.weight``.
        axes: The axis of each dimension; ``()`` where its size never changes.
        reads: The dimension that is summed over, the second of a convolution's or linear layer's
            weights; `None` for weights that act on every channel by itself.
        groups: Of a grouped convolution: the dimension `reads` holds one of so many equal parts
            of its axis, the part of its output channel.
        norm: Path of the batch norm that follows the layer and will be folded into it; ``""``
            where none does.
    """

    name: str
    axes: tuple[Axis, ...]
    reads: int | None = None
    groups: int = 1
    norm: str = ""


@dataclass(frozen=True)
class ModelDescription:
    """A given network as far as a search space needs to know it.

    Attributes:
        name: What messages call it.
        groups: Every channel group; the image's first.
        layers: Every convolution and linear layer, in execution order.
        nodes: Every operation in execution order, the input first.
        notes: What a user should know before a search, sentences: what stays in floating point,
            what cannot be exported and why.
        weights: Every parameter and buffer whose shape depends on a group's width.
    """

    name: str
    groups: tuple[ChannelGroup, ...]
    layers: tuple[GivenLayer, ...]
    nodes: tuple[GivenNode, ...] = ()
    notes: tuple[str, ...] = ()
    weights: tuple[GivenWeight, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every group as given."""
        return tuple(group.channels for group in self.groups)

    def at(self, widths: Sequence[int]) -> LayerGraph:
        """Return the layers and operations of the network with other widths.

        Args:
            widths: Channels of every group.

        Raises:
            ConfigError: If a group would have no channels, a number that its `multiple` does not
                divide, or another number though it is fixed.
        """
        self.check(widths)
        layers = tuple(_at(given, widths) for given in self.layers)
        nodes = tuple(
            replace(
                given.node,
                shape=(count(given.channels, widths), *given.node.shape[1:]),
            )
            if given.channels
            else given.node
            for given in self.nodes
        )
        return LayerGraph(layers, nodes)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelDescription:
        """Return the description that `to_json` gave, also after a round trip through a file."""
        return cls(
            name=document["name"],
            groups=tuple(ChannelGroup(**group) for group in document["groups"]),
            layers=tuple(
                GivenLayer(
                    **given
                    | {
                        "layer": Layer(**_tuples(given["layer"])),
                        "inputs": _axis(given["inputs"]),
                        "outputs": _axis(given["outputs"]),
                    }
                )
                for given in document["layers"]
            ),
            nodes=tuple(
                GivenNode(Node(**_tuples(given["node"])), _axis(given["channels"]))
                for given in document["nodes"]
            ),
            notes=tuple(document["notes"]),
            weights=tuple(
                GivenWeight(**given | {"axes": tuple(_axis(axis) for axis in given["axes"])})
                for given in document["weights"]
            ),
        )

    def check(self, widths: Sequence[int]) -> None:
        """Check that the network can have these widths.

        Raises:
            ConfigError: Naming the group, what it may have and what came.
        """
        if len(widths) != len(self.groups):
            msg = (
                f"Expected one width for each of {len(self.groups)} channel groups of "
                f"{self.name}, got {len(widths)}."
            )
            raise ConfigError(msg)
        for group, width in zip(self.groups, widths, strict=True):
            if group.fixed is not None and width != group.channels:
                msg = (
                    f"The {group.channels} channels of {group.name!r} cannot become {width}: "
                    f"{group.fixed}"
                )
                raise ConfigError(msg)
            if width < 1 or width % group.multiple:
                msg = (
                    f"The channels of {group.name!r} must be a positive multiple of "
                    f"{group.multiple}, got {width}."
                )
                raise ConfigError(msg)


def count(axis: Axis, widths: Sequence[int]) -> int:
    """Return the number of entries of `axis` when its groups have these widths."""
    return sum(widths[segment.group] * segment.factor for segment in axis)


def _at(given: GivenLayer, widths: Sequence[int]) -> Layer:
    layer = given.layer
    in_channels = count(given.inputs, widths) if given.inputs else layer.in_channels
    out_channels = count(given.outputs, widths) if given.outputs else layer.out_channels
    groups = in_channels if layer.is_depthwise else layer.groups
    if gcd(groups, in_channels) != groups:
        msg = f"Layer {layer.name!r}: {groups} groups must divide {in_channels} channels."
        raise ConfigError(msg)
    return replace(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)


def _axis(segments: Sequence[Sequence[int]]) -> Axis:
    return tuple(Segment(*segment) for segment in segments)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
