# SPDX-License-Identifier: Apache-2.0
"""The order of calls that computes a graph in C, and what every tensor is there.

Differences from the graph, none of which changes an integer that is handed out:

* Tensors are ``(H, W, C)``. A `Flatten` moves nothing if everything behind it can be told the
  other order of features: linear layers, whose weights are reordered when they are written.
* Codes are an ``int8_t`` each: unsigned ones of 8 bits, and their zero point, less 128.
* The sums of a layer are never stored if only rescalings of one operand read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError
from bitscout.export.graph import (
    Conv,
    Flatten,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    Op,
    Relu,
    Rescale,
)
from bitscout.export.memory_plan import MemoryPlan, MemoryStep, plan_memory

__all__ = ["Call", "Program", "code_offset", "is_depthwise", "is_flat", "scratch_sizes"]

INT16_MAX = 2**15 - 1

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Call:
    """One call in C.

    Attributes:
        op: What it computes; `None` hands out the result.
        results: The rescalings computed with a layer, or `op` itself.
    """

    op: Op | None
    results: tuple[Op, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A graph, ready to be written.

    Attributes:
        graph: Where it is from.
        calls: In the order they run.
        memory: Where tensors lie.
        views: Tensors that are others under another name.
        orders: For one-dimensional tensors in another order: the graph's index of every element.
        direct_output: Tensor that is computed into the caller's memory; `None` if it is copied.
    """

    graph: IntegerGraph
    calls: tuple[Call, ...]
    memory: MemoryPlan
    views: Mapping[str, str]
    orders: Mapping[str, IntArray]
    direct_output: str | None

    @classmethod
    def of(cls, graph: IntegerGraph) -> Program:
        """Plan the calls and the memory of a graph.

        Raises:
            UnsupportedError: If a dimension does not fit 15 bits.
        """
        ops = _needed(graph)
        for op in ops:
            _check_sizes(op)
        views, orders = _views(graph, ops)
        calls = _calls(graph, ops, views)
        is_direct = graph[graph.output].grid.is_sums and not graph.readers(graph.output)
        direct: str | None = graph.output
        if not is_direct or direct in views or isinstance(graph[graph.output], Input):
            direct = None
            calls.append(Call(None, ()))
        steps = [_memory_step(graph, call, views, direct) for call in calls]
        return cls(graph, tuple(calls), plan_memory(steps), views, orders, direct)

    def home(self, name: str) -> str:
        """Return the tensor whose memory `name` is in."""
        return _resolve(name, self.views)


def code_offset(grid: Grid) -> int:
    """Return what is subtracted from codes to store them in an ``int8_t``."""
    return 128 if grid.bit_width == 8 and not grid.is_signed else 0


def is_flat(shape: tuple[int, ...]) -> bool:
    """Whether the order of elements is the same with channels first and last."""
    return len(shape) == 1 or shape[0] == 1 or shape[1] * shape[2] == 1


def is_depthwise(op: Op) -> bool:
    """Whether every output channel reads one input channel of several."""
    return isinstance(op, Conv) and op.groups > 1 and op.weight.shape[1] == 1


def scratch_sizes(op: Op) -> tuple[int, int]:
    """Return bytes of a layer's unpacked weights and of its copied windows."""
    if isinstance(op, Linear):
        return (0 if op.weight_bits == 8 else 2 * op.weight.shape[1]), 0
    if not isinstance(op, Conv):
        return 0, 0
    window = op.weight[0].size
    if is_depthwise(op):
        return 4 * window, 4 * window
    return (0 if op.weight_bits == 8 else 2 * window), (2 * window if any(op.pads) else 0)


def _needed(graph: IntegerGraph) -> list[Op]:
    """Return the inputs and everything the output depends on."""
    needed = {graph.output}
    for op in reversed(graph.ops):
        if op.name in needed:
            needed.update(op.inputs)
    return [op for op in graph.ops if op.name in needed or isinstance(op, Input)]


def _check_sizes(op: Op) -> None:
    sizes = list(op.shape[1:])
    if isinstance(op, Conv):
        # A pointer is never formed further out than this.
        sizes += [*op.weight.shape[2:], *op.stride, *map(abs, op.pads), *op.dilation]
    n_elements = int(np.prod(op.shape))
    if max(sizes, default=0) > INT16_MAX or 4 * n_elements >= 2**31:
        msg = (
            f"Operation {op.name!r} of shape {op.shape} is too large for C: heights, widths, "
            f"strides and pads go up to {INT16_MAX}, tensors to 2 GiB."
        )
        raise UnsupportedError(msg)


def _views(graph: IntegerGraph, ops: list[Op]) -> tuple[dict[str, str], dict[str, IntArray]]:
    """Return the flattened tensors that need no copy, and the orders they bring about."""
    views, orders = {}, {}
    for op in ops:
        if isinstance(op, Flatten):
            shape = graph[op.inputs[0]].shape
            if is_flat(shape):
                views[op.name] = op.inputs[0]
            elif _takes_any_order(graph, op.name):
                views[op.name] = op.inputs[0]
                orders[op.name] = np.arange(np.prod(shape)).reshape(shape[0], -1).T.ravel()
        if isinstance(op, Rescale | Relu | Flatten) and op.inputs[0] in orders:
            orders[op.name] = orders[op.inputs[0]]
    return views, orders


def _takes_any_order(graph: IntegerGraph, name: str) -> bool:
    """Whether all that follows is element by element up to linear layers."""
    return name != graph.output and all(
        isinstance(reader, Linear)
        or (
            isinstance(reader, Rescale | Relu | Flatten)
            and len(reader.inputs) == 1
            and _takes_any_order(graph, reader.name)
        )
        for reader in graph.readers(name)
    )


def _calls(graph: IntegerGraph, ops: list[Op], views: Mapping[str, str]) -> list[Call]:
    names = {op.name for op in ops}
    fused: set[str] = set()
    calls = []
    for op in ops:
        if isinstance(op, Input) or op.name in views or op.name in fused:
            continue
        results: tuple[Op, ...] = (op,)
        if isinstance(op, Conv | Linear) and op.name != graph.output:
            readers = [reader for reader in graph.readers(op.name) if reader.name in names]
            if all(_is_plain_rescale(reader) for reader in readers):
                results = tuple(readers)
                fused.update(reader.name for reader in readers)
        calls.append(Call(op, results))
    return calls


def _is_plain_rescale(op: Op) -> bool:
    return isinstance(op, Rescale) and len(op.inputs) == 1 and bool((op.divisor == 1).all())


def _memory_step(
    graph: IntegerGraph, call: Call, views: Mapping[str, str], direct: str | None
) -> MemoryStep:
    if call.op is None:
        return MemoryStep("hand out", (_resolve(graph.output, views),), {})
    op = call.op
    writes = {
        result.name: int(np.prod(result.shape)) * (4 if result.grid.is_sums else 1)
        for result in call.results
        if result.name != direct
    }
    reads = tuple(_resolve(name, views) for name in op.inputs)
    in_place: tuple[str, ...] = ()
    if isinstance(op, Rescale | Relu):
        in_place = tuple(
            _resolve(name, views)
            for name in op.inputs
            if graph[name].grid.is_sums == op.grid.is_sums
        )
    scratch = sum(-(-n_bytes // 4) * 4 for n_bytes in scratch_sizes(op))
    return MemoryStep(op.name, reads, writes, scratch, in_place)


def _resolve(name: str, views: Mapping[str, str]) -> str:
    while name in views:
        name = views[name]
    return name
