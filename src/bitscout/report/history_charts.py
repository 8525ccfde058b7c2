# SPDX-License-Identifier: Apache-2.0
"""How the search went on, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

from bitscout.core import METRIC_DIRECTIONS
from bitscout.pipeline import RunResult
from bitscout.report.chart_style import LAYOUT, Chart, axis, trial_axis
from bitscout.report.curves import best_so_far, lowest_usual, running_hypervolume
from bitscout.report.quantities import column, unit_of

__all__ = ["front_words", "hypervolume_chart", "score_chart"]


def score_chart(result: RunResult) -> Chart:
    """Return every trial's score, or accuracy where there is no score, and the best so far."""
    complete = result.complete
    has_score = result.config.objective.score is not None
    if has_score:
        values = [trial.values[0] for trial in complete]
    else:
        values = [100 * t.metrics["val_accuracy"] for t in complete if t.metrics]
    numbers = [trial.number for trial in complete]
    what = "score" if has_score else "accuracy in %"
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": numbers,
            "y": values,
            "name": "trial",
            "marker": {"color": "--faint", "size": 6},
            "hovertemplate": "trial %{x}: %{y:.4g}<extra></extra>",
        },
        _step_trace(numbers, best_so_far(values), "best so far"),
    ]
    layout = _layout(result, what)
    if values:
        low, high = lowest_usual(values), max(values)
        margin = 0.06 * (high - low) or 0.1
        layout["yaxis"]["range"] = [low - margin, high + margin]
    return {"data": data, "layout": layout}


def hypervolume_chart(result: RunResult) -> Chart:
    """Return the hypervolume of the front after each trial."""
    numbers = [trial.number for trial in result.complete]
    volumes = running_hypervolume(result.complete, result.front_metrics)
    trace = _step_trace(numbers, volumes, "hypervolume")
    return {"data": [trace], "layout": _layout(result, "hypervolume")}


def front_words(names: Sequence[str]) -> str:
    """Return the axes of `pipeline.front.front_points`: ``error, log size``."""
    return ", ".join(
        "error" if METRIC_DIRECTIONS[name] > 0 else f"log {column(name, unit_of(name), []).label}"
        for name in names
    )


def _step_trace(x: Sequence[int], y: Sequence[float], name: str) -> Chart:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": {"shape": "hv", "width": 2, "color": "--final"},
        "hovertemplate": "after trial %{x}: %{y:.4g}<extra></extra>",
    }


def _layout(result: RunResult, what: str) -> Chart:
    last = max((trial.number for trial in result.trials), default=0)
    return {"xaxis": trial_axis(last), "yaxis": axis(what), **LAYOUT}
