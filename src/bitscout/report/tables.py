# SPDX-License-Identifier: Apache-2.0
"""The same facts for the terminal, as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bitscout.core import Metrics
from bitscout.pipeline import RunResult
from bitscout.report.front_axis import CostAxis, budget_axes, cost_axes
from bitscout.report.headline import state_sentence, verdict_summary
from bitscout.report.rows import ABSENT, NetworkRow, network_row, trial_row
from bitscout.report.untrained import untrained

__all__ = ["front_table", "networks_table", "show_run", "verdict_lines"]

OUTCOME_STYLES = {"won": "green", "open": "yellow", "lost": "red"}


def networks_table(result: RunResult) -> Table:
    """Return the table of final networks and baselines."""
    costs = _shown_costs(result)
    headings = ["kB", "test %", "val. %", *_unless(costs, "float %"), *_common(costs)]
    headings += _unless(costs, "verified", at_least=3)
    table = _table("Final networks and baselines", headings)
    budget, any_over = result.config.budget.build(), False
    for record in (*result.final, *result.baselines):
        row = network_row(record, result)
        cells = [row.size, row.test, row.validation, *_unless(costs, row.floating)]
        cells += _common_cells(row, record.metrics, costs)
        cells += _unless(costs, row.certificate, at_least=3)
        is_over = budget.reason(record.metrics) is not None
        any_over = any_over or is_over
        name = _label(row) + Text(" !") if is_over else _label(row)
        table.add_row(name, *cells, style="bold" if row.is_best else "")
    marks = ["* best, chosen on validation data"] if result.final else []
    marks += ["! over the budget of the search"] if any_over else []
    table.caption = "; ".join(marks) or None
    return table


def front_table(result: RunResult) -> Table:
    """Return the table of the front of the search, as judged during it."""
    costs = _shown_costs(result)
    has_score = result.config.objective.score is not None
    headings = ["kB", "val. %", *(["score"] if has_score else []), *_common(costs)]
    table = _table("Front of the search", headings)
    by_number = {trial.number: trial for trial in result.complete}
    for trial in (by_number[number] for number in result.pareto_front):
        row = trial_row(trial)
        score = f"{trial.score:.4f}" if trial.score is not None else ABSENT
        cells = [row.size, row.validation, *([score] if has_score else [])]
        table.add_row(_label(row), *cells, *_common_cells(row, trial.metrics, costs))
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
        *map(Text, _state_lines(result)),
        *map(Text, budget_lines(result)),
    ]
    if result.pareto_front:
        parts += ["", front_table(result)]
    if result.final or result.baselines:
        parts += ["", networks_table(result)]
    lines = verdict_lines(result)
    if lines:
        parts += ["", *lines]
    return Group(*parts)


def _state_lines(result: RunResult) -> list[str]:
    """Return how far the run is; of one that ended with nothing, why and what helps."""
    ended = untrained(result)
    return [state_sentence(result)] if ended is None else [ended.state, ended.what, ended.advice]


def budget_lines(result: RunResult) -> list[str]:
    """Return the budget, and why candidates were not trained; empty where there is neither."""
    bounds = result.config.budget.build().bounds()
    lines = []
    if bounds:
        lines.append("Budget: " + ", ".join(f"{name} {bound:g}" for name, bound in bounds.items()))
    for outcome, what in (("infeasible", "Rejected before training"), ("failed", "Failed")):
        trials = [trial for trial in result.trials if trial.outcome == outcome]
        if trials:
            first = str(trials[0].reason).partition("\n")[0]
            lines.append(f"{what}: {len(trials)}; trial {trials[0].number}: {first}")
    return lines


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("network", overflow="fold")
    for heading in headings:
        is_text = heading in ("weight bits", "verified")
        table.add_column(Text(heading), justify="left" if is_text else "right", no_wrap=True)
    return table


def _shown_costs(result: RunResult) -> list[CostAxis]:
    """Return the costs of the front and of the budget that are in no other column."""
    axes = {axis.metric: axis for axis in (*cost_axes(result), *budget_axes(result))}
    return [axis for metric, axis in axes.items() if metric not in ("size_bytes", "macs")][:3]


def _unless(costs: Sequence[CostAxis], *entries: str, at_least: int = 1) -> list[str]:
    """Return `entries` where there is room for them in 80 columns beside `costs`."""
    return [] if len(costs) >= at_least else list(entries)


def _common(costs: Sequence[CostAxis]) -> list[str]:
    named = [f"{cost.label} {cost.column.unit}".strip().replace(" ", "\n") for cost in costs]
    return ["weight bits", *_unless(costs, "MACs", at_least=2), *named]


def _common_cells(
    row: NetworkRow, metrics: Metrics | None, costs: Sequence[CostAxis]
) -> list[str]:
    known = metrics.to_json() if metrics else {}
    cells = [cost.column.text(known.get(cost.metric)) for cost in costs]
    return [row.bits, *_unless(costs, row.macs, at_least=2), *cells]


def _label(row: NetworkRow) -> Text:
    return Text(f"{row.label} *" if row.is_best else row.label)
