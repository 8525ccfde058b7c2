# SPDX-License-Identifier: Apache-2.0
"""The answer of a run in a few words, before any detail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bitscout.core import Metrics
from bitscout.pipeline import RunResult
from bitscout.report.quantities import column, unit_of
from bitscout.report.rows import (
    NetworkRow,
    format_percent,
    network_row,
    trial_row,
)

__all__ = ["Headline", "headline", "state_sentence", "verdict_summary"]

# What a run knows of a network only through its hardware.
HARDWARE_METRICS = ("latency_ms", "energy_mj", "peak_memory_bytes")


@dataclass(frozen=True, slots=True)
class Headline:
    """The one network to look at first.

    Attributes:
        what: Why this network, and which it is.
        accuracy: In percent, without its unit.
        accuracy_of: Which accuracy that is.
        row: The network, formatted.
        costs: Name, number and unit of what it costs on the run's hardware, if that is known.
    """

    what: str
    accuracy: str
    accuracy_of: str
    row: NetworkRow
    costs: tuple[tuple[str, str, str], ...] = ()


def headline(result: RunResult) -> Headline | None:
    """Return the best final network, else the best candidate so far, else `None`."""
    final, trial = result.best_final, result.best
    if final is not None:
        return Headline(
            what=f"Best final network: {final.label}",
            accuracy=format_percent(final.metrics.test_accuracy),
            accuracy_of="test accuracy",
            row=network_row(final, result),
            costs=_costs(final.metrics),
        )
    if trial is not None:
        row = trial_row(trial)
        what, costs = f"Best candidate: {row.label}", _costs(trial.metrics)
        return Headline(what, row.validation, "validation accuracy", row, costs)
    return None


def state_sentence(result: RunResult) -> str:
    """Return how far the run is, and how it goes on where it is not done."""
    counts = result.counts()
    finished, n_trials = sum(counts.values()), result.config.searcher.n_trials
    details = [f"{counts[name]} {name}" for name in ("failed", "infeasible") if counts[name]]
    trials = f"{finished} of {n_trials} trials" + (f" ({', '.join(details)})" if details else "")
    if result.state == "complete":
        return f"Complete: {trials}."
    if result.state == "finalizing":
        return f"Unfinished: {trials}, {_finals(result)}."
    return f"Unfinished: {trials}, final networks not yet trained."


def verdict_summary(result: RunResult) -> str | None:
    """Return whether the search was worth it, in one sentence; `None` before this is known."""
    outcomes = Counter(verdict.outcome for verdict in result.verdicts)
    n_baselines = sum(outcomes.values())
    if not n_baselines:
        return None
    if not outcomes["won"]:
        return (
            "Nothing found beats a uniform-precision baseline: no network chosen on validation "
            "data is at least as accurate and at most as large as one."
        )
    if outcomes["won"] < n_baselines:
        beaten = f"{outcomes['won']} of {n_baselines} uniform-precision baselines"
    else:
        beaten = (
            "the uniform-precision baseline"
            if n_baselines == 1
            else (f"all {n_baselines} uniform-precision baselines")
        )
    return f"The search beats {beaten}."


def _costs(metrics: Metrics | None) -> tuple[tuple[str, str, str], ...]:
    known = metrics.to_json() if metrics else {}
    costs = []
    for name in HARDWARE_METRICS:
        if name in known:
            entry = column(name, unit_of(name), [known[name]])
            # Three digits are enough for a headline.
            digits = f"{known[name] / entry.scale:.3g}"
            costs.append((entry.label, digits, entry.unit))
    return tuple(costs)


def _finals(result: RunResult) -> str:
    count = len(result.final) + len(result.baselines)
    return f"{count} final {'network' if count == 1 else 'networks'} trained so far"
