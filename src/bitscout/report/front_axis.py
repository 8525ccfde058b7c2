# SPDX-License-Identifier: Apache-2.0
"""The costs that the front of a search is about, as axes of its charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitscout.core import METRIC_DIRECTIONS, Metrics
from bitscout.pipeline import RunResult
from bitscout.report.chart_style import Chart, axis
from bitscout.report.curves import log_ticks
from bitscout.report.quantities import Column, column, unit_of

__all__ = ["CostAxis", "budget_axes", "cost_axes", "log_axis"]

MARGIN = 1.25  # Room on both sides, as a factor.


@dataclass(frozen=True, slots=True)
class CostAxis:
    """One cost.

    Attributes:
        metric: Its name in `Metrics`.
        id: The same for use in the page: ``peak-memory``.
        column: How it is written.
    """

    metric: str
    id: str
    column: Column

    @property
    def label(self) -> str:
        """What is on the axis: ``size``."""
        return self.column.label

    @property
    def title(self) -> str:
        """Name and unit: ``size in kB``."""
        return f"{self.label} in {self.column.unit}" if self.column.unit else self.label

    def of(self, metrics: Metrics | None) -> float | None:
        """Return the position of a network, in the axis' unit; `None` where it is not known."""
        known = metrics.to_json() if metrics is not None else {}
        return known[self.metric] / self.column.scale if known.get(self.metric) else None


def cost_axes(result: RunResult) -> tuple[CostAxis, ...]:
    """Return the costs of the run's front: what accuracy is traded against, one to three."""
    return _axes(result, result.front_metrics)


def budget_axes(result: RunResult) -> tuple[CostAxis, ...]:
    """Return the costs that the run's budget bounds."""
    return _axes(result, result.config.budget.build().metrics)


def _axes(result: RunResult, names: Sequence[str]) -> tuple[CostAxis, ...]:
    records = (*result.final, *result.baselines)
    everything = [*(t.metrics for t in result.complete), *(r.metrics for r in records)]
    known = [metrics.to_json() for metrics in everything if metrics is not None]
    found = []
    for name in names:
        if METRIC_DIRECTIONS[name] > 0:
            continue
        values = [metrics[name] for metrics in known if name in metrics]
        entry = column(name, unit_of(name), values)
        if name == "size_bytes":
            entry = Column(name, "size", "kB", 1000.0, 3)  # As in every table of the page.
        found.append(CostAxis(name, entry.label.lower().replace(" ", "-"), entry))
    return tuple(found)


def log_axis(title: str, values: Sequence[float]) -> Chart:
    """Return a logarithmic axis that shows all of `values`, which are > 0."""
    low, high = min(values, default=1.0) / MARGIN, max(values, default=1.0) * MARGIN
    beyond = log_ticks(low / 100, high * 100)  # Some more on both sides, for who zooms out.
    ticks = sorted({*log_ticks(low, high), *(t for t in beyond if not low <= t <= high)})
    return {
        **axis(f"{title}, log scale"),
        "type": "log",
        "range": np.log10([low, high]).tolist(),
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
