# SPDX-License-Identifier: Apache-2.0
"""What every chart of the page shares.

A chart is a plotly.js figure in plain data. Colours are names of the page's CSS variables
(``--final``); the page's script fills in their values, so that one figure serves the light and
the dark theme. Text from a run is escaped, because plotly.js reads a subset of HTML.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LAYOUT", "Chart", "axis", "trial_axis"]

Chart = dict[str, Any]  # JSON of plotly.js: "data" and "layout", or a part of them.

# The legend is part of the page, where it wraps as text does.
LAYOUT: Chart = {
    "hovermode": "closest",
    "showlegend": False,
    "margin": {"l": 8, "r": 12, "t": 20, "b": 8},
}

MAX_TRIAL_TICKS: Final = 10


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


def trial_axis(last: int) -> Chart:
    """Return an axis from trial 0 to trial `last`: whole numbers, and room for the marks."""
    room = max(0.5, 0.025 * last)
    # Steps grow by 2 to 2.5: 4 to 10 ticks.
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    return {
        **axis("trial"),
        "range": [-room, last + room],
        "tick0": 0,
        "dtick": next(step for step in steps if last <= MAX_TRIAL_TICKS * step),
    }
