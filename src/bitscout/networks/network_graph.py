# SPDX-License-Identifier: Apache-2.0
"""From the calls of a forward pass to layers and the operations between them.

An operation is a tensor that has to be in memory. What is computed of one tensor value by value
(an activation, a batch norm behind a layer, ``x * sigmoid(x)``) belongs to the operation that made
it, and the padding of a layer or pool to the layer or pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

from bitscout.core import LayerGraph, Node, Op
from bitscout.networks.calls import CHANGED_THROUGH_VIEW, Call, CallRecord, Value
from bitscout.networks.found_layers import FoundLayer, find_layers, with_use
from bitscout.networks.function_kinds import (
    MATRIX_PRODUCTS,
    MOVES,
    POINTWISE,
    POOLS,
    REPEATING,
    RESHAPES,
    STORAGE,
    WINDOWED,
)

__all__ = ["FoundNode", "NetworkGraph", "network_graph"]

_SPATIAL: Final = frozenset((2, 3))


@dataclass(frozen=True, eq=False)
class FoundNode:
    """An operation and the tensor it makes.

    Attributes:
        node: The operation; its shape is that of `value` without the batch.
        value: What it makes, before the activations that belong to it.
        path: Of the module it runs in.
    """

    node: Node
    value: Value
    path: str


@dataclass(frozen=True, eq=False)
class NetworkGraph:
    """What a network is made of.

    Attributes:
        layers: In the order of execution.
        nodes: In the order of execution, the input first.
        folded: The calls of batch norms that belong to the layer before them.
    """

    layers: tuple[FoundLayer, ...]
    nodes: tuple[FoundNode, ...]
    folded: tuple[Call, ...] = ()

    @property
    def plain(self) -> LayerGraph:
        """The layers and operations alone."""
        return LayerGraph(
            tuple(found.layer for found in self.layers), tuple(found.node for found in self.nodes)
        )


def network_graph(record: CallRecord) -> NetworkGraph:
    """Return the layers and operations of a forward pass.

    Nodes are named by the module that computes them; an operation written in the ``forward`` of
    a larger module by that module's path and the operation, ``stage1.0.add``. A layer that runs
    several times is one layer whose outputs lie one below the other, and one node a run.
    """
    builder = _Builder(record)
    for call in record.calls:
        if call.is_result:
            builder.add(call)
    return NetworkGraph(
        tuple(builder.layers.values()), tuple(builder.nodes.values()), tuple(builder.folded)
    )


class _Builder:
    def __init__(self, record: CallRecord) -> None:
        self._record = record
        self._batch = record.input.shape[0]
        self.layers: dict[str, FoundLayer] = {}
        self.nodes: dict[str, FoundNode] = {}
        self.folded: list[Call] = []
        # By index of a value: the node it comes from, the layer whose raw output it is, and its
        # height and width before padding.
        self._source: dict[int, str] = {}
        self._raw: dict[int, str] = {}
        self._unpadded: dict[int, tuple[int, int]] = {}
        # Layers keep their names; an operation in the same module takes another.
        self._layer_names = Counter(
            found.layer.name
            for call in record.calls
            if call.is_result
            for found in find_layers(record, call, None)
        )
        self._put(self._free("input"), "input", (), record.input, "")

    def add(self, call: Call) -> None:
        """Add what `call` means."""
        unpadded = self._unpadded.get(call.results_read[0].index)
        found = find_layers(self._record, call, unpadded)
        if found:
            self._add_layers(call, found)
        else:
            handler = _HANDLERS.get(call.function, _Builder._other)
            handler(self, call)

    def _add_layers(self, call: Call, found: list[FoundLayer]) -> None:
        sources = self._sources(call)
        first, *others = found
        for other in others:
            self.layers.setdefault(other.layer.name, other)
        name, op = first.layer.name, first.layer.kind
        if name not in self.layers:
            self.layers[name] = first
            self._put(name, "linear" if op == "linear" else "conv", sources, first.y, call.path)
            if name in self.nodes:
                self._raw[first.y.index] = name
        else:
            self.layers[name] = with_use(self.layers[name], first)
            self._put(self._free(f"{name}_1"), "other", sources, first.y, call.path)
        for value in call.writes[1:]:
            self._pass(first.y, value)

    def _norm(self, call: Call) -> None:
        x = call.results_read[0]
        layer = self._raw.get(x.index)
        if layer is None or len(self._record.readers(x)) > 1 or self._layer_names[layer] > 1:
            self._other(call)
            return
        found = self.layers[layer]
        self.layers[layer] = replace(found, layer=replace(found.layer, has_bias=True))
        self.folded.append(call)
        self._pass(x, call.writes[0])

    def _pass_on(self, call: Call) -> None:
        for value in call.writes:
            self._pass(call.results_read[0], value)

    def _pointwise(self, call: Call) -> None:
        read, y = call.results_read, call.writes[0]
        sources = self._sources(call)
        is_same_shape = all(value.shape == y.shape for value in read)
        if len(read) == 2 and call.function == "add" and is_same_shape:
            self._node(call, "add")
        elif is_same_shape and len(set(sources)) == 1:
            self._pass(read[0], y)
        elif len(read) == 2 and call.function == "mul":
            self._node(call, "multiply")
        else:
            self._other(call)

    def _pad(self, call: Call) -> None:
        """Leave padding to the layers and pools that read it, and zero channels to additions."""
        x, y = call.results_read[0], call.writes[0]
        readers = {reader.function for reader in self._record.readers(y)}
        is_spatial = len(x.shape) == 4 and x.shape[:2] == y.shape[:2]
        is_of_channels = len(x.shape) == 4 and x.shape[2:] == y.shape[2:]
        if is_spatial and readers <= {"conv2d", *WINDOWED}:
            self._pass(x, y)
            self._unpadded[y.index] = self._unpadded.get(x.index, (x.shape[2], x.shape[3]))
        elif is_of_channels and readers == {"add"}:
            self._pass(x, y)
        else:
            self._node(call, "rearrange")

    def _pool(self, call: Call) -> None:
        x = call.results_read[0]
        op: Op = "avg_pool" if POOLS[call.function] == "avg_pool" else "max_pool"
        if call.function not in ("mean", "amax"):
            window = call.argument(1, "kernel_size") if call.function in WINDOWED else None
            self._node(call, op, None if window is None else _window(window))
            return
        dims = _dims(call.argument(1, "dim"), len(x.shape))
        if len(x.shape) == 4 and dims == _SPATIAL:
            self._node(call, op)
        elif 0 not in dims and (len(x.shape) < 4 or dims <= _SPATIAL):
            first = 2 in dims or len(x.shape) < 4
            size = prod(x.shape[dim] for dim in dims)
            self._node(call, op, (size, 1) if first else (1, size))
        else:
            self._other(call)

    def _reshape(self, call: Call) -> None:
        x, y = call.results_read[0], call.writes[0]
        if x.shape == y.shape:
            self._pass(x, y)
        else:
            self._node(call, "flatten")

    def _move(self, call: Call) -> None:
        x = call.results_read[0]
        is_view = call.function in ("getitem", "select") and len(call.results_read) == 1
        if is_view and all(prod(y.shape) == prod(x.shape) for y in call.writes):
            self._reshape(call)
        else:
            self._node(call, "rearrange")

    def _concat(self, call: Call) -> None:
        y = call.writes[0]
        dim = call.argument(1, "dim", call.kwargs.get("axis", 0))
        is_of_channels = dim % len(y.shape) == 1
        self._node(call, "concat" if is_of_channels else "rearrange")

    def _product(self, call: Call) -> None:
        self._node(call, "matmul" if len(call.results_read) > 1 else "other")

    def _other(self, call: Call) -> None:
        self._node(call, "other")

    def _node(self, call: Call, op: Op, kernel: tuple[int, int] | None = None) -> None:
        """Add an operation for every tensor that `call` makes."""
        sources = self._sources(call)
        for value in call.writes:
            self._put(self._name(call, op), op, sources, value, call.path, kernel)

    def _put(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        value: Value,
        path: str,
        kernel: tuple[int, int] | None = None,
    ) -> None:
        node = Node(name, op, inputs, self._shape(value), kernel)
        self.nodes[name] = FoundNode(node, value, path)
        self._source[value.index] = name

    def _pass(self, x: Value, y: Value) -> None:
        """Let `y` stand for the node `x` came from; the padding `x` has is not counted."""
        self._source[y.index] = self._source[x.index]
        if x.index in self._unpadded and y.shape == x.shape:
            self._unpadded[y.index] = self._unpadded[x.index]

    def _sources(self, call: Call) -> tuple[str, ...]:
        return tuple(self._source[value.index] for value in call.results_read)

    def _shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape for one input, with as many elements."""
        first, *rest = value.shape or (1,)
        if first == self._batch:
            return tuple(rest)
        if first % self._batch == 0:
            return (first // self._batch, *rest)
        return (max(1, prod(value.shape) // self._batch),)

    def _name(self, call: Call, op: Op) -> str:
        is_leaf = next(call.module.children(), None) is None
        is_alone = is_leaf and call.path and call.path not in self._layer_names
        return self._free(call.path if is_alone else f"{call.path}.{op}".lstrip("."))

    def _free(self, name: str) -> str:
        taken = sum(other == name or other.startswith(f"{name}_") for other in self.nodes)
        free = f"{name}_{taken}" if name in self.nodes else name
        while free in self.nodes or free in self._layer_names:
            free += "_"
        return free


_Handler = Callable[[_Builder, Call], None]
_HANDLERS: Final[Mapping[str, _Handler]] = {
    **dict.fromkeys(MOVES, _Builder._move),
    **dict.fromkeys(POINTWISE, _Builder._pointwise),
    **dict.fromkeys((*STORAGE, *REPEATING), _Builder._pass_on),
    **dict.fromkeys(POOLS, _Builder._pool),
    **dict.fromkeys(RESHAPES, _Builder._reshape),
    **dict.fromkeys(MATRIX_PRODUCTS, _Builder._product),
    "batch_norm": _Builder._norm,
    "pad": _Builder._pad,
    "cat": _Builder._concat,
    CHANGED_THROUGH_VIEW: _Builder._other,
}


def _dims(dims: Any, n_dims: int) -> frozenset[int]:  # noqa: ANN401  # as PyTorch takes it
    if dims is None or dims == ():
        return frozenset(range(n_dims))
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return frozenset(dim % n_dims for dim in listed)


def _window(size: Any) -> tuple[int, int]:  # noqa: ANN401  # as PyTorch's poolings take it
    """Return height and width from one number, or a sequence of one or two."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return int(sizes[0]), int(sizes[-1])
