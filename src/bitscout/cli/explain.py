# SPDX-License-Identifier: Apache-2.0
"""``bitscout explain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bitscout.cli.options import AsJson, Settings, Source
from bitscout.cli.output import print_json, print_result

if TYPE_CHECKING:
    from bitscout.core import Value
    from bitscout.pipeline import ExplainReport

__all__ = ["explain_command"]


def explain_command(source: Source, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show what would be searched, layer by layer.

    Examples:
      bitscout explain quickstart
      bitscout explain bomp-cifar10 --set space.bits=[2,4,8]
    """
    from bitscout.pipeline import explain, load_config

    report = explain(load_config(source, settings or []))
    if as_json:
        print_json(report.to_json())
    else:
        print_result(_layer_table(report), "", *_sizes(report))


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
    return [
        f"{report.name}: images {channels}x{height}x{width}, {report.n_classes} classes",
        f"{summary.n_dimensions} dimensions, {summary.n_bit_variables} of them bit-widths",
        (
            f"10^{summary.log10_architectures:.3f} architectures x "
            f"10^{summary.log10_policies:.3f} policies = 10^{summary.log10_size:.3f} points"
        ),
        f"10^{summary.log10_networks:.3f} architectures are different networks",
    ]
