# SPDX-License-Identifier: Apache-2.0
"""What every chart of the page shares.

A chart is a plotly.js figure in plain data. Colours are names of the page's CSS variables
(``--final``); the page's script fills in their values, so that one figure serves the light and
the dark theme. Text from a run is escaped, because plotly.js reads a subset of HTML.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LAYOUT", "Chart", "axis"]

Chart = dict[str, Any]  # JSON of plotly.js: "data" and "layout", or a part of them.

# The legend is part of the page, where it wraps as text does.
LAYOUT: Chart = {
    "hovermode": "closest",
    "showlegend": False,
    "margin": {"l": 8, "r": 12, "t": 20, "b": 8},
}


def axis(title: str) -> Chart:
    """Return an axis in the style of the page."""
    return {
        "title": {"text": title, "font": {"size": 13, "color": "--muted"}},
        "gridcolor": "--grid",
        "linecolor": "--rule",
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "--rule",
        "tickfont": {"size": 12, "color": "--muted"},
        "automargin": True,
    }
