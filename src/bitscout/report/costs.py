# SPDX-License-Identifier: Apache-2.0
"""What the networks of a run cost on its hardware: totals, layers and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitscout.core import Candidate
from bitscout.errors import BitscoutError
from bitscout.hardware import CostReport
from bitscout.pipeline import HardwareCosts, RunResult, run_costs
from bitscout.report.bounds import over_budget
from bitscout.report.cost_chart import CostChart, cost_chart
from bitscout.report.cost_tables import dearest_layers
from bitscout.report.quantities import FIRST, Column, column, columns, part_names

__all__ = ["CostSection", "NetworkCosts", "TotalRow", "cost_sections"]

NOT_MEASURED_AGAIN = (
    "Measured when each network was tried, and not again. Where other hardware knows a quantity "
    "too, the larger value was recorded."
)
MIN_COLUMNS, MAX_COLUMNS = 2, 9  # Of quantities; the others are for `bitscout cost --json`.


@dataclass(frozen=True)
class TotalRow:
    """One network in the table of totals.

    Attributes:
        label: Which network.
        is_best: Whether it is the run's answer.
        is_baseline: Whether it was not searched.
        over: Names of the budget's bounds that it is over; empty where there are none.
        cells: Its quantities, formatted.
    """

    label: str
    is_best: bool
    is_baseline: bool
    over: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class NetworkCosts:
    """One network, layer by layer.

    Attributes:
        id: Of its chart in the page.
        label: Which network.
        is_best: Whether it is the run's answer.
        headings: Label and unit of each column of quantities.
        rows: Layer, kind, bits, and a cell for each column.
        total: The same of the network.
        sentences: What the table alone would not tell at a glance.
        picture: Its chart; `None` where no layer has a cost of its own.
    """

    id: str
    label: str
    is_best: bool
    headings: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]
    sentences: tuple[str, ...]
    picture: CostChart | None


@dataclass(frozen=True)
class CostSection:
    """One kind of hardware.

    Attributes:
        hardware: The model with its options.
        batch: Inputs that every quantity is for.
        headings: Label and unit of each quantity of `totals`.
        totals: The networks.
        networks: The networks, layer by layer.
        notes: What a reader of the figures must know, and why something is missing.
    """

    hardware: str
    batch: int
    headings: tuple[tuple[str, str], ...]
    totals: tuple[TotalRow, ...]
    networks: tuple[NetworkCosts, ...]
    notes: tuple[str, ...]


def cost_sections(result: RunResult) -> tuple[tuple[CostSection, ...], str]:
    """Return a section for each hardware of the run, and why there is none.

    It is about the final networks and baselines, or, before there are any, the best candidate.
    """
    networks = _networks(result)
    if not networks:
        return (), "No candidate has been evaluated yet."
    try:
        found = run_costs(result, {name: candidate for name, (_, candidate) in networks.items()})
    except BitscoutError as error:
        return (), f"The costs cannot be computed again: {error}"
    labels = {name: label for name, (label, _) in networks.items()}
    return tuple(_section(index, costs, labels, result) for index, costs in enumerate(found)), ""


def _networks(result: RunResult) -> dict[str, tuple[str, Candidate]]:
    records = (*result.final, *result.baselines)
    if records:
        return {record.name: (record.label, record.candidate) for record in records}
    best = result.best
    if best is None or best.candidate is None:
        return {}
    return {str(best.number): (f"trial {best.number}, the best so far", best.candidate)}


def _section(
    index: int, costs: HardwareCosts, labels: Mapping[str, str], result: RunResult
) -> CostSection:
    best = result.best_final.name if result.best_final else next(iter(labels))
    baselines = {record.name for record in result.baselines}
    budget = result.config.budget.build()
    records = (*result.final, *result.baselines)
    over = {record.name: over_budget(budget, record.metrics) for record in records}
    reports = dict(costs.reports)
    if costs.is_measured and not reports:
        reports, notes = _recorded(costs, labels, result), [NOT_MEASURED_AGAIN]
    else:
        notes = _common_notes(list(reports.values()))
        notes += [f"{labels[name]}: {problem}" for name, problem in costs.problems.items()]
    entries = _total_columns(list(reports.values()))
    return CostSection(
        hardware=costs.hardware,
        batch=costs.batch,
        headings=tuple((entry.label, entry.unit) for entry in entries),
        totals=tuple(
            TotalRow(
                labels[name],
                name == best,
                name in baselines,
                over.get(name, ""),
                tuple(entry.brief(report.total.get(entry.name)) for entry in entries),
            )
            for name, report in reports.items()
        ),
        networks=tuple(
            _network(f"costs-{index}-{position}", labels[name], name == best, report, notes)
            for position, (name, report) in enumerate(reports.items())
            if report.layers
        ),
        notes=tuple(notes),
    )


def _network(
    id: str, label: str, is_best: bool, report: CostReport, said: Sequence[str]
) -> NetworkCosts:
    own = {e.name: e for e in columns(report) if any(e.name in x.costs for x in report.layers)}
    names = [*_wanted(report, list(own)), *part_names(report, "energy_mj")][:MAX_COLUMNS]
    shown = [own[name] for name in dict.fromkeys(names)]
    n_macs = [layer.macs for layer in report.layers]
    macs = column("macs", "1", [sum(n_macs)])
    sentences = dearest_layers(report)
    sentences += [note for note in report.notes if note not in said]
    left_out = [entry.label for entry in own.values() if entry not in shown]
    if left_out:
        sentences.append(f"Not shown, but in bitscout cost --json: {', '.join(left_out)}.")
    return NetworkCosts(
        id=id,
        label=label,
        is_best=is_best,
        headings=((macs.label, macs.unit), *((entry.label, entry.unit) for entry in shown)),
        rows=tuple(
            (
                layer.name,
                layer.kind,
                f"{layer.weight_bits}/{layer.act_bits}",
                macs.text(layer.macs),
                *(entry.text(layer.costs.get(entry.name)) for entry in shown),
            )
            for layer in report.layers
        ),
        total=(
            macs.text(sum(n_macs)),
            *(entry.text(report.total.get(entry.name)) for entry in shown),
        ),
        sentences=tuple(sentences),
        picture=cost_chart(report),
    )


def _wanted(report: CostReport, names: Sequence[str]) -> list[str]:
    """Return the quantities worth a column: what people ask for, ratios, else the first few."""
    wanted = [n for n in names if n in FIRST or report.units[n] == "1"]
    return wanted if len(wanted) >= MIN_COLUMNS else list(names[:MAX_COLUMNS])


def _total_columns(reports: Sequence[CostReport]) -> list[Column]:
    """Return one way of writing each quantity for all networks, the most wanted first."""
    if not reports:
        return []
    first = reports[0]
    names = [entry.name for entry in columns(first) if entry.name in first.total]
    return [
        column(name, first.units[name], [r.total[name] for r in reports if name in r.total])
        for name in _wanted(first, names)
    ]


def _common_notes(reports: Sequence[CostReport]) -> list[str]:
    """Return the notes that all reports share; the others are about one network."""
    first = reports[0].notes if reports else ()
    return [note for note in first if all(note in report.notes for report in reports)]


def _recorded(
    costs: HardwareCosts, labels: Mapping[str, str], result: RunResult
) -> dict[str, CostReport]:
    """Return the totals that were measured when the networks were trained."""
    records = {record.name: record for record in (*result.final, *result.baselines)}
    found = {}
    for name in labels:
        known = records[name].metrics.to_json() if name in records else {}
        total = {metric: known[metric] for metric in costs.units if metric in known}
        if total:
            found[name] = CostReport(costs.hardware, costs.batch, costs.units, total, ())
    return found
