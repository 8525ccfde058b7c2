# SPDX-License-Identifier: Apache-2.0
"""Channel groups of a network, found from what its forward pass did.

Channels that are the same channels (added to each other, filtered one by one, held in one weight)
have one label. A group is a longest run of labels that always come one after the other, wherever
they come up; so the halves of a chunk, or the parts of a concatenation, are groups of their own
exactly where something tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm

from torch import nn

from bitscout.networks.axis_rules import LayerUse, follow
from bitscout.networks.calls import CallRecord, Value, values_in
from bitscout.networks.channel_axes import ChannelAxes, Entries, reason_of
from bitscout.networks.channel_runs import ChannelRuns
from bitscout.space import Axis, ChannelGroup, GivenWeight

__all__ = ["ChannelGroups", "find_channel_groups"]

INPUT_REASON = "They are the channels of the image."
OUTPUT_REASON = "They are the outputs of the network, one for each class."


def find_channel_groups(record: CallRecord) -> ChannelGroups:
    """Return the channel groups of a network, and the axes of every value of the forward pass.

    What depends on the number of channels in a way that is not followed makes them `fixed`, with
    the operation and its line as the reason. What only *may* depend on it (a size written as a
    number in the network's own code) is not seen here: build the network to find out.

    Args:
        record: Of one forward pass.
    """
    axes = ChannelAxes()
    image = record.input
    pixels = [None] * max(len(image.shape) - 2, 0)
    entries = axes.fresh(image.shape[1], "input")
    axes.fix(entries, INPUT_REASON)
    axes.put(image, [None, entries, *pixels])
    uses = [use for use in (follow(call, axes) for call in record.calls) if use is not None]
    for value in values_in(record.output):
        for dim in axes.of(value):
            axes.fix(dim, OUTPUT_REASON, is_first=True)
    return ChannelGroups(record, axes, tuple(uses))


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """The channel groups of a network.

    Attributes:
        record: The forward pass.
        axes: Entries of every value.
        uses: The calls of convolutions and linear layers.
    """

    record: CallRecord
    axes: ChannelAxes
    uses: tuple[LayerUse, ...]

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The groups: the image's first, then in the order in which layers write them."""
        return self._found[0]

    @property
    def weights(self) -> tuple[GivenWeight, ...]:
        """Every parameter and buffer that has channels of a group."""
        return self._found[1]

    def axis(self, value: Value, dim: int = 1) -> Axis:
        """Return the axis of one dimension of a value; ``()`` where it has no channels."""
        dims = self.axes.dims.get(value.index)
        if dims is None or not -len(dims) <= dim < len(dims):
            return ()
        return self._runs.axis(dims[dim])

    @cached_property
    def _runs(self) -> ChannelRuns:
        labels, reasons = self.axes.labels()
        return ChannelRuns(labels, reasons, self._arrays, self._ordered)

    @property
    def _arrays(self) -> list[Entries]:
        return [e for dims in self.axes.dims.values() for e in dims if e is not None]

    @property
    def _ordered(self) -> list[Entries]:
        """Entries of the image and of every layer's channels, in order of execution."""
        found = [self.axes.dims[self.record.input.index][1]]
        for use in self.uses:
            found += [self.axes.of(use.x)[use.x_dim], self.axes.of(use.y)[use.x_dim]]
        return [entries for entries in found if entries is not None]

    @cached_property
    def _found(self) -> tuple[tuple[ChannelGroup, ...], tuple[GivenWeight, ...]]:
        runs = self._runs
        names = self._names()
        groups = [
            ChannelGroup(names[i], len(chain), fixed=runs.reason(i))
            for i, chain in enumerate(runs.chains)
        ]
        for use in self.uses:
            if use.groups > 1:
                self._constrain(groups, use)
        return tuple(groups), tuple(self._weights())

    def _names(self) -> dict[int, str]:
        names = {0: "input"}
        for use in self.uses:
            path = use.call.path or use.call.function
            start = 0
            segments = self.axis(use.y, use.x_dim)
            for group, factor in segments:
                end = start + len(self._runs.chains[group]) * factor
                names.setdefault(group, path if len(segments) == 1 else f"{path}[{start}:{end}]")
                start = end
        for index, chain in enumerate(self._runs.chains):
            if index not in names:
                names[index] = self.axes.name_of(self._runs.first_entry(int(chain[0])))
        return _unique(names)

    def _constrain(self, groups: list[ChannelGroup], use: LayerUse) -> None:
        """Let a grouped convolution say what its channels must be multiples of."""
        for value in (use.x, use.y):
            axis = self.axis(value, use.x_dim)
            is_plain = len(axis) == 1 and axis[0].factor == 1
            for segment in axis:
                group = groups[segment.group]
                if is_plain and group.channels % use.groups == 0:
                    group = replace(group, multiple=lcm(group.multiple, use.groups))
                elif group.fixed is None:
                    problem = f"splits them, with others, into {use.groups} groups"
                    group = replace(group, fixed=reason_of(use.call, problem))
                groups[segment.group] = group

    def _weights(self) -> Iterator[GivenWeight]:
        layers = dict(self._layer_weights())
        for index, value in self.axes.values.items():
            if not value.name:
                continue
            axes = [self._runs.axis(dim) for dim in self.axes.dims[index]]
            given = layers.get(index, GivenWeight(value.name, ()))
            if given.reads is not None:
                axes[given.reads] = given.axes[0]
            if any(axes):
                yield replace(given, axes=tuple(axes))

    def _layer_weights(self) -> Iterator[tuple[int, GivenWeight]]:
        """Yield the parameters of layers, the axis they sum over as their only one."""
        for use in self.uses:
            parameter = self._parameter(use)
            if parameter is None:
                continue
            is_depthwise = use.weight.shape[1] == 1 < use.x.shape[use.x_dim] and use.groups == 1
            dim = None if is_depthwise else self._same_dim(parameter, use.weight)
            axis = self.axis(use.x, use.x_dim)
            given = GivenWeight(parameter.name, (axis,), dim, use.groups, self._norm(use))
            yield parameter.index, given

    def _parameter(self, use: LayerUse) -> Value | None:
        """Return the parameter that a layer's weights are or are computed from."""
        found = self.record.weights_of(use.weight)
        return next((v for v in found if v.is_parameter and len(v.shape) > 1), None)

    def _same_dim(self, parameter: Value, weight: Value) -> int | None:
        """Return the dimension of `parameter` that became the second one of `weight`."""
        wanted = self.axes.of(weight)[1]
        dims = self.axes.of(parameter)
        return next((i for i, entries in enumerate(dims) if entries is wanted), None)

    def _norm(self, use: LayerUse) -> str:
        """Return the path of the batch norm that alone reads the layer, ``""`` if none does."""
        readers = self.record.readers(use.y)
        if len(readers) != 1 or readers[0].function != "batch_norm":
            return ""
        is_module = isinstance(readers[0].module, nn.modules.batchnorm._BatchNorm)
        return readers[0].path if is_module else ""


def _unique(names: Mapping[int, str]) -> dict[int, str]:
    seen: dict[str, int] = {}
    result = {}
    for index, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        result[index] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return result
