# SPDX-License-Identifier: Apache-2.0
"""Where time, energy and memory go: one bar a layer, in the order of execution."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bitscout.hardware import CostReport
from bitscout.report.chart_style import LAYOUT, Chart, axis
from bitscout.report.quantities import Column, column, columns, is_of_every_layer, part_names

__all__ = ["CostChart", "breakdown", "cost_chart"]

# What is drawn, in this order; the first known name of a line.
_PANELS: Final = (
    ("energy_mj",),
    ("latency_ms", "cycles"),
    ("peak_memory_bytes",),
    ("size_bytes", "flash_bytes"),
)
MAX_PANELS: Final = 2
GAP: Final = 0.12  # Between two panels, as a part of the chart's height.
# CSS variables of the page, from the part that is drawn first.
MANY_COLOURS: Final = ("--parta", "--partb", "--partc", "--partd", "--parte", "--partf")
TWO_COLOURS: Final = ("--single", "--rest")


@dataclass(frozen=True)
class CostChart:
    """A picture of one report.

    Attributes:
        chart: JSON of plotly.js.
        legend: For each quantity that is drawn in parts, its name, and name and colour of each.
        title: What it shows, in words.
    """

    chart: Chart
    legend: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    title: str


def cost_chart(report: CostReport) -> CostChart | None:
    """Return the picture of a report; `None` where no layer has a cost of its own."""
    by_name = {entry.name: entry for entry in columns(report)}
    drawn = [
        next((name for name in names if is_of_every_layer(report, name)), None)
        for names in (*_PANELS, tuple(by_name))
    ]
    names = list(dict.fromkeys(name for name in drawn if name is not None))[:MAX_PANELS]
    if not names:
        return None
    traces: list[Chart] = []
    legend: list[tuple[str, tuple[tuple[str, str], ...]]] = []
    layout: Chart = {**LAYOUT, "barmode": "stack", "bargap": 0.25}
    for index, name in enumerate(names):
        entry, parts = _rescaled(report, by_name[name]), breakdown(report, name)
        colours = MANY_COLOURS if len(parts) > len(TWO_COLOURS) else TWO_COLOURS
        traces += [
            _bars(report, entry, part, colour, index)
            for part, colour in zip(parts.items(), colours, strict=False)
        ]
        if len(parts) > 1:
            legend.append((entry.label, tuple(zip(parts, colours, strict=False))))
        layout |= _axes(entry, index, len(names))
        if name == "peak_memory_bytes":
            layout["shapes"] = [_level(report.total[name] / entry.scale, index)]
            legend.append((entry.label, (("of the network", ""),)))
    layout["xaxis" if len(names) == 1 else "xaxis2"] |= {
        "showticklabels": True,
        "tickvals": [layer.name for layer in report.layers],
        "ticktext": [escape(layer.name.removesuffix(".conv")) for layer in report.layers],
    }
    labels = [by_name[name].label for name in names]
    return CostChart(
        {"data": traces, "layout": layout},
        tuple(legend),
        f"{' and '.join(labels)} of each of {len(report.layers)} layers".capitalize(),
    )


def breakdown(report: CostReport, name: str) -> Mapping[str, Sequence[float]]:
    """Return the parts a quantity is the sum of, layer by layer, by their labels.

    Parts are the other quantities of its unit, if they add up to it in every layer: ``core_mj``,
    ``dram_mj`` and so on to ``energy_mj``. Time has the parts of the cycles it is proportional
    to. A quantity without parts is its own.
    """
    parts = _parts(report, name)
    if parts:
        return parts
    cycles = _parts(report, "cycles") if name == "latency_ms" else {}
    if cycles and all(layer.costs["cycles"] > 0 for layer in report.layers):
        ratios = [layer.costs[name] / layer.costs["cycles"] for layer in report.layers]
        if max(ratios) - min(ratios) <= 1e-9 * max(ratios):
            return {
                label.removesuffix(" cycles"): [ratios[0] * value for value in values]
                for label, values in cycles.items()
            }
    return {_label(report, name): [layer.costs[name] for layer in report.layers]}


def _parts(report: CostReport, name: str) -> dict[str, list[float]]:
    return {
        _label(report, part): [layer.costs[part] for layer in report.layers]
        for part in part_names(report, name)
    }


def _label(report: CostReport, name: str) -> str:
    return column(name, report.units[name], []).label


def _rescaled(report: CostReport, entry: Column) -> Column:
    """Return `entry` with the unit that suits a single layer."""
    values = [layer.costs[entry.name] for layer in report.layers]
    return column(entry.name, report.units[entry.name], values)


def _bars(
    report: CostReport,
    entry: Column,
    part: tuple[str, Sequence[float]],
    colour: str,
    panel: int,
) -> Chart:
    label, values = part
    suffix = "" if panel == 0 else str(panel + 1)
    return {
        "type": "bar",
        "x": [layer.name for layer in report.layers],
        "y": [value / entry.scale for value in values],
        "text": [
            f"<b>{escape(layer.name)}</b> {layer.weight_bits}/{layer.act_bits} bit"
            f"<br>{escape(label)} {escape(entry.with_unit(value))}"
            for layer, value in zip(report.layers, values, strict=True)
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour},
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
    }


def _axes(entry: Column, panel: int, n_panels: int) -> Chart:
    suffix = "" if panel == 0 else str(panel + 1)
    height = (1 - GAP * (n_panels - 1)) / n_panels
    top = 1 - panel * (height + GAP)
    unit = re.sub(r"\^(\d+)", r"<sup>\1</sup>", escape(entry.unit))  # Plotly's HTML.
    title = f"{escape(entry.label)}, {unit}" if unit else escape(entry.label)
    x_axis = {
        **axis(""),
        "type": "category",
        "anchor": f"y{suffix}",
        "showgrid": False,
        "showticklabels": False,
        "ticks": "",
        "tickangle": -90,
        "tickfont": {"size": 10, "color": "--muted"},
    }
    if panel:
        x_axis["matches"] = "x"
    y_axis = {
        **axis(title),
        "anchor": f"x{suffix}",
        "domain": [max(top - height, 0), top],
        "rangemode": "tozero",
        "nticks": 5,
    }
    return {f"xaxis{suffix}": x_axis, f"yaxis{suffix}": y_axis}


def _level(value: float, panel: int) -> Chart:
    """Return a dashed line across a panel: the network's own value, which is no sum."""
    suffix = "" if panel == 0 else str(panel + 1)
    return {
        "type": "line",
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix}",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"dash": "dash", "width": 1, "color": "--muted"},
    }
