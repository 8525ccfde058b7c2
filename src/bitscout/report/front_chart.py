# SPDX-License-Identifier: Apache-2.0
"""Accuracy over each cost of everything a run tried and trained (Fig. 2 of BOMP-NAS)."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

import numpy as np

from bitscout.core import BompScore
from bitscout.pipeline import FinalRecord, RunResult
from bitscout.report.chart_style import LAYOUT, Chart, axis
from bitscout.report.curves import equal_score_accuracy, lowest_usual
from bitscout.report.front_axis import CostAxis, cost_axes, log_axis
from bitscout.report.front_points import (
    RING,
    final_points,
    final_text,
    trial_points,
    trial_text,
)

__all__ = ["accuracy_charts", "baseline_symbols", "hidden_below"]

N_SCORE_LINES = 5  # At most: a line whose label would cover another's is left out.
# Of a label, as parts of the chart on a telephone, which is 300 by 400 pixels.
LABEL_WIDTH, LABEL_HEIGHT = 0.12, 0.045
# Plotly's name and the same shape as a character, for the legend.
BASELINE_SYMBOLS = (
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
)


def accuracy_charts(result: RunResult) -> dict[str, Chart]:
    """Return a scatter of accuracy over each cost of the front, by its id in the page.

    Candidates are coloured by trial number, earlier ones stronger, at their validation
    accuracy; final networks and baselines stand at their test accuracy, each final network
    linked to its candidate. Dotted lines join equal scores. A front of two metrics is a line; of
    a larger one each chart is a projection, in which its members have rings.
    """
    return {f"accuracy-{cost.id}": _accuracy_chart(result, cost) for cost in cost_axes(result)}


def _accuracy_chart(result: RunResult, cost: CostAxis) -> Chart:
    complete = result.complete
    points = [
        *trial_points(complete, cost),
        *final_points((*result.final, *result.baselines), cost),
    ]
    layout = _layout(points, hidden_below(result)[0], cost)
    traces = _score_lines(result, layout) if cost.metric == "size_bytes" else []
    if complete:
        traces += [_front_trace(result, cost), _candidate_trace(result, cost)]
    if result.final:
        traces += [_link_trace(result, cost), _final_trace(result.final, cost)]
    traces += [
        _baseline_trace(record, symbol, cost) for record, symbol, _ in baseline_symbols(result)
    ]
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
    candidates = [t.metrics["val_accuracy"] for t in result.complete if t.metrics is not None]
    if not candidates:
        return 0.0, 0
    shown = [r.metrics["test_accuracy"] for r in (*result.final, *result.baselines)]
    start = min([lowest_usual(candidates), *shown])
    return start, sum(accuracy < start for accuracy in candidates)


def _score_lines(result: RunResult, layout: Chart) -> list[Chart]:
    """Return lines of equal score across the visible part, up to the best score of the search."""
    objective = result.config.build_objective()
    scores = [trial.values[0] for trial in result.complete]
    if not isinstance(objective, BompScore) or not scores or max(scores) == min(scores):
        return []
    left, right = layout["xaxis"]["range"]
    sizes = np.logspace(left, right, 200)  # kB
    low, high = layout["yaxis"]["range"]
    levels = np.linspace(np.quantile(scores, 0.1), max(scores), N_SCORE_LINES)
    decimals = max(2, -floor(log10(levels[1] - levels[0])))
    traces: list[Chart] = []
    labels: list[tuple[float, float]] = []  # As parts of the chart's width and height.
    for score in levels[::-1]:  # The best has its label first.
        accuracies = 100 * equal_score_accuracy(objective, float(score), 1000 * sizes)
        visible = (accuracies >= low) & (accuracies <= min(high, 100))
        x, y = sizes[visible], accuracies[visible]
        if len(x) == 0:
            continue
        label = (log10(x[-1]) - left) / (right - left), (y[-1] - low) / (high - low)
        if label[0] < LABEL_WIDTH or any(_overlap(label, other) for other in labels):
            continue
        labels.append(label)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+text",
                "x": x.tolist(),
                "y": y.tolist(),
                "text": [*[""] * (len(x) - 1), f"{score:.{decimals}f}"],
                # Left of the end, the line rises towards it: clear of it and inside the chart.
                "textposition": "top left",
                "cliponaxis": False,
                "textfont": {"size": 11, "color": "--muted"},
                "line": {"dash": "dot", "width": 1, "color": "--faint"},
                "hoverinfo": "skip",
            }
        )
    return traces


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) < LABEL_WIDTH and abs(one[1] - other[1]) < LABEL_HEIGHT


def _front_trace(result: RunResult, cost: CostAxis) -> Chart:
    by_number = {trial.number: trial for trial in result.complete}
    points = trial_points([by_number[number] for number in result.pareto_front], cost)
    trace: Chart = {
        "type": "scatter",
        "x": [x for x, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "hoverinfo": "skip",
    }
    if len(result.front_metrics) > 2:
        return {**trace, "mode": "markers", "marker": RING}
    order = sorted(range(len(points)), key=lambda i: points[i])
    trace |= {axis: [trace[axis][i] for i in order] for axis in ("x", "y")}
    line = {"shape": "hv", "width": 1.5, "color": "--muted"}
    return {**trace, "mode": "lines", "line": line}


def _candidate_trace(result: RunResult, cost: CostAxis) -> Chart:
    complete = [trial for trial in result.complete if cost.of(trial.metrics) is not None]
    points = trial_points(complete, cost)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "text": [trial_text(trial, cost_axes(result)) for trial in complete],
        "marker": {
            "size": 9,
            "color": [trial.number for trial in complete],
            "colorscale": [[0, "--early"], [1, "--late"]],
            "line": {"width": 0.75, "color": "--page"},
        },
        "hovertemplate": "%{text}<extra></extra>",
    }


def _link_trace(result: RunResult, cost: CostAxis) -> Chart:
    """Return one trace of all lines from a candidate to its final network."""
    by_number = {trial.number: trial for trial in result.complete}
    x: list[float | None] = []
    y: list[float | None] = []
    for record in result.final:
        trial = by_number.get(-1 if record.number is None else record.number)
        ends = final_points([record], cost)
        if trial is not None:
            ends = [*trial_points([trial], cost), *ends]
        if len(ends) == 2:
            x += [*(position for position, _ in ends), None]
            y += [*(100 * accuracy for _, accuracy in ends), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"width": 1, "color": "--final"},
        "hoverinfo": "skip",
    }


def _final_trace(final: Sequence[FinalRecord], cost: CostAxis) -> Chart:
    return {
        **_record_points(final, cost),
        "marker": {"size": 12, "color": "--final", "line": {"width": 1.5, "color": "--page"}},
    }


def _baseline_trace(record: FinalRecord, symbol: str, cost: CostAxis) -> Chart:
    return {
        **_record_points([record], cost),
        "marker": {
            "size": 12,
            "symbol": symbol,
            "color": "--baseline",
            "line": {"width": 1.5, "color": "--page"},
        },
    }


def _record_points(records: Sequence[FinalRecord], cost: CostAxis) -> Chart:
    records = [record for record in records if cost.of(record.metrics) is not None]
    points = final_points(records, cost)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _ in points],
        "y": [100 * accuracy for _, accuracy in points],
        "text": [final_text(record, cost) for record in records],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _layout(points: Sequence[tuple[float, float]], start: float, cost: CostAxis) -> Chart:
    """Return axes that show `points` from accuracy `start` upwards."""
    top = max((accuracy for _, accuracy in points), default=1.0)
    margin = max(0.06 * (top - start), 0.002)
    y_axis = {**axis("accuracy in %"), "range": [100 * (start - margin), 100 * (top + margin)]}
    return {"xaxis": log_axis(cost.title, [x for x, _ in points]), "yaxis": y_axis, **LAYOUT}
