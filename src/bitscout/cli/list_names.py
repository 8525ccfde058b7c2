# SPDX-License-Identifier: Apache-2.0
"""``bitscout list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from bitscout.cli.catalog import entries
from bitscout.cli.options import AsJson
from bitscout.cli.output import print_json, print_result

__all__ = ["Kind", "list_command"]


class Kind(StrEnum):
    """What can be listed."""

    PRESETS = "presets"
    SPACES = "spaces"
    SEARCHERS = "searchers"
    HARDWARE = "hardware"
    DATASETS = "datasets"
    MODELS = "models"


def list_command(
    kind: Annotated[
        Kind | None, typer.Argument(help="What to list; everything if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the names that a configuration or a command may use.

    Examples:
      bitscout list presets
      bitscout list --json
    """
    kinds = [kind] if kind is not None else list(Kind)
    listed = {str(kind): entries(kind) for kind in kinds}
    if as_json:
        print_json(
            {
                kind: [{"name": name, "description": text} for name, text in names.items()]
                for kind, names in listed.items()
            }
        )
        return
    for index, (name, names) in enumerate(listed.items()):
        heading = [Text(name, style="bold")] if len(listed) > 1 else []
        print_result(*([""] if index else []), *heading, _table(names))


def _table(names: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, description in names.items():
        table.add_row(Text(name), Text(description))
    return table
