# SPDX-License-Identifier: Apache-2.0
"""Traces, layer by layer: error bars on a logarithmic axis, clusters in colour, bits as text."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from bitscout.pipeline import LayerRow, SensitivityReport
from bitscout.report.chart_style import LAYOUT, Chart, axis
from bitscout.report.sensitivity_tables import cluster_name

__all__ = ["CLUSTER_COLOURS", "sensitivity_chart"]

# CSS variables of the page, from the most sensitive cluster.
CLUSTER_COLOURS: Final = ("--clustera", "--clusterb", "--clusterc", "--clusterd", "--muted")
TOP: Final = 0.72  # Of the chart's height, where the bits end and the traces begin downwards.
GAP: Final = 0.05


def sensitivity_chart(report: SensitivityReport) -> Chart:
    """Return the picture of a report.

    Above, the bit-widths each layer is left, below, the trace per weight with its standard error.
    Traces that are not positive have no place on a logarithmic axis: they are drawn hollow, on
    its lower edge.
    """
    rows = report.layers
    positive = [row.trace_per_weight for row in rows if row.trace_per_weight > 0]
    floor = min(positive) / 3 if positive else 1.0
    n_clusters = max(row.cluster for row in rows) + 1
    data: list[Chart] = []
    for cluster in range(n_clusters):
        members = [row for row in rows if row.cluster == cluster]
        data.append(_stems(members, floor, cluster))
        data.append(_traces(members, floor, cluster))
        data.append(_bits(members, cluster))
    widths = sorted({bits for row in rows for bits in row.bits})
    names = [row.name for row in rows]
    x_axis = {
        **axis(""),
        "type": "category",
        "categoryorder": "array",
        "categoryarray": names,
        "tickvals": names,
        "ticktext": [escape(name) for name in names],
        "showgrid": False,
        "ticks": "",
        "tickangle": -90 if len(names) > 6 else 0,
        "tickfont": {"size": 11, "color": "--muted"},
        "anchor": "y",
        "range": [-0.6, len(names) - 0.4],
    }
    y_axis = {
        **axis("trace per weight"),
        "type": "log",
        "exponentformat": "power",
        "dtick": 1,
        "domain": [0, TOP - GAP],
        "range": _range(rows, floor),
    }
    bits_axis = {
        **axis("bits"),
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [str(bits) for bits in widths],
        "domain": [TOP, 1],
        "showline": False,
        "ticks": "",
        "anchor": "x",
    }
    layout = {**LAYOUT, "xaxis": x_axis, "yaxis": y_axis, "yaxis2": bits_axis}
    return {"data": data, "layout": layout}


def _range(rows: tuple[LayerRow, ...], floor: float) -> list[float]:
    """Return the axis' ends as powers of ten."""
    high = max(row.trace_per_weight + row.standard_error / row.n_weights for row in rows)
    return [math.log10(floor), math.log10(max(high, 3 * floor)) + 0.15]


def _stems(rows: list[LayerRow], floor: float, cluster: int) -> Chart:
    """Return thin lines from the axis to the marks, which lead the eye to the names."""
    x: list[str | None] = []
    y: list[float | None] = []
    for row in rows:
        x += [row.name, row.name, None]
        y += [floor, max(row.trace_per_weight, floor), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": _colour(cluster), "width": 1},
        "opacity": 0.45,
        "hoverinfo": "skip",
    }


def _traces(rows: list[LayerRow], floor: float, cluster: int) -> Chart:
    values = [max(row.trace_per_weight, floor) for row in rows]
    errors = [row.standard_error / row.n_weights for row in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"cluster {cluster_name(cluster)}",
        "x": [row.name for row in rows],
        "y": values,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": errors,
            # A bar that reached zero would have no end on a logarithmic axis.
            "arrayminus": [min(e, 0.99 * v) for e, v in zip(errors, values, strict=True)],
            "color": _colour(cluster),
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {
            "color": _colour(cluster),
            "size": 9,
            "symbol": ["circle" if row.trace_per_weight > 0 else "circle-open" for row in rows],
        },
        "text": [_words(row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _bits(rows: list[LayerRow], cluster: int) -> Chart:
    pairs = [(row.name, str(bits)) for row in rows for bits in row.bits]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [name for name, _ in pairs],
        "y": [bits for _, bits in pairs],
        "yaxis": "y2",
        "marker": {"color": _colour(cluster), "size": 9, "symbol": "square"},
        "hoverinfo": "skip",
    }


def _words(row: LayerRow) -> str:
    said = [
        f"<b>{escape(row.name)}</b>",
        f"trace {row.trace:.4g} \u00b1 {row.standard_error:.2g}",
        f"{row.n_weights:,} weights, {row.trace_per_weight:.3g} each",
        f"cluster {cluster_name(row.cluster)}: {', '.join(map(str, reversed(row.bits)))} bits",
    ]
    if row.tie != row.name:
        said.append(f"shares its bits in {escape(row.tie)}")
    if row.accuracy_drop is not None:
        said.append(f"alone quantized: {100 * row.accuracy_drop:.1f} points of accuracy")
    return "<br>".join(said)


def _colour(cluster: int) -> str:
    return CLUSTER_COLOURS[min(cluster, len(CLUSTER_COLOURS) - 1)]
