# SPDX-License-Identifier: Apache-2.0
"""Accuracy over size of everything a run tried and trained (Fig. 2 of BOMP-NAS)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from bitscout.core import BompScore
from bitscout.pipeline import FinalRecord, RunResult, TrialRecord
from bitscout.report.chart_style import LAYOUT, Chart, axis
from bitscout.report.curves import equal_score_accuracy, log_ticks, lowest_usual
from bitscout.report.rows import BitSummary, format_percent, format_size

__all__ = ["accuracy_size_chart", "baseline_symbols", "hidden_below"]

N_SCORE_LINES = 5
# Plotly's name and the same shape as a character, for the legend.
BASELINE_SYMBOLS = (
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
)


def accuracy_size_chart(result: RunResult) -> Chart:
    """Return the scatter of accuracy over size (Fig. 2 of BOMP-NAS).

    Candidates are coloured by trial number, earlier ones stronger, at their validation
    accuracy; final networks and baselines stand at their test accuracy, each final network
    linked to its candidate. Dotted lines join equal scores.
    """
    complete = result.complete
    points = [*_trial_points(complete), *_final_points((*result.final, *result.baselines))]
    layout = _layout(points, hidden_below(result)[0])
    traces = _score_lines(result, layout)
    if complete:
        traces += [_front_trace(result), _candidate_trace(complete)]
    if result.final:
        traces += [_link_trace(result), _final_trace(result.final)]
    traces += [_baseline_trace(record, symbol) for record, symbol, _ in baseline_symbols(result)]
    return {"data": traces, "layout": layout}


def baseline_symbols(result: RunResult) -> list[tuple[FinalRecord, str, str]]:
    """Return every baseline with its marker: Plotly's name, and the same as a character."""
    return [
        (record, *BASELINE_SYMBOLS[index % len(BASELINE_SYMBOLS)])
        for index, record in enumerate(result.baselines)
    ]


def hidden_below(result: RunResult) -> tuple[float, int]:
    """Return where the scatter's accuracy axis starts, a fraction, and how many points lie below.

    It starts at the lowest usual candidate, but shows every final network and baseline.
    """
    candidates = [accuracy for _, accuracy in _trial_points(result.complete)]
    if not candidates:
        return 0.0, 0
    shown = [accuracy for _, accuracy in _final_points((*result.final, *result.baselines))]
    start = min([lowest_usual(candidates), *shown])
    return start, sum(accuracy < start for accuracy in candidates)


def _score_lines(result: RunResult, layout: Chart) -> list[Chart]:
    """Return lines of equal score across the visible part, up to the best score of the search."""
    objective = result.config.objective.build()
    scores = [trial.values[0] for trial in result.complete]
    if not isinstance(objective, BompScore) or not scores or max(scores) == min(scores):
        return []
    left, right = layout["xaxis"]["range"]
    sizes = np.logspace(left, right, 200)  # kB
    low, high = layout["yaxis"]["range"]
    traces = []
    for score in np.linspace(np.quantile(scores, 0.1), max(scores), N_SCORE_LINES):
        accuracies = 100 * equal_score_accuracy(objective, float(score), 1000 * sizes)
        visible = (accuracies >= low) & (accuracies <= min(high, 100))
        x, y = sizes[visible], accuracies[visible]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+text",
                "x": x.tolist(),
                "y": y.tolist(),
                "text": [*[""] * (len(x) - 1), f"{score:.3g}"],
                "textposition": "top center",
                "cliponaxis": False,
                "textfont": {"size": 11, "color": "--muted"},
                "line": {"dash": "dot", "width": 1, "color": "--faint"},
                "hoverinfo": "skip",
            }
        )
    return traces


def _front_trace(result: RunResult) -> Chart:
    by_number = {trial.number: trial for trial in result.complete}
    points = _trial_points([by_number[number] for number in result.pareto_front])
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [size / 1000 for size, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "line": {"shape": "hv", "width": 1.5, "color": "--muted"},
        "hoverinfo": "skip",
    }


def _candidate_trace(complete: Sequence[TrialRecord]) -> Chart:
    points = _trial_points(complete)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [size / 1000 for size, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "text": [_trial_text(trial) for trial in complete],
        "marker": {
            "size": 9,
            "color": [trial.number for trial in complete],
            "colorscale": [[0, "--early"], [1, "--late"]],
            "line": {"width": 0.75, "color": "--page"},
        },
        "hovertemplate": "%{text}<extra></extra>",
    }


def _link_trace(result: RunResult) -> Chart:
    """Return one trace of all lines from a candidate to its final network."""
    by_number = {trial.number: trial for trial in result.complete}
    x: list[float | None] = []
    y: list[float | None] = []
    for record in result.final:
        trial = by_number.get(-1 if record.number is None else record.number)
        if trial is not None:
            ends = (*_trial_points([trial]), *_final_points([record]))
            x += [*(size / 1000 for size, _ in ends), None]
            y += [*(100 * accuracy for _, accuracy in ends), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"width": 1, "color": "--final"},
        "hoverinfo": "skip",
    }


def _final_trace(final: Sequence[FinalRecord]) -> Chart:
    return {
        **_record_points(final),
        "marker": {"size": 12, "color": "--final", "line": {"width": 1.5, "color": "--page"}},
    }


def _baseline_trace(record: FinalRecord, symbol: str) -> Chart:
    return {
        **_record_points([record]),
        "marker": {
            "size": 12,
            "symbol": symbol,
            "color": "--baseline",
            "line": {"width": 1.5, "color": "--page"},
        },
    }


def _record_points(records: Sequence[FinalRecord]) -> Chart:
    points = _final_points(records)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [size / 1000 for size, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "text": [_final_text(record) for record in records],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _trial_text(trial: TrialRecord) -> str:
    assert trial.metrics is not None
    assert trial.candidate is not None
    score = f"<br>score {trial.score:.4g}" if trial.score is not None else ""
    return (
        f"<b>trial {trial.number}</b> {escape(trial.candidate.digest)}"
        f"<br>{format_percent(trial.metrics.val_accuracy)} % validation, "
        f"{format_size(trial.metrics.size_bytes)} kB"
        f"<br>bits {BitSummary.of(trial.candidate.policy)}{score}"
    )


def _final_text(record: FinalRecord) -> str:
    return (
        f"<b>{escape(record.label)}</b> {escape(record.candidate.digest)}"
        f"<br>{format_percent(record.metrics.test_accuracy)} % test, "
        f"{format_percent(record.metrics.val_accuracy)} % validation, "
        f"{format_size(record.metrics.size_bytes)} kB"
        f"<br>bits {BitSummary.of(record.candidate.policy)}"
    )


def _trial_points(trials: Sequence[TrialRecord]) -> list[tuple[float, float]]:
    """Return size in bytes and validation accuracy of evaluated trials."""
    return [
        (trial.metrics["size_bytes"], trial.metrics["val_accuracy"])
        for trial in trials
        if trial.metrics is not None
    ]


def _final_points(records: Sequence[FinalRecord]) -> list[tuple[float, float]]:
    """Return size in bytes and test accuracy."""
    return [(record.metrics["size_bytes"], record.metrics["test_accuracy"]) for record in records]


def _layout(points: Sequence[tuple[float, float]], start: float) -> Chart:
    """Return axes that show `points` from accuracy `start` upwards."""
    sizes = [size / 1000 for size, _ in points] or [1.0]
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    ticks = log_ticks(low / 100, high * 100)  # Some more on both sides, for who zooms out.
    top = max((accuracy for _, accuracy in points), default=1.0)
    margin = max(0.06 * (top - start), 0.002)
    x_axis = {
        **axis("size in kB, log scale"),
        "type": "log",
        "range": np.log10([low, high]).tolist(),
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
    y_axis = {**axis("accuracy in %"), "range": [100 * (start - margin), 100 * (top + margin)]}
    return {"xaxis": x_axis, "yaxis": y_axis, **LAYOUT}
