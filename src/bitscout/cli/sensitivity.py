# SPDX-License-Identifier: Apache-2.0
"""``bitscout sensitivity``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bitscout.cli.interruption import interruptible
from bitscout.cli.options import AsJson, Quiet, Settings
from bitscout.cli.output import print_json, print_note, print_result, stderr_console

__all__ = ["sensitivity_command"]

_Progress = Callable[[str, int, int], None]


def sensitivity_command(  # noqa: PLR0913  # one for each option
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|CONFIG.yaml|DIR|MODEL",
            help="A preset or configuration of a given network, a run, a built-in network "
            "(see: bitscout list models) or an import path, pkg.mod:make_net.",
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of a MODEL: its weights.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:PATH]",
            help="Of a MODEL: what it was trained on (see: bitscout list datasets).  "
            "[default: digits]",
            show_default=False,
        ),
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="gauss-newton, hessian (the papers', much slower) or fisher.  "
            "[default: the configuration's; gauss-newton]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Training images.  [default: the configuration's; 512]",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            min=2,
            max=8,
            help="Also quantize one layer at a time to so many bits, and compare the ranks of "
            "the accuracy drops.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Keep results here. A run keeps its own.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page with the picture.", show_default=False
        ),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how sensitive each layer is: its trace, its cluster, and the bits that leaves it.

    Examples:
      bitscout sensitivity resnet20 --checkpoint resnet20.safetensors --dataset cifar10:data
      bitscout sensitivity runs/mine --measure 2 --out sensitivity.html
      bitscout sensitivity mypkg.models:make_net --dataset npz:data.npz --json
    """
    with interruptible("Interrupted."):
        from bitscout.pipeline import sensitivity  # What takes long to import may be interrupted.

        with _shown_progress(quiet) as progress:
            report = sensitivity(
                source,
                checkpoint=checkpoint,
                dataset=dataset,
                settings=settings or [],
                estimator=estimator,
                images=images,
                drop_bits=measure,
                cache=cache,
                progress=progress,
            )
        from bitscout.report import sensitivity_table, write_sensitivity_page

        if out is not None:
            write_sensitivity_page(report, out)
        if as_json:
            print_json(report.to_json())
        else:
            print_result(sensitivity_table(report))
        if out is not None:
            print_note(f"The picture is in {out}.")


@contextmanager
def _shown_progress(quiet: bool) -> Iterator[_Progress | None]:
    """Show bars on stderr, one for each stage."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bars = Progress(*columns, console=stderr_console(), transient=True)
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        bars.start()  # Not before: a message about bad input stands alone.
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()
