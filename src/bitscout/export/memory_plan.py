# SPDX-License-Identifier: Apache-2.0
"""Where tensors lie in one block of memory, so that those never needed together share bytes.

Notation:

    step     an operation: reads tensors, writes tensors, may need scratch memory meanwhile
    live     from the step that writes a tensor to the last one that reads it, both included
    block    a tensor, or several of one size of which each replaces the one before it in place
    bound    the largest number of bytes live in one step: no arrangement needs fewer

Finding the smallest arrangement is NP-hard (dynamic storage allocation); greedy placement in a
few orders reaches the bound for chains, and for every network of the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["MemoryPlan", "MemoryStep", "plan_memory"]

ALIGNMENT = 4  # An int32.
# Random orders tried where the greedy ones miss the bound, and the work they may cost.
MAX_SHUFFLES = 200
MAX_COMPARISONS = 400_000


@dataclass(frozen=True)
class MemoryStep:
    """What one operation does to memory.

    Attributes:
        name: Unique.
        reads: Tensors it reads; those that no step writes lie elsewhere and are ignored.
        writes: Bytes of every tensor it writes.
        scratch_bytes: Needed during this step alone.
        in_place: Operands that its only result may replace, if this is their last use.
    """

    name: str
    reads: tuple[str, ...]
    writes: Mapping[str, int]
    scratch_bytes: int = 0
    in_place: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemoryPlan:
    """The arrangement.

    Attributes:
        offsets: First byte of every tensor.
        scratch_offsets: First byte of the scratch memory of every step that has some.
        arena_bytes: Bytes it takes altogether, scratch included.
        peak_bytes: The bound, scratch included.
        tensor_peak_bytes: The bound of the tensors alone.
    """

    offsets: Mapping[str, int]
    scratch_offsets: Mapping[str, int]
    arena_bytes: int
    peak_bytes: int
    tensor_peak_bytes: int


@dataclass
class _Block:
    """Tensors that replace each other, live from step `first` to step `last`."""

    n_bytes: int
    first: int
    last: int
    tensors: list[str] = field(default_factory=list)
    scratch_of: str | None = None


def plan_memory(steps: Sequence[MemoryStep], *, keep: Collection[str] = ()) -> MemoryPlan:
    """Arrange the tensors of a sequence of steps; deterministic.

    Args:
        steps: In the order they run.
        keep: Tensors that are needed after the last step.

    Example:
        >>> plan = plan_memory(
        ...     [
        ...         MemoryStep("a", (), {"x": 100}),
        ...         MemoryStep("b", ("x",), {"y": 40}),
        ...         MemoryStep("c", ("y",), {"z": 100}),
        ...     ],
        ...     keep={"z"},
        ... )
        >>> plan.arena_bytes, plan.peak_bytes
        (140, 140)
    """
    blocks = _blocks(steps, keep)
    peak = _peak(blocks, len(steps))
    best: list[int] = []
    best_bytes = 0
    for offsets in _arrangements(blocks, peak):
        n_bytes = max((o + b.n_bytes for o, b in zip(offsets, blocks, strict=True)), default=0)
        if not best or n_bytes < best_bytes:
            best, best_bytes = offsets, n_bytes
        if best_bytes == peak:
            break
    placed = list(zip(best, blocks, strict=True))
    return MemoryPlan(
        offsets={name: offset for offset, block in placed for name in block.tensors},
        scratch_offsets={b.scratch_of: offset for offset, b in placed if b.scratch_of},
        arena_bytes=best_bytes,
        peak_bytes=peak,
        tensor_peak_bytes=_peak([b for b in blocks if b.scratch_of is None], len(steps)),
    )


def _blocks(steps: Sequence[MemoryStep], keep: Collection[str]) -> list[_Block]:
    last_use = {name: index for index, step in enumerate(steps) for name in step.reads}
    last_use |= dict.fromkeys(keep, len(steps))
    holder: dict[str, _Block] = {}
    blocks = []
    for index, step in enumerate(steps):
        if step.scratch_bytes:
            n_bytes = _aligned(step.scratch_bytes)
            blocks.append(_Block(n_bytes, index, index, scratch_of=step.name))
        for name, size in step.writes.items():
            last = last_use.get(name, index)
            replaced = _replaced(step, _aligned(size), index, holder, last_use)
            if replaced is None:
                holder[name] = _Block(_aligned(size), index, last)
                blocks.append(holder[name])
            else:
                holder[name] = replaced
                replaced.last = last
            holder[name].tensors.append(name)
    return blocks


def _replaced(
    step: MemoryStep, size: int, index: int, holder: Mapping[str, _Block], last_use: dict[str, int]
) -> _Block | None:
    """Return the block of an operand that dies in this step and has the result's size."""
    for name in step.in_place:
        if name in holder and last_use[name] == index and holder[name].n_bytes == size:
            return holder[name]
    return None


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _peak(blocks: Sequence[_Block], n_steps: int) -> int:
    live = np.zeros(n_steps + 1, dtype=np.int64)
    for block in blocks:
        live[block.first : block.last + 1] += block.n_bytes
    return int(live.max(initial=0))


def _arrangements(blocks: Sequence[_Block], peak: int) -> Iterator[list[int]]:
    """Yield offsets of the blocks: greedy in several orders, then in random ones."""
    numbers = range(len(blocks))

    def sizes(i: int) -> int:
        return -blocks[i].n_bytes

    def life(i: int) -> int:
        return blocks[i].first - blocks[i].last

    yield _place(blocks, sorted(numbers, key=sizes), peak, is_alternating=False)
    # From both ends in turn: reaches the bound for any chain, with scratch memory in the middle.
    tensors_first = sorted(numbers, key=lambda i: blocks[i].scratch_of is not None)
    yield _place(blocks, tensors_first, peak, is_alternating=True)
    yield _place(blocks, sorted(numbers, key=lambda i: (life(i), sizes(i))), peak)
    yield _place(blocks, sorted(numbers, key=lambda i: -life(i) * sizes(i)), peak)
    yield _place(blocks, list(numbers), peak)
    rng = np.random.default_rng(0)
    for _ in range(min(MAX_SHUFFLES, MAX_COMPARISONS // (len(blocks) ** 2 + 1))):
        yield _place(blocks, rng.permutation(len(blocks)).tolist(), peak)


def _place(
    blocks: Sequence[_Block], order: Sequence[int], peak: int, *, is_alternating: bool = False
) -> list[int]:
    """Return offsets: every block at the lowest free place, or every other one at the highest."""
    offsets = [-1] * len(blocks)
    for turn, index in enumerate(order):
        block = blocks[index]
        taken = sorted(
            (offsets[i], offsets[i] + other.n_bytes)
            for i, other in enumerate(blocks)
            if offsets[i] >= 0 and other.first <= block.last and block.first <= other.last
        )
        if is_alternating and turn % 2:
            # The same search from the upper end, below the bound where there is room.
            mirrored = sorted((peak - stop, peak - start) for start, stop in taken)
            offset = peak - block.n_bytes - _lowest(mirrored, block.n_bytes)
            if offset >= 0:
                offsets[index] = offset
                continue
        offsets[index] = _lowest(taken, block.n_bytes)
    return offsets


def _lowest(taken: Sequence[tuple[int, int]], n_bytes: int) -> int:
    """Return the lowest offset where `n_bytes` lie outside of the sorted spans."""
    offset = 0
    for start, stop in taken:
        if start - offset >= n_bytes:
            break
        offset = max(offset, stop)
    return offset
