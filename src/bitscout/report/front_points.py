# SPDX-License-Identifier: Apache-2.0
"""Where networks stand in the charts of the front, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from bitscout.core import Metrics
from bitscout.pipeline import FinalRecord, TrialRecord
from bitscout.report.chart_style import Chart
from bitscout.report.front_axis import CostAxis
from bitscout.report.rows import BitSummary, format_percent, format_size

__all__ = ["RING", "final_points", "final_text", "trial_points", "trial_text"]

# Around the members of a front that is no line.
RING: Final[Chart] = {
    "size": 15,
    "color": "rgba(0,0,0,0)",
    "line": {"width": 1.5, "color": "--muted"},
}


def trial_text(trial: TrialRecord, costs: Sequence[CostAxis]) -> str:
    """Return what is said of a candidate when one points at it, in Plotly's HTML."""
    assert trial.metrics is not None
    assert trial.candidate is not None
    score = f"<br>score {trial.score:.4g}" if trial.score is not None else ""
    others = [cost for cost in costs if cost.metric != "size_bytes"]
    return (
        f"<b>trial {trial.number}</b> {escape(trial.candidate.digest)}"
        f"<br>{format_percent(trial.metrics.val_accuracy)} % validation, "
        f"{format_size(trial.metrics.size_bytes)} kB{_costs_text(trial.metrics, others)}"
        f"<br>bits {BitSummary.of(trial.candidate.policy)}{score}"
    )


def final_text(record: FinalRecord, cost: CostAxis) -> str:
    """Return what is said of a final network or baseline when one points at it."""
    others = [cost] if cost.metric != "size_bytes" else []
    return (
        f"<b>{escape(record.label)}</b> {escape(record.candidate.digest)}"
        f"<br>{format_percent(record.metrics.test_accuracy)} % test, "
        f"{format_percent(record.metrics.val_accuracy)} % validation, "
        f"{format_size(record.metrics.size_bytes)} kB{_costs_text(record.metrics, others)}"
        f"<br>bits {BitSummary.of(record.candidate.policy)}"
    )


def _costs_text(metrics: Metrics, costs: Sequence[CostAxis]) -> str:
    known = metrics.to_json()
    return "".join(
        f", {escape(cost.label)} {escape(cost.column.with_unit(known[cost.metric]))}"
        for cost in costs
        if cost.metric in known
    )


def trial_points(trials: Sequence[TrialRecord], cost: CostAxis) -> list[tuple[float, float]]:
    """Return cost and validation accuracy of evaluated trials whose cost is known."""
    return [
        (position, trial.metrics["val_accuracy"])
        for trial in trials
        if trial.metrics is not None and (position := cost.of(trial.metrics)) is not None
    ]


def final_points(records: Sequence[FinalRecord], cost: CostAxis) -> list[tuple[float, float]]:
    """Return cost and test accuracy of final networks and baselines whose cost is known."""
    return [
        (position, record.metrics["test_accuracy"])
        for record in records
        if (position := cost.of(record.metrics)) is not None
    ]
