# SPDX-License-Identifier: Apache-2.0
"""``bitscout report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitscout.cli.options import AsJson, Directory
from bitscout.cli.output import print_json, print_result

__all__ = ["report_command"]


def report_command(
    directory: Directory,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes.  [default: DIR/report.html]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page about a run, for any browser.

    The page needs no other file and no network; of an unfinished run it shows what there is.

    Example:
      bitscout report runs/quickstart
    """
    from bitscout.pipeline import RunDirectory, load_result
    from bitscout.report import write_report

    result = load_result(directory)
    path = write_report(result, out if out is not None else RunDirectory(directory).report)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print_result(str(path))
