# SPDX-License-Identifier: Apache-2.0
"""Channel groups of a network, found from what its forward pass did.

Channels that are the same channels (added to each other, filtered one by one, held in one weight)
have one label. A group is a longest run of labels that always come one after the other, wherever
they come up; so the halves of a chunk, or the parts of a concatenation, are groups of their own
exactly where something tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm

import numpy as np
from torch import nn

from bitscout.networks.axis_rules import LayerUse, follow
from bitscout.networks.calls import CallRecord, Value, values_in
from bitscout.networks.channel_axes import ChannelAxes, Entries, reason_of
from bitscout.space import Axis, ChannelGroup, GivenWeight, Segment

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
    def _runs(self) -> _Runs:
        labels, reasons = self.axes.labels()
        return _Runs(labels, reasons, self._arrays, self._ordered)

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


class _Runs:
    """Labels in longest runs that are never told apart.

    Args:
        labels: Of every entry.
        reasons: By label: why its number cannot change.
        arrays: The entries of every dimension that has any.
        ordered: Those of layers, in the order that numbers the groups. What no layer reads or
            writes has no group.
    """

    def __init__(
        self,
        labels: Entries,
        reasons: Mapping[int, str],
        arrays: Iterable[Entries],
        ordered: Iterable[Entries],
    ) -> None:
        self._labels = labels
        self._reasons = reasons
        self._axes: dict[int, Axis] = {}
        ordered = list(ordered)
        is_layer = np.zeros(len(labels) + 1, bool)
        for entries in ordered:
            is_layer[labels[entries]] = True
        follows = _followers(labels, _distinct(arrays), is_layer)
        self.chains: list[list[int]] = []
        # By label: its group and its place in it.
        self._places: dict[int, tuple[int, int]] = {}
        for entries in _distinct(ordered):
            for label in _compressed(labels[entries])[0].tolist():
                if label not in self._places:
                    self._add_chain(label, follows)

    def _add_chain(self, label: int, follows: tuple[Mapping[int, int], Mapping[int, int]]) -> None:
        after, before = follows
        while label in before:
            label = before[label]
        chain = [label]
        while label in after:
            label = after[label]
            chain.append(label)
        for place, member in enumerate(chain):
            self._places[member] = len(self.chains), place
        self.chains.append(chain)

    def axis(self, entries: Entries | None) -> Axis:
        """Return the segments of one dimension."""
        if entries is None or not len(entries):
            return ()
        labels, counts = _compressed(self._labels[entries])
        segments = []
        for label, factor in zip(labels.tolist(), counts.tolist(), strict=True):
            group, place = self._places.get(label, (-1, 0))
            if group < 0:
                return ()
            if place == 0:
                segments.append(Segment(group, factor))
        return tuple(segments)

    def reason(self, group: int) -> str | None:
        """Return why the number of a group's channels cannot change."""
        found = (self._reasons.get(label) for label in self.chains[group])
        return next((reason for reason in found if reason is not None), None)

    def first_entry(self, label: int) -> int:
        """Return the first entry with a label."""
        return int(np.argmax(self._labels == label))


def _followers(
    labels: Entries, arrays: Iterable[Entries], is_layer: np.ndarray
) -> tuple[dict[int, int], dict[int, int]]:
    """Return, for labels that always have the same one after them, and it them before, which.

    Returns:
        By label: the next; by label: the one before.
    """
    end = len(labels)  # Stands for whatever cuts a run.
    pairs = []
    for entries in arrays:
        run, counts = _compressed(labels[entries])
        if not is_layer[run].all():
            continue
        padded = np.concatenate([[end], run, [end]])
        first, second = padded[:-1].copy(), padded[1:].copy()
        # Another factor is another segment: cut there, from both sides.
        cuts = np.flatnonzero(np.diff(counts)) + 1
        pairs += [np.stack([np.delete(first, cuts), np.delete(second, cuts)])]
        pairs += [np.stack([first[cuts], np.full(len(cuts), end)])]
        pairs += [np.stack([np.full(len(cuts), end), second[cuts]])]
    if not pairs:
        return {}, {}
    unique = np.unique(np.concatenate(pairs, axis=1), axis=1)
    n_after = np.bincount(unique[0], minlength=end + 1)
    n_before = np.bincount(unique[1], minlength=end + 1)
    n_after[end] = n_before[end] = 2
    keep = (n_after[unique[0]] == 1) & (n_before[unique[1]] == 1)
    kept = unique[:, keep].T.tolist()
    return dict(kept), {second: first for first, second in kept}


def _compressed(labels: Entries) -> tuple[Entries, Entries]:
    """Return labels without repetitions in a row, and how often each is repeated."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1])
    return labels[starts], np.diff(np.concatenate([starts, [len(labels)]]))


def _distinct(arrays: Iterable[Entries]) -> list[Entries]:
    """Return every array object once."""
    return list({id(entries): entries for entries in arrays if len(entries)}.values())


def _unique(names: Mapping[int, str]) -> dict[int, str]:
    seen: dict[str, int] = {}
    result = {}
    for index, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        result[index] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return result
