# SPDX-License-Identifier: Apache-2.0
"""What a network costs, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bitscout.hardware import CostReport, LayerCost
from bitscout.report.quantities import Column, column, columns, dearest

__all__ = ["cost_table", "dearest_layers"]

N_DEAREST = 3
GAP = 2  # Blanks between two columns.
NETWORK = "network"


def cost_table(network: str, bits: str, report: CostReport, *, width: int) -> RenderableType:
    """Return one report: a row for each layer, the network, and what to know about the figures.

    Args:
        network: Which network.
        bits: Which bits it has.
        report: What it costs.
        width: Columns of the terminal; quantities that do not fit are named below the table.
    """
    every = [entry for entry in columns(report) if _is_of_layers(report, entry)]
    alone = [entry for entry in columns(report) if not _is_of_layers(report, entry)]
    macs = column("macs", "1", [sum(layer.macs for layer in report.layers)])
    fixed = [["layer", "", *(layer.name for layer in report.layers), NETWORK]]
    fixed.append(["kind", "", *(layer.kind for layer in report.layers), ""])
    fixed.append(_cells(macs, [*(layer.macs for layer in report.layers), _macs(report)]))
    fixed.append(["bits", "w/a", *(_bits(layer) for layer in report.layers), ""])
    written = [_cells(entry, _values(report, entry.name)) for entry in every]
    n_shown = _fitting([_width(cells) for cells in fixed], [_width(c) for c in written], width)
    said = [f"{entry.label} {entry.with_unit(report.total[entry.name])}" for entry in alone]
    sentences = [f"Whole network: {', '.join(said)}."] if said else []
    sentences += [*_per_input(report, every), *dearest_layers(report)]
    lines: list[RenderableType] = [Text(line) for line in sentences]
    lines += [Text(f"Note: {note}", style="dim") for note in report.notes]
    if n_shown < len(every):
        names = ", ".join(entry.name for entry in every[n_shown:])
        lines.append(Text(f"In --json also: {names}.", style="dim"))
    return Group(
        Text.assemble((network, "bold"), " on ", (report.hardware, "bold")),
        Text(f"Bits: {bits}. {_batch(report.batch)}"),
        "",
        _table([*fixed, *written[:n_shown]]),
        *([Text(), *lines] if lines else []),
    )


def dearest_layers(report: CostReport) -> list[str]:
    """Return which layers cost most, a sentence each for time, energy or size."""
    if len(report.layers) <= N_DEAREST:
        return []
    sentences = []
    for entry, parts in dearest(report):
        order = sorted(range(len(parts)), key=lambda i: -parts[i])[:N_DEAREST]
        named = ", ".join(f"{report.layers[i].name} {100 * parts[i]:.1f} %" for i in order)
        sentences.append(f"Most {entry.label}: {named}.")
    return sentences


def _per_input(report: CostReport, every: Sequence[Column]) -> list[str]:
    """Return what one input of a batch takes, in time and energy."""
    if report.batch == 1:
        return []
    said = [
        entry.label + " " + column(entry.name, report.units[entry.name], [each]).with_unit(each)
        for entry in every
        if entry.name in ("latency_ms", "energy_mj") and entry.name in report.total
        for each in [report.total[entry.name] / report.batch]
    ]
    return [f"Per input: {', '.join(said)}."] if said else []


def _table(blocks: Sequence[Sequence[str]]) -> Table:
    """Return a table of columns, each a heading, its unit, and a cell for each row."""
    table = Table(box=None, pad_edge=False)
    for index, cells in enumerate(blocks):
        heading = Text.assemble(cells[0], "\n", (cells[1], "dim"))
        justify: Literal["left", "right"] = "left" if index < 2 else "right"
        table.add_column(heading, justify=justify, no_wrap=index > 0, overflow="fold")
    rows = list(zip(*(cells[2:] for cells in blocks), strict=True))
    for row in rows[:-1]:
        table.add_row(*(Text(cell) for cell in row))
    table.add_row(*(Text(cell) for cell in rows[-1]), style="bold")
    return table


def _cells(entry: Column, values: Sequence[float | None]) -> list[str]:
    return [entry.label, entry.unit, *(entry.text(value) for value in values)]


def _values(report: CostReport, name: str) -> list[float | None]:
    return [*(layer.costs.get(name) for layer in report.layers), report.total.get(name)]


def _width(cells: Sequence[str]) -> int:
    return max(len(cell) for cell in cells)


def _fitting(fixed: Sequence[int], optional: Sequence[int], width: int) -> int:
    """Return how many of the optional columns fit beside the fixed ones, at least one."""
    used = sum(fixed) + GAP * (len(fixed) - 1)
    for count, each in enumerate(optional):
        used += GAP + each
        if used > width:
            return max(count, 1)
    return len(optional)


def _is_of_layers(report: CostReport, entry: Column) -> bool:
    return any(entry.name in layer.costs for layer in report.layers)


def _bits(layer: LayerCost) -> str:
    return f"{layer.weight_bits}/{layer.act_bits}"


def _macs(report: CostReport) -> int:
    return sum(layer.macs for layer in report.layers)


def _batch(batch: int) -> str:
    if batch == 1:
        return "One input."
    return f"Batch {batch}: every quantity but the MACs is for {batch} inputs together."
