# SPDX-License-Identifier: Apache-2.0
"""One self-contained page about the sensitivities of a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bitscout.errors import ConfigError
from bitscout.pipeline import RunDirectory, SensitivityReport
from bitscout.report.sensitivity_chart import CLUSTER_COLOURS, sensitivity_chart
from bitscout.report.sensitivity_tables import agreement_sentences, cluster_name

__all__ = ["write_sensitivity_page"]

MIN_HEIGHT: Final = 460
NAME_HEIGHT: Final = 7  # Pixels for each letter of the longest name, which stands upright.


def write_sensitivity_page(report: SensitivityReport, path: str | Path) -> Path:
    """Write the page about `report` to `path`, completely or not at all.

    Raises:
        ConfigError: If the file's name does not end in ``.html``.
        RunError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        msg = f"The picture is a page: name a file that ends in .html, got {str(path)!r}."
        raise ConfigError(msg)
    RunDirectory(path.parent).write_text(path, _render(report))
    return path


def _render(report: SensitivityReport) -> str:
    environment = Environment(
        loader=PackageLoader("bitscout.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = max(len(row.name) for row in report.layers)
    return environment.get_template("sensitivity.html").render(
        report=report,
        height=MIN_HEIGHT + NAME_HEIGHT * names,
        clusters=_clusters(report),
        cluster_name=cluster_name,
        sentences=agreement_sentences(report),
        charts_json=_script_json({"sensitivity": sensitivity_chart(report)}),
        result_json=_script_json(report.to_json()),
        plotly_js=Markup(get_plotlyjs()),  # trusted: plotly's own file
    )


def _clusters(report: SensitivityReport) -> list[tuple[str, str, str, int]]:
    """Return name, colour, bits and number of layers of each cluster."""
    found = []
    for cluster in sorted({row.cluster for row in report.layers}):
        rows = [row for row in report.layers if row.cluster == cluster]
        bits = ", ".join(map(str, reversed(rows[0].bits)))
        colour = CLUSTER_COLOURS[min(cluster, len(CLUSTER_COLOURS) - 1)]
        found.append((cluster_name(cluster), colour, bits, len(rows)))
    return found


def _script_json(document: dict[str, Any]) -> Markup:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # No `<` that could end the element.
