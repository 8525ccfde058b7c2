# SPDX-License-Identifier: Apache-2.0
"""``bitscout search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitscout.cli.options import AsJson, Quiet, Settings, Source
from bitscout.cli.output import print_json, print_note

__all__ = ["search_command"]


def search_command(  # noqa: PLR0913  # one for each option
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the run goes.  [default: runs/NAME, or runs/NAME-2 ...]"
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Candidates to try: searcher.n_trials.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Root of every random stream.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Where networks are trained.")
    ] = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole configuration and stop.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search networks, train the best of them, and write a report.

    Examples:
      bitscout search quickstart
      bitscout search quickstart --trials 50 --set budget.size_kb=8
      bitscout search bomp-cifar10 --dry-run > my.yaml

    The best are compared with uniform-precision baselines that get the same training. A run that
    is interrupted goes on with: bitscout resume DIR
    """
    from bitscout.pipeline import dump_config, load_config, next_free_directory, run_search

    flags = {"searcher.n_trials": trials, "seed": seed, "device": device}
    changes = [f"{key}={value}" for key, value in flags.items() if value is not None]
    config = load_config(source, [*(settings or []), *changes])
    if dry_run:
        if as_json:
            print_json(config.model_dump(mode="json"))
        else:
            print(dump_config(config), end="")
        return
    directory = out if out is not None else next_free_directory(Path("runs"), config.name)
    print_note(f"Run directory: {directory}")

    from bitscout.cli.session import carry_out

    carry_out(
        lambda listener: run_search(config, directory, listener=listener),
        directory,
        quiet=quiet,
        as_json=as_json,
    )
