# SPDX-License-Identifier: Apache-2.0
"""The order of operators that needs the least memory for activations.

Notation: see `operator_graph`. The peak of an order is its largest step, and the best order has
the smallest peak of all. It is the recurrence of [Liberis2019]_ that uNAS [Liberis2021]_ computes,
read forwards: a state is the set of operators that have run, and the search goes from the empty
state to the full one along the path whose largest step is smallest.

Three things keep the number of states low, and change no peak. An operator that depends on every
one that does not depend on it has one place in any order, so the network falls into segments
between such operators. A segment whose given order is no worse than what some step needs in
any case is left as it is. Where running an operator exceeds nothing that was needed before and
leaves no more bytes live, it runs at once: moved there in any order, it makes no step larger.

References:
    .. [Liberis2019] E. Liberis, N. Lane. Neural Networks on Microcontrollers: Saving Memory at
       Inference via Operator Reordering. https://arxiv.org/abs/1910.05110
    .. [Liberis2021] E. Liberis, L. Dudziak, N. Lane. uNAS: Constrained Neural Architecture Search
       for Microcontrollers. EuroMLSys 2021. https://arxiv.org/abs/2010.14246
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from bitscout.errors import UnsupportedError
from bitscout.hardware.operator_graph import MemoryProfile, OperatorGraph, memory_profile

__all__ = ["best_order"]

MAX_STATES: Final = 200_000  # A few seconds.


def best_order(
    graph: OperatorGraph, sizes: Sequence[int], *, max_states: int = MAX_STATES
) -> MemoryProfile:
    """Return an order with the smallest peak; the given one where that is as good.

    Deterministic. O(edges) for chains with shortcuts; exponential in the number of operators
    side by side in the worst case.

    Args:
        graph: The operators.
        sizes: Bytes of each tensor, >= 0.
        max_states: States that are looked at before the search gives up.

    Raises:
        UnsupportedError: If the search gives up.
    """
    given = memory_profile(graph, sizes)
    if not graph.segments:
        return given
    n_inputs, order = graph.n_inputs, list(given.order)
    is_open = {operator for segment in graph.segments for operator in segment}
    floor = max(
        _least(graph, sizes, operator) if operator in is_open else step
        for operator, step in zip(order, given.live_bytes, strict=True)
    )
    peaks = [max(given.live_bytes[op - n_inputs] for op in ops) for ops in graph.segments]
    # The worst first: what it needs may settle the others.
    for number in sorted(range(len(peaks)), key=lambda number: -peaks[number]):
        segment = graph.segments[number]
        if peaks[number] > floor:
            search = _SegmentSearch(graph, sizes, segment, max_states)
            found, floor = search.run(floor, peaks[number])
            order[segment.start - n_inputs : segment.stop - n_inputs] = found
    if order == list(given.order):
        return given
    return memory_profile(graph, sizes, order)


def _least(graph: OperatorGraph, sizes: Sequence[int], operator: int) -> int:
    """Return what the step of `operator` needs in any order: its operands and its result."""
    result = sizes[operator]
    may_be_in_place = any(sizes[tensor] == result for tensor in graph.replaces[operator])
    needed = sum(sizes[tensor] for tensor in graph.reads[operator])
    return needed if may_be_in_place else needed + result


class _SegmentSearch:
    """The best order of one segment; operators have bits in the order they are given."""

    def __init__(
        self, graph: OperatorGraph, sizes: Sequence[int], segment: range, max_states: int
    ) -> None:
        self._graph, self._sizes, self._segment = graph, sizes, segment
        self._max_states = max_states
        first, n_readers = segment.start, graph.n_readers
        inside: dict[int, int] = {}
        before: dict[int, int] = {}
        for operator in segment:
            for tensor in graph.reads[operator]:
                inside[tensor] = inside.get(tensor, 0) | 1 << operator - first
        for operator in range(graph.n_inputs, first):
            for tensor in graph.reads[operator]:
                before[tensor] = before.get(tensor, 0) + 1
        self._waits_for = [
            sum(1 << tensor - first for tensor in graph.reads[operator] if tensor >= first)
            for operator in segment
        ]
        # What each operator reads that no operator after the segment needs, and by whom else.
        self._frees = [
            [
                (tensor, inside[tensor] & ~(1 << operator - first))
                for tensor in graph.reads[operator]
                if before.get(tensor, 0) + inside[tensor].bit_count() == n_readers[tensor]
            ]
            for operator in segment
        ]
        self._live = sum(
            size
            for tensor, size in enumerate(sizes[:first])
            if not n_readers[tensor] or before.get(tensor, 0) < n_readers[tensor]
        )

    def run(self, floor: int, given_peak: int) -> tuple[list[int], int]:
        """Return the best order and its peak, at least `floor`; the given order if none is better.

        Raises:
            UnsupportedError: If there are more states than allowed.
        """
        n = len(self._segment)
        full = (1 << n) - 1
        came_from: dict[int, tuple[int, int]] = {}
        best = {0: floor}
        # The smallest peak first; among those, where most has run, then in the order found.
        heap = [(floor, n, 0, 0, self._live)]
        n_found = 0
        while heap:
            peak, _, _, done, live = heapq.heappop(heap)
            if done == full:
                return self._path(came_from), peak
            if best[done] < peak:
                continue
            for operator, new_peak, new_live in self._moves(done, live, peak):
                state = done | 1 << operator
                # NOTE: a path as bad as the given order is of no use, so it is not followed.
                if new_peak < best.get(state, given_peak):
                    n_found += 1
                    best[state] = new_peak
                    came_from[state] = (done, operator)
                    n_left = n - state.bit_count()
                    heapq.heappush(heap, (new_peak, n_left, n_found, state, new_live))
            if n_found > self._max_states:
                raise self._too_wide()
        return list(self._segment), given_peak

    def _moves(self, done: int, live: int, peak: int) -> list[tuple[int, int, int]]:
        """Return operators that can run, with peak and live bytes after: one if it is free."""
        moves = []
        for operator, waits_for in enumerate(self._waits_for):
            if done >> operator & 1 or waits_for & ~done:
                continue
            index = self._segment.start + operator
            result = self._sizes[index]
            freed = [tensor for tensor, others in self._frees[operator] if not others & ~done]
            is_in_place = any(
                tensor in freed and self._sizes[tensor] == result
                for tensor in self._graph.replaces[index]
            )
            step = live if is_in_place else live + result
            new_live = live + result - sum(self._sizes[tensor] for tensor in freed)
            if step <= peak and new_live <= live:
                return [(operator, peak, new_live)]
            moves.append((operator, max(peak, step), new_live))
        return moves

    def _path(self, came_from: dict[int, tuple[int, int]]) -> list[int]:
        state, path = (1 << len(self._segment)) - 1, []
        while state:
            state, operator = came_from[state]
            path.append(self._segment.start + operator)
        return path[::-1]

    def _too_wide(self) -> UnsupportedError:
        names = self._graph.names
        msg = (
            f"The best order of the {len(self._segment)} operators from "
            f"{names[self._segment.start]!r} to {names[self._segment.stop - 1]!r} needs more than "
            f"{self._max_states:,} states, since many of them can run side by side. Use the order "
            "in which they are given: order=given."
        )
        return UnsupportedError(msg)
