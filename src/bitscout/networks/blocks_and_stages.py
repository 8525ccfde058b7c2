# SPDX-License-Identifier: Apache-2.0
"""Which layers belong together: residual blocks, and stages of one resolution.

The configurations of k-means TPE look tied (Table IV of [Azizi2023]_): one bit-width for the two
convolutions of a residual block or for a depthwise convolution and the pointwise one behind it,
one width multiplier for a stage. The graph shows both.

References:
    .. [Azizi2023] S. Azizi, M. Nazemi, A. Fayyazi, M. Pedram. Sensitivity-Aware Mixed-Precision
       Quantization and Width Optimization of Deep Neural Networks Through Cluster-Based
       Tree-Structured Parzen Estimation. arXiv:2308.06422.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from bitscout.networks.found_layers import FoundLayer
from bitscout.networks.network_graph import FoundNode, NetworkGraph

__all__ = ["block_labels", "stage_labels"]


def block_labels(graph: NetworkGraph) -> dict[str, str]:
    """Return the label of every layer's block, by the name of the layer.

    An addition joins two paths from a common ancestor; the layers on them, that of the shortcut
    included, form a block. Of additions inside each other the innermost counts, but additions
    with one common ancestor (several branches), or in one module (a branch inside a block), make
    one block. A depthwise convolution and the 1x1 convolution that reads it form a block where
    they belong to none. Any other layer is a block of its own.

    A block is called after the longest module path its layers have in common, where no other
    block is called so; else after its first layer.
    """
    return _Blocks(graph).labels()


def stage_labels(graph: NetworkGraph, blocks: Mapping[str, str]) -> dict[str, str]:
    """Return the label of every layer's stage, ``stage1``, ``stage2``..., by name.

    A stage is a run of blocks, in the order of execution, whose results have the same resolution.
    A layer on single pixels (a gate, a classifier) belongs to the stage before it, and a layer
    beside a stage rather than behind it (a branch that will be reduced) to the one before.

    Args:
        graph: The network.
        blocks: Of `block_labels`.
    """
    ancestors = _Ancestors(graph)
    layers = {found.layer.name: found for found in graph.layers}
    sums = _Blocks(graph).sizes()
    members: dict[str, list[str]] = {}
    for name in layers:
        members.setdefault(blocks[name], []).append(name)
    stages: list[tuple[tuple[int, ...], list[str]]] = []
    for names in members.values():
        size = sums.get(names[0]) or _block_size([layers[name] for name in names])
        if not stages or (size and size != stages[-1][0]):
            is_behind = not stages or any(
                ancestors.is_before(one, names[-1]) for one in stages[-1][1]
            )
            earlier = next((stage for stage in reversed(stages) if stage[0] == size), None)
            if earlier is not None and not is_behind:
                earlier[1].extend(names)
                continue
            stages.append((size, []))
        stages[-1][1].extend(names)
    return {
        name: f"stage{number}" for number, (_, names) in enumerate(stages, 1) for name in names
    }


def _block_size(layers: Sequence[FoundLayer]) -> tuple[int, ...]:
    """Return the resolution of a block's results: that of its last layer but its gates."""
    sizes = [_size(found) for found in layers]
    return next((size for size in reversed(sizes) if prod(size) > 1), ())


def _size(found: FoundLayer) -> tuple[int, ...]:
    """Return the resolution of a layer's results, or the number of tokens."""
    shape = found.y.shape
    return shape[2:] if found.call.function.startswith("conv") else shape[1:-1]


class _Ancestors:
    """Which operations come before which, as sets of bits."""

    def __init__(self, graph: NetworkGraph) -> None:
        self.names = [found.node.name for found in graph.nodes]
        self.index = {name: index for index, name in enumerate(self.names)}
        self._before: list[int] = []
        for position, found in enumerate(graph.nodes):
            before = 1 << position
            for name in found.node.inputs:
                before |= self._before[self.index[name]]
            self._before.append(before)

    def of(self, name: str) -> int:
        """Return the operations before `name` and itself."""
        return self._before[self.index[name]]

    def is_before(self, name: str, other: str) -> bool:
        """Whether the result of `name` reaches `other`."""
        # Some layers are parts of one operation, which has the name of the first of them.
        is_known = name in self.index and other in self.index
        return is_known and bool(self.of(other) >> self.index[name] & 1)

    def between(self, start: int, ends: Sequence[str]) -> list[str]:
        """Return the operations on paths from operation number `start` to any of `ends`."""
        reached = 0
        for end in ends:
            reached |= self.of(end)
        return [
            name
            for position, name in enumerate(self.names)
            if position > start and reached >> position & 1 and self._before[position] >> start & 1
        ]


class _Blocks:
    def __init__(self, graph: NetworkGraph) -> None:
        self._graph = graph
        self._layers = {found.layer.name: found.layer for found in graph.layers}
        self._ancestors = _Ancestors(graph)
        # By layer: its block, the number of an addition (or of a depthwise convolution).
        self._block: dict[str, int] = {}
        self._fork: dict[int, int] = {}
        self._path: dict[int, str] = {}
        for node in graph.nodes:
            if node.node.op == "add":
                self._join(node)
        self._pair_depthwise()

    def _join(self, node: FoundNode) -> None:
        """Make a block of what lies between an addition and where its operands part."""
        ends = node.node.inputs
        common = self._ancestors.of(ends[0]) & self._ancestors.of(ends[1])
        fork = common.bit_length() - 1
        inside = [name for name in self._ancestors.between(fork, ends) if name in self._layers]
        number = self._ancestors.index[node.node.name]
        self._fork[number], self._path[number] = fork, node.path
        for name in inside:
            inner = self._block.get(name)
            if inner is not None and self._is_part(inner, number):
                for other, block in self._block.items():
                    if block == inner:
                        self._block[other] = number
        for name in inside:
            self._block.setdefault(name, number)

    def _is_part(self, inner: int, outer: int) -> bool:
        is_same_module = bool(self._path[outer]) and self._path[inner] == self._path[outer]
        return self._fork[inner] == self._fork[outer] or is_same_module

    def _pair_depthwise(self) -> None:
        """Join a depthwise convolution with the 1x1 convolution that reads it."""
        for found in self._graph.nodes:
            node = found.node
            layer = self._layers.get(node.name)
            read = self._layers.get(node.inputs[0]) if layer is not None else None
            if (
                layer is None
                or read is None
                or not {layer.name, read.name}.isdisjoint(self._block)
            ):
                continue
            if read.is_depthwise and layer.kernel == (1, 1) and layer.kind == "conv":
                number = self._ancestors.index[read.name]
                self._block[read.name] = self._block[layer.name] = number
                self._fork[number], self._path[number] = number, ""

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return, for the layers of residual blocks, the resolution of their addition."""
        found = {
            name: self._graph.nodes[number].value.shape
            for name, number in self._block.items()
            if self._graph.nodes[number].node.op == "add"
        }
        return {name: shape[2:] for name, shape in found.items() if len(shape) == 4}

    def labels(self) -> dict[str, str]:
        """Return the label of every layer's block."""
        members: dict[int, list[str]] = {}
        for name in self._layers:
            if name in self._block:
                members.setdefault(self._block[name], []).append(name)
        paths = {number: _common_path(names) for number, names in members.items()}
        taken = [*paths.values(), *(name for name in self._layers if name not in self._block)]
        label = {
            number: path if path and taken.count(path) == 1 else members[number][0]
            for number, path in paths.items()
        }
        return {
            name: label[self._block[name]] if name in self._block else name
            for name in self._layers
        }


def _common_path(names: Sequence[str]) -> str:
    parts = [name.split(".") for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)
