# SPDX-License-Identifier: Apache-2.0
"""The candidates that were over budget: how many, by which bound, by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bitscout.core import Budget, Metrics
from bitscout.pipeline import RunResult, TrialRecord
from bitscout.report.bounds import bound_name, bound_unit
from bitscout.report.chart_style import LAYOUT, Chart, trial_axis
from bitscout.report.front_axis import log_axis
from bitscout.report.quantities import ABSENT

__all__ = ["BoundRow", "Rejected", "RejectedRow", "budget_chart", "rejected"]


@dataclass(frozen=True, slots=True)
class BoundRow:
    """One bound of the budget.

    Attributes:
        label: What is bounded, with its unit.
        limit: The bound.
        n_over: Candidates over it.
        n_alone: Candidates over it and over no other bound.
    """

    label: str
    limit: str
    n_over: int
    n_alone: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One candidate that was not trained.

    Attributes:
        number: Its trial.
        cells: For each bound the value in its unit, and whether it is over.
        reason: Why, in the words of the search.
    """

    number: int
    cells: tuple[tuple[str, bool], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Everything about the candidates that were over budget.

    Attributes:
        summary: How many, in one sentence.
        bounds: The budget, bound by bound.
        rows: The candidates, by trial.
        n_without_rule: Candidates that the hardware has no rule for.
    """

    summary: str
    bounds: tuple[BoundRow, ...]
    rows: tuple[RejectedRow, ...]
    n_without_rule: int


def rejected(result: RunResult) -> Rejected:
    """Return what was rejected before training, and why."""
    budget = result.config.budget.build()
    trials = [trial for trial in result.trials if trial.outcome == "infeasible"]
    over = [_over(budget, trial) for trial in trials]
    bounds = budget.bounds()
    return Rejected(
        summary=_summary(result, budget, len(trials)),
        bounds=tuple(
            BoundRow(
                label=_label(name),
                limit=f"{limit:g}",
                n_over=sum(name in names for names in over),
                n_alone=sum(names == [name] for names in over),
            )
            for name, limit in bounds.items()
        ),
        rows=tuple(_row(trial, budget, names) for trial, names in zip(trials, over, strict=True)),
        n_without_rule=sum(not names for names in over) if bounds else 0,
    )


def budget_chart(result: RunResult) -> Chart | None:
    """Return how much of the budget each candidate takes, at its tightest bound, over trials.

    `None` without a budget, or where nothing was rejected.
    """
    budget = result.config.budget.build()
    trials = [trial for trial in result.trials if _shares(budget, trial)]
    if not any(trial.outcome == "infeasible" for trial in trials):
        return None
    percents = [100 * max(_shares(budget, trial).values()) for trial in trials]
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 100, "y1": 100}
    layout = {
        **LAYOUT,
        "xaxis": trial_axis(max(trial.number for trial in result.trials)),
        "yaxis": log_axis("cost in % of the budget", [*percents, 100.0]),
        "shapes": [{**line, "line": {"width": 1.5, "dash": "dash", "color": "--muted"}}],
    }
    marks = {
        "infeasible": {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": "--lost"}},
        "other": {"size": 7, "color": "--single", "line": {"width": 0.75, "color": "--page"}},
    }
    data = []
    for outcome, marker in marks.items():
        chosen = [
            (trial, percent)
            for trial, percent in zip(trials, percents, strict=True)
            if (trial.outcome == "infeasible") == (outcome == "infeasible")
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [trial.number for trial, _ in chosen],
                "y": [percent for _, percent in chosen],
                "text": [_text(budget, trial) for trial, _ in chosen],
                "marker": marker,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return {"data": data, "layout": layout}


def _over(budget: Budget, trial: TrialRecord) -> list[str]:
    return [name for name, share in _shares(budget, trial).items() if share > 1]


def _shares(budget: Budget, trial: TrialRecord) -> Mapping[str, float]:
    """Return each known cost of a trial in terms of its bound."""
    known = budget.constraints(trial.metrics or Metrics())
    return {name: 1.0 + violation for name, violation in known.items()}


def _row(trial: TrialRecord, budget: Budget, over: Sequence[str]) -> RejectedRow:
    shares = _shares(budget, trial)
    cells = []
    for name, limit in budget.bounds().items():
        text = _number(shares[name] * limit) if name in shares else ABSENT
        cells.append((text, name in over))
    return RejectedRow(trial.number, tuple(cells), trial.reason or ABSENT)


def _text(budget: Budget, trial: TrialRecord) -> str:
    shares, bounds = _shares(budget, trial), budget.bounds()
    lines = [
        f"{_label(name)}: {_number(share * bounds[name])} of {bounds[name]:g}"
        for name, share in shares.items()
    ]
    return "<br>".join([f"<b>trial {trial.number}</b> {trial.outcome}", *map(escape, lines)])


def _summary(result: RunResult, budget: Budget, n_rejected: int) -> str:
    n_trials = len(result.trials)
    if not n_rejected:
        if not budget.bounds():
            return "No budget was set, and nothing was rejected."
        n_known = sum(len(_shares(budget, t)) == len(budget.bounds()) for t in result.trials)
        if n_known == 0 < n_trials:
            return "None: the cost of no candidate is known."
        if n_known < n_trials:
            return f"None: the cost of {n_known} of {n_trials} candidates is known, and within it."
        return f"None: all {n_trials} candidates so far were within the budget."
    was = "was" if n_rejected == 1 else "were"
    return (
        f"{n_rejected} of {n_trials} candidates {was} not trained: their cost is computed first."
    )


def _label(name: str) -> str:
    """Return ``peak memory, kB`` for ``peak_memory_kb``."""
    unit = bound_unit(name)
    return f"{bound_name(name)}, {unit}" if unit else bound_name(name)


def _number(value: float) -> str:
    """Return a value with four digits, so that 40.01 is not written as the bound of 40."""
    return f"{value:,.0f}" if value >= 1e5 else f"{value:.4g}"
