# SPDX-License-Identifier: Apache-2.0
"""The bit-width of every layer of every network worth looking at (Fig. 3 of BOMP-NAS)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bitscout.core import Candidate, LayerBits, QuantPolicy
from bitscout.pipeline import RunResult
from bitscout.report.rows import format_size

__all__ = ["BitColumn", "BitMap", "BitRow", "bit_map", "merge_orders"]


@dataclass(frozen=True, slots=True)
class BitColumn:
    """One network.

    Attributes:
        number: Its trial.
        size: In kB, formatted.
        is_final: Whether it was trained with the final recipe.
    """

    number: int
    size: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class BitRow:
    """One layer in all networks, or repetitions of it that agree in each of them.

    Attributes:
        layers: Names of the layers this row stands for.
        label: What to call them.
        starts_block: Whether it is the first of its block, for a gap above it.
        cells: Their bits in each network; `None` where the network has none of them.
    """

    layers: tuple[str, ...]
    label: str
    starts_block: bool
    cells: tuple[LayerBits | None, ...]


@dataclass(frozen=True, slots=True)
class BitMap:
    """Layers by networks.

    Attributes:
        columns: Networks, smallest first.
        rows: Layers in execution order.
    """

    columns: tuple[BitColumn, ...]
    rows: tuple[BitRow, ...]

    @property
    def bit_widths(self) -> tuple[int, ...]:
        """The weight bits that occur, ascending."""
        cells = (cell for row in self.rows for cell in row.cells if cell)
        return tuple(sorted({cell.weight_bits for cell in cells}))


def bit_map(result: RunResult) -> BitMap:
    """Return the map of the front of the search and of the final networks, each trial once."""
    candidates: dict[int, tuple[float, Candidate]] = {}
    for trial in result.trials:
        if trial.number in result.pareto_front and trial.candidate and trial.metrics:
            candidates[trial.number] = trial.metrics["size_bytes"], trial.candidate
    final = {record.number: record for record in result.final if record.number is not None}
    for number, record in final.items():
        candidates[number] = record.metrics["size_bytes"], record.candidate
    numbers = sorted(candidates, key=lambda number: (candidates[number][0], number))
    policies = [candidates[number][1].policy for number in numbers]
    return BitMap(
        columns=tuple(
            BitColumn(number, format_size(candidates[number][0]), number in final)
            for number in numbers
        ),
        rows=tuple(_rows(policies)),
    )


def _rows(policies: Sequence[QuantPolicy]) -> Iterator[BitRow]:
    previous = None
    for layers in _agreeing(merge_orders(policies), policies):
        block = layers[0].split(".")[0]
        yield BitRow(
            layers=layers,
            label=(layers[0] if len(layers) == 1 else _pattern(layers[0])).removesuffix(".conv"),
            starts_block=previous not in (None, block),
            cells=tuple(
                next((policy[layer] for layer in layers if layer in policy), None)
                for policy in policies
            ),
        )
        previous = block


def _agreeing(names: Sequence[str], policies: Sequence[QuantPolicy]) -> list[tuple[str, ...]]:
    """Group repetitions, ``block2.0.expand`` and ``block2.1.expand``, where no network differs.

    A group stands where its first member stood.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_pattern(name), []).append(name)
    agree = {
        pattern: all(len({p[name] for name in group if name in p}) <= 1 for p in policies)
        for pattern, group in groups.items()
    }
    seen: dict[tuple[str, ...], None] = {}
    for name in names:
        pattern = _pattern(name)
        seen[tuple(groups[pattern]) if agree[pattern] else (name,)] = None
    return list(seen)


def _pattern(name: str) -> str:
    """Return `name` with ``*`` for each part that is a number."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def merge_orders(orders: Sequence[Iterable[str]]) -> list[str]:
    """Return every name once, in an order that keeps each of `orders`.

    Names no order decides between come as numbers count: ``block2`` before ``block10``. Should
    two orders contradict each other, the names of the contradiction come last.

    Example:
        >>> merge_orders([["stem", "block10", "head"], ["stem", "block2", "head"]])
        ['stem', 'block2', 'block10', 'head']
    """
    before: dict[str, set[str]] = {}
    for order in orders:
        previous: set[str] = set()
        for name in order:
            before.setdefault(name, set()).update(previous)
            previous = {name}
    merged: list[str] = []
    while before:
        ready = [name for name, earlier in before.items() if not earlier]
        name = min(ready or before, key=_natural)
        del before[name]
        for earlier in before.values():
            earlier.discard(name)
        merged.append(name)
    return merged


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
