# SPDX-License-Identifier: Apache-2.0
"""Two costs of a front against each other: the side of it that no accuracy chart shows."""

from __future__ import annotations

from bitscout.pipeline import RunResult
from bitscout.report.chart_style import LAYOUT, Chart
from bitscout.report.front_axis import cost_axes, log_axis
from bitscout.report.front_chart import hidden_below
from bitscout.report.front_points import RING, trial_text

__all__ = ["cost_map"]


def cost_map(result: RunResult) -> tuple[str, Chart] | None:
    """Return the first two costs of a larger front against each other, coloured by accuracy."""
    costs = cost_axes(result)
    if len(costs) < 2:
        return None
    x, y = costs[:2]
    complete = [t for t in result.complete if x.of(t.metrics) and y.of(t.metrics)]
    start = 100 * hidden_below(result)[0]
    colours = [100 * t.metrics["val_accuracy"] for t in complete if t.metrics is not None]
    front = [trial for trial in complete if trial.number in result.pareto_front]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [x.of(trial.metrics) for trial in trials],
            "y": [y.of(trial.metrics) for trial in trials],
            **style,
        }
        for trials, style in (
            (front, {"marker": RING, "hoverinfo": "skip"}),
            (
                complete,
                {
                    "text": [trial_text(trial, costs) for trial in complete],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {
                        "size": 9,
                        "color": colours,
                        "cmin": start,
                        "cmax": max(colours, default=100.0),
                        "colorscale": [[0, "--late"], [1, "--early"]],
                        "line": {"width": 0.75, "color": "--page"},
                        "colorbar": {
                            "title": {
                                "text": "accuracy in %",
                                "side": "right",
                                "font": {"size": 13, "color": "--muted"},
                            },
                            "tickfont": {"size": 12, "color": "--muted"},
                            "thickness": 10,
                            "outlinewidth": 0,
                        },
                    },
                },
            ),
        )
    ]
    layout = {
        "xaxis": log_axis(x.title, [v for v in (x.of(t.metrics) for t in complete) if v]),
        "yaxis": log_axis(y.title, [v for v in (y.of(t.metrics) for t in complete) if v]),
        **LAYOUT,
    }
    return f"{y.label} over {x.label}", {"data": data, "layout": layout}
