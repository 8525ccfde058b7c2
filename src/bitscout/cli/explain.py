# SPDX-License-Identifier: Apache-2.0
"""``bitscout explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from bitscout.cli.options import AsJson, Settings
from bitscout.cli.output import print_json, print_result

if TYPE_CHECKING:
    from bitscout.core import Value
    from bitscout.pipeline import ExplainReport

__all__ = ["explain_command"]


def explain_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|CONFIG.yaml|MODEL",
            help="A preset (see: bitscout list presets), a configuration file, a built-in network "
            "(bitscout list models), or the import path of your own, pkg.mod:make_net.",
            show_default=False,
        ),
    ],
    input: Annotated[  # the name of the option
        str | None,
        typer.Option(
            metavar="CxHxW", help="Of a MODEL: shape of one image, 3x32x32.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a MODEL: its weights, to see whether they fit.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be searched, layer by layer, and what not, and why.

    Examples:
      bitscout explain quickstart
      bitscout explain bomp-cifar10 --set space.bits=[2,4,8]
      bitscout explain mypkg.models:make_net --input 3x32x32 --set space.tie=layer
    """
    from bitscout.pipeline import explain_source

    report = explain_source(
        source,
        input_shape=input,
        checkpoint=None if checkpoint is None else str(checkpoint),
        settings=settings or [],
    )
    if as_json:
        print_json(report.to_json())
    else:
        print_result(_layer_table(report), "", *report.notes, *_sizes(report))


def _layer_table(report: ExplainReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("choices, or why there are none", overflow="fold")
    for layer in report.layers:
        choices = "; ".join(
            f"{name.split('.')[-1]} {_values_text(values)}"
            for name, values in layer.choices.items()
        )
        table.add_row(
            Text(layer.name), layer.kind, Text(layer.state), Text(choices or layer.reason)
        )
    return table


def _values_text(values: Sequence[Value]) -> str:
    """Return ``2-7`` for three or more consecutive integers, else the values one by one."""
    first = values[0]
    if isinstance(first, int) and len(values) > 2:
        run = range(first, first + len(values))
        if list(values) == list(run):
            return f"{run[0]}-{run[-1]}"
    return " ".join(str(value) for value in values)


def _sizes(report: ExplainReport) -> list[str]:
    summary = report.summary
    channels, height, width = report.input_shape
    classes = "" if report.n_classes is None else f", {report.n_classes} classes"
    return [
        f"{report.name}: images {channels}x{height}x{width}{classes}",
        f"{summary.n_dimensions} dimensions, {summary.n_bit_variables} of them bit-widths",
        (
            f"10^{summary.log10_architectures:.3f} architectures x "
            f"10^{summary.log10_policies:.3f} policies = 10^{summary.log10_size:.3f} points"
        ),
        f"10^{summary.log10_networks:.3f} architectures are different networks",
    ]
