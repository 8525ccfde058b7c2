# SPDX-License-Identifier: Apache-2.0
"""The budget of a run in words, and which of its networks are over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bitscout.core import Budget, Metrics
from bitscout.pipeline import RunResult
from bitscout.report.front_axis import CostAxis, budget_axes, cost_axes
from bitscout.report.quantities import ABSENT

__all__ = [
    "CostHeading",
    "bound_name",
    "bound_unit",
    "budget_sentence",
    "cost_cells",
    "cost_headings",
    "not_judged",
    "over_budget",
]

_UNITS: Final = {"kb": "kB", "ms": "ms", "mj": "mJ"}
_COUNTS: Final = {"macs": "MACs", "bops": "BOPs"}
_ALONE: Final = "The verdicts compare test accuracy and size alone"
_IN_EVERY_TABLE: Final = ("size_bytes", "macs")


@dataclass(frozen=True, slots=True)
class CostHeading:
    """One column of costs in the table of networks.

    Attributes:
        label: Name and unit: ``energy, µJ``.
        limit: The bound in that unit; empty where there is none.
        axis: The quantity.
    """

    label: str
    limit: str
    axis: CostAxis


def bound_name(name: str) -> str:
    """Return ``peak memory`` for ``peak_memory_kb``, ``MACs`` for ``macs``."""
    words, _, suffix = name.rpartition("_")
    return words.replace("_", " ") if suffix in _UNITS else _COUNTS.get(name, name)


def bound_unit(name: str) -> str:
    """Return ``kB`` for ``peak_memory_kb``; a count has none."""
    return _UNITS.get(name.rpartition("_")[2], "")


def budget_sentence(budget: Budget) -> str | None:
    """Return every bound in one sentence, `None` where there is no bound.

    Example:
        >>> budget_sentence(Budget(peak_memory_kb=4, macs=500_000))
        'Budget: peak memory at most 4 kB, MACs at most 500,000.'
    """
    said = [
        f"{bound_name(name)} at most {limit:,.10g} {bound_unit(name)}".rstrip()
        for name, limit in budget.bounds().items()
    ]
    return f"Budget: {', '.join(said)}." if said else None


def over_budget(budget: Budget, metrics: Metrics | None) -> str:
    """Return the names of the bounds that a network is over; empty where it is over none.

    Example:
        >>> over_budget(Budget(size_kb=4, macs=10), Metrics(size_bytes=5000, macs=99))
        'size, MACs'
    """
    known = budget.constraints(metrics or Metrics())
    return ", ".join(bound_name(name) for name, excess in known.items() if excess > 0)


def cost_headings(result: RunResult) -> tuple[CostHeading, ...]:
    """Return what the table of networks tells of the front's and the budget's costs.

    Size and MACs have columns of their own in every run.
    """
    limits = dict(result.config.budget.build().limits().values())
    axes = {axis.metric: axis for axis in (*cost_axes(result), *budget_axes(result))}
    return tuple(
        CostHeading(
            label=f"{axis.label}, {axis.column.unit}" if axis.column.unit else axis.label,
            limit=f"{limits[metric] / axis.column.scale:,.5g}" if metric in limits else "",
            axis=axis,
        )
        for metric, axis in axes.items()
        if metric not in _IN_EVERY_TABLE
    )


def cost_cells(metrics: Metrics | None, headings: Sequence[CostHeading]) -> tuple[str, ...]:
    """Return what a network costs, a cell for each heading."""
    known = metrics.to_json() if metrics is not None else {}
    return tuple(
        entry.brief(known[entry.name]) if entry.name in known else ABSENT
        for entry in (heading.axis.column for heading in headings)
    )


def not_judged(result: RunResult) -> str | None:
    """Return what the verdicts leave out; `None` where accuracy and size are all there is."""
    others = [axis.label for axis in cost_axes(result) if axis.metric != "size_bytes"]
    if not result.config.budget.build().bounds():
        return f"{_ALONE}, not {_listed(others)}." if others else None
    return (
        f"{_ALONE}, not {_listed([*others, 'the budget'])}: a baseline may cost more than the "
        "search allows its candidates."
    )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
