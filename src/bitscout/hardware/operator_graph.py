# SPDX-License-Identifier: Apache-2.0
"""Operators, the tensors between them, and the memory that one order of them needs.

Notation, here and in `operator_order`:

    tensor   what one operator writes, or an input of the network; both have one index
    kept     a tensor nobody reads: a result of the network, in memory until the end
    live     from the operator that writes a tensor (inputs: from the start) to its last reader
    step     running one operator: every live tensor and the one it writes are in memory at once

Some operators may write over an operand of the same size that nobody reads later; their step
then needs no memory for the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["MemoryProfile", "OperatorGraph", "memory_profile"]


@dataclass(frozen=True)
class OperatorGraph:
    """Operators and the tensors between them; a tensor is named like its operator.

    Attributes:
        names: Of the tensors: first the inputs, then the operators in the given order.
        reads: Indices of the tensors each operator reads, each once; empty for an input.
        replaces: Those of them whose place the result may take, if it has their size and nobody
            reads them later; empty for most.
        n_inputs: How many of the tensors are inputs.
    """

    names: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]
    replaces: tuple[tuple[int, ...], ...]
    n_inputs: int = 1

    @cached_property
    def n_readers(self) -> tuple[int, ...]:
        """How many operators read each tensor."""
        counts = [0] * len(self.names)
        for reads in self.reads:
            for tensor in reads:
                counts[tensor] += 1
        return tuple(counts)

    @cached_property
    def segments(self) -> tuple[range, ...]:
        """Runs of operators, by index, whose order is not settled by what they read."""
        n = len(self.names)
        first_reader, last_read = [n] * n, [-1] * n
        for operator in range(n - 1, self.n_inputs - 1, -1):
            for tensor in self.reads[operator]:
                first_reader[tensor] = operator
                if tensor >= self.n_inputs:
                    last_read[operator] = max(last_read[operator], tensor)
        # Is everything after it a descendant: does each of them read it, or one of them?
        oldest = n
        leads = [False] * n
        for operator in range(n - 1, self.n_inputs - 1, -1):
            leads[operator] = oldest >= operator
            oldest = min(oldest, last_read[operator])
        segments, start, newest = [], -1, -1
        for operator in range(self.n_inputs, n):
            # And is everything before it an ancestor: is each of them read by it, or by one?
            is_settled = leads[operator] and newest <= operator
            if is_settled and start >= 0:
                segments.append(range(start, operator))
                start = -1
            elif not is_settled and start < 0:
                start = operator
            newest = max(newest, first_reader[operator])
        return (*segments, range(start, n)) if start >= 0 else tuple(segments)


@dataclass(frozen=True)
class MemoryProfile:
    """One order of the operators and what it needs.

    Attributes:
        graph: The operators.
        sizes: Bytes of each tensor; 0 for one that lies elsewhere.
        order: Indices of the operators.
        live_bytes: Bytes of each step, in this order.
    """

    graph: OperatorGraph
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    live_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        """The largest step; without operators, the inputs."""
        return max(self.live_bytes, default=sum(self.sizes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the operators in this order."""
        return tuple(self.graph.names[operator] for operator in self.order)

    @property
    def peak_operator(self) -> str:
        """Name of the first operator whose step is the peak."""
        return self.names[self.live_bytes.index(self.peak_bytes)]

    def live_tensors(self, operator: str) -> dict[str, int]:
        """Return the bytes of each tensor in memory while `operator` runs, by name.

        A result that takes the place of an operand is not named beside it.
        """
        graph, position = self.graph, self.names.index(operator)
        later = {t for op in self.order[position:] for t in graph.reads[op]}
        written = (*range(graph.n_inputs), *self.order[:position])
        live = [t for t in written if t in later or not graph.n_readers[t]]
        if sum(self.sizes[t] for t in live) < self.live_bytes[position]:
            live.append(self.order[position])
        return {graph.names[t]: self.sizes[t] for t in live if self.sizes[t]}


def memory_profile(
    graph: OperatorGraph, sizes: Sequence[int], order: Sequence[int] | None = None
) -> MemoryProfile:
    """Return what the operators need in an order; O(edges).

    Args:
        graph: The operators.
        sizes: Bytes of each tensor, >= 0.
        order: Indices of all operators, readers after what they read; None for as given.
    """
    if order is None:
        order = range(graph.n_inputs, len(sizes))
    return MemoryProfile(graph, tuple(sizes), tuple(order), _steps(graph, sizes, order))


def _steps(graph: OperatorGraph, sizes: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    reads, replaces = graph.reads, graph.replaces
    # A kept tensor has no reader, so its count never falls to zero.
    remaining = list(graph.n_readers)
    live = sum(sizes[: graph.n_inputs])
    steps = []
    for operator in order:
        live += sizes[operator]
        step = live
        for tensor in replaces[operator]:
            if sizes[tensor] == sizes[operator] and remaining[tensor] == 1:
                step -= sizes[operator]
                break
        steps.append(step)
        for tensor in reads[operator]:
            remaining[tensor] -= 1
            if not remaining[tensor]:
                live -= sizes[tensor]
    return tuple(steps)
