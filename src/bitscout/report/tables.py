# SPDX-License-Identifier: Apache-2.0
"""The same facts for the terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bitscout.core import Metrics
from bitscout.pipeline import RunResult
from bitscout.report.front_axis import CostAxis, cost_axes
from bitscout.report.headline import state_sentence, verdict_summary
from bitscout.report.rows import NetworkRow, network_row, trial_row

__all__ = ["front_table", "networks_table", "show_run", "verdict_lines"]

OUTCOME_STYLES = {"won": "green", "open": "yellow", "lost": "red"}


def networks_table(result: RunResult) -> Table:
    """Return the table of final networks and baselines."""
    table = _table("Final networks and baselines")
    table.add_column("test %", justify="right", no_wrap=True)
    table.add_column("val. %", justify="right", no_wrap=True)
    table.add_column("float %", justify="right", no_wrap=True)
    costs = _add_common_columns(table, result)
    table.add_column("verified", no_wrap=True)
    for record in (*result.final, *result.baselines):
        row = network_row(record, result)
        cells = (row.size, row.test, row.validation, row.floating, row.bits, row.macs)
        more = (*_cost_cells(record.metrics, costs), row.certificate)
        table.add_row(_label(row), *cells, *more, style="bold" if row.is_best else "")
    if result.final:
        table.caption = "* best, chosen on validation data"
    return table


def front_table(result: RunResult) -> Table:
    """Return the table of the front of the search, as judged during it."""
    table = _table("Front of the search")
    table.add_column("val. %", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    costs = _add_common_columns(table, result)
    by_number = {trial.number: trial for trial in result.complete}
    for trial in (by_number[number] for number in result.pareto_front):
        row = trial_row(trial)
        score = f"{trial.score:.4f}" if trial.score is not None else "–"
        cells = (row.size, row.validation, score, row.bits, row.macs)
        table.add_row(_label(row), *cells, *_cost_cells(trial.metrics, costs))
    return table


def verdict_lines(result: RunResult) -> list[RenderableType]:
    """Return whether the search was worth it: a summary, then every baseline; may be empty."""
    summary = verdict_summary(result)
    if summary is None:
        return []
    grid = Table.grid(padding=(0, 2, 0, 0))
    for verdict in result.verdicts:
        outcome = Text(verdict.outcome, style=OUTCOME_STYLES[verdict.outcome])
        grid.add_row(outcome, Text(verdict.sentence()))
    return [Text(summary, style="bold"), grid, *map(Text, result.remarks)]


def show_run(result: RunResult) -> RenderableType:
    """Return everything ``bitscout show`` prints about a run."""
    parts: list[RenderableType] = [
        Text.assemble((result.config.name, "bold"), f"  {result.directory}"),
        Text(state_sentence(result)),
    ]
    if result.pareto_front:
        parts += ["", front_table(result)]
    if result.final or result.baselines:
        parts += ["", networks_table(result)]
    lines = verdict_lines(result)
    if lines:
        parts += ["", *lines]
    return Group(*parts)


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("network", overflow="fold")
    table.add_column("kB", justify="right", no_wrap=True)
    return table


def _add_common_columns(table: Table, result: RunResult) -> list[CostAxis]:
    """Add bits, MACs and the costs of the front that the table lacks; return the latter."""
    table.add_column("weight bits", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    costs = [cost for cost in cost_axes(result) if cost.metric not in ("size_bytes", "macs")]
    for cost in costs:
        heading = f"{cost.label}, {cost.column.unit}".removesuffix(", ")
        table.add_column(Text(heading), justify="right", no_wrap=True)
    return costs


def _cost_cells(metrics: Metrics | None, costs: Sequence[CostAxis]) -> tuple[str, ...]:
    known = metrics.to_json() if metrics else {}
    return tuple(cost.column.text(known.get(cost.metric)) for cost in costs)


def _label(row: NetworkRow) -> Text:
    return Text(f"{row.label} *" if row.is_best else row.label)
