# SPDX-License-Identifier: Apache-2.0
"""One self-contained page about a run: no network, no other file, any modern browser."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from bitscout.pipeline import RunDirectory, RunResult, dump_config
from bitscout.report.bit_map import bit_map
from bitscout.report.bounds import budget_sentence, cost_headings, not_judged, over_budget
from bitscout.report.certificates import certificate_summary, size_sentences, target_rows
from bitscout.report.costs import cost_sections
from bitscout.report.front_axis import cost_axes
from bitscout.report.front_chart import (
    accuracy_charts,
    baseline_symbols,
    hidden_below,
)
from bitscout.report.front_map import cost_map
from bitscout.report.headline import headline, state_sentence, verdict_summary
from bitscout.report.history_charts import front_words, hypervolume_chart, score_chart
from bitscout.report.rejected import budget_chart, rejected
from bitscout.report.rows import format_count, format_size, network_row
from bitscout.report.untrained import untrained

__all__ = ["render_report", "write_report"]

# Rows of the tables of trials without a result; all of them are in the page's JSON.
MAX_LISTED_TRIALS = 200


def write_report(result: RunResult, path: str | Path) -> Path:
    """Write the page about `result` to `path`, completely or not at all.

    Args:
        result: A run in any state: nothing evaluated yet, unfinished, or complete.
        path: File to write; replaced if it exists.

    Returns:
        `path`.

    Raises:
        RunError: If the file cannot be written.
    """
    path = Path(path)
    RunDirectory(path.parent).write_text(path, render_report(result))
    return path


def render_report(result: RunResult) -> str:
    """Return the page as HTML.

    It holds plotly.js (4.8 MB) and every datum, and forbids itself by its content security
    policy to load anything. Without scripts all but the charts can be read.
    """
    costs, no_costs = cost_sections(result)
    budget_picture = budget_chart(result)
    map_of_costs = cost_map(result)
    axes = cost_axes(result)
    headings = cost_headings(result)
    budget = result.config.budget.build()
    ended = untrained(result)
    page: str = _template().render(
        result=result,
        costs=costs,
        no_costs=no_costs,
        headline=headline(result),
        state=ended.state if ended else state_sentence(result),
        budget=budget_sentence(budget),
        untrained=ended,
        not_judged=not_judged(result),
        verdict_summary=verdict_summary(result),
        cost_headings=headings,
        final=[network_row(record, result, headings) for record in result.final],
        baselines=[network_row(record, result, headings) for record in result.baselines],
        over={r.name: over_budget(budget, r.metrics) for r in result.baselines},
        bit_map=bit_map(result),
        certificates=[
            (record, result.certificates[record.name])
            for record in result.final
            if record.name in result.certificates
        ],
        best_name=best.name if (best := result.best_final) else None,
        certificate_summary=certificate_summary,
        size_sentences=size_sentences,
        target_rows=target_rows,
        hidden_below=hidden_below(result)[1],
        cost_axes=axes,
        front_title=_title(axis.label for axis in axes),
        cost_map=map_of_costs[0] if map_of_costs else None,
        front_words=front_words(result.front_metrics),
        baseline_symbols=baseline_symbols(result),
        rejected=rejected(result),
        has_budget_chart=budget_picture is not None,
        failed=[trial for trial in result.trials if trial.outcome == "failed"],
        max_listed=MAX_LISTED_TRIALS,
        config_yaml=dump_config(result.config),
        environment=_flatten(result.environment),
        dataset=_flatten(result.dataset),
        commands=_commands(result),
        format_size=format_size,
        format_count=format_count,
        charts_json=_script_json(
            {
                **accuracy_charts(result),
                **({"cost-map": map_of_costs[1]} if map_of_costs else {}),
                "score": score_chart(result),
                "hypervolume": hypervolume_chart(result),
                **({"budget": budget_picture} if budget_picture is not None else {}),
                **{
                    network.id: network.picture.chart
                    for section in costs
                    for network in section.networks
                    if network.picture is not None
                },
            }
        ),
        result_json=_script_json(result.to_json()),
        plotly_js=Markup(get_plotlyjs()),  # trusted: plotly's own file
    )
    return page


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("bitscout.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["power"] = _power
    environment.filters["code"] = _code
    return environment.get_template("report.html")


def _power(unit: str) -> Markup:
    """Return ``10^6`` as 10 with a raised 6."""
    return Markup(re.sub(r"\^(\d+)", r"<sup>\1</sup>", str(escape(unit))))


def _title(costs: Iterable[str]) -> str:
    """Return ``Accuracy, size and energy``."""
    *first, last = ("Accuracy", *costs)
    return f"{', '.join(first)} and {last}" if first else last


def _code(text: str) -> Markup:
    """Return text with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _script_json(document: object) -> Markup:
    r"""Return JSON that is safe inside a script element: no `<` that could end or open one."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _flatten(document: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted keys and values as text."""
    rows = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + key, ", ".join(str(item) for item in value)))
        else:
            rows.append((prefix + key, str(value)))
    return rows


def _commands(result: RunResult) -> list[tuple[str, str]]:
    """Return what to run to go on with this run or to repeat it, with the reason."""
    directory = shlex.quote(str(result.directory))
    again = shlex.quote(f"{result.directory}-again")
    config = shlex.quote(str(result.directory / "config.yaml"))
    commands = [("Repeat the run", f"bitscout search {config} --out {again}")]
    if result.state != "complete" and untrained(result) is None:
        commands.insert(0, ("Go on with the run", f"bitscout resume {directory}"))
    commands.append(("Look at it in the terminal", f"bitscout show {directory}"))
    if result.final:
        export = f"bitscout export {directory} --format c --target cortex-m"
        commands += [
            ("Prove again what the files compute", f"bitscout verify {directory}"),
            ("Put the best network on a Cortex-M", export),
        ]
    return commands
