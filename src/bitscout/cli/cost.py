# SPDX-License-Identifier: Apache-2.0
"""``bitscout cost``."""

from __future__ import annotations

from typing import Annotated

import typer

from bitscout.cli.options import AsJson, Settings
from bitscout.cli.output import print_json, print_result, stdout_width

__all__ = ["cost_command"]


def cost_command(  # noqa: PLR0913  # one for each option
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PRESET|CONFIG.yaml|DIR",
            help="A built-in network (see: bitscout list models), an import path "
            "(pkg.mod:make_net), the seed network of a preset or configuration, or a run.",
            show_default=False,
        ),
    ],
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware",
            metavar="NAME[:KEY=VALUE,...]",
            help="What it shall run on (see: bitscout list hardware), or a target file; may be "
            "given often.  [default: size and mcu]",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="W[/A]|POLICY.json",
            help="Bits of weights and activations: 8, or 6/4, or {layer: [w, a]} in a file.  "
            "[default: the network's own, or 8]",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Inputs computed together, on all hardware.  [default: the hardware's own]",
            show_default=False,
        ),
    ] = None,
    input: Annotated[  # the name of the option
        str | None,
        typer.Option(
            metavar="CxHxW",
            help="Shape of one input, 3x32x32; an import path needs it.",
            show_default=False,
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Of a run: any trial by its number, or a baseline by its name.  "
            "[default: the best]",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Show what a network costs, layer by layer, before anything is trained.

    Examples:
      bitscout cost resnet18 --hardware bitfusion --bits 4 --batch 16
      bitscout cost quickstart --hardware mcu --hardware size
      bitscout cost runs/quickstart --candidate 7 --hardware bitfusion:depthwise=dense
      bitscout cost mypkg.models:make_net --input 3x32x32 --bits 6/4 --json

    With --json and several --hardware the document is the first one's report, and all of them are
    under its key reports.
    """
    from bitscout.pipeline import cost

    found = cost(
        source,
        hardware,
        bits=bits,
        batch=batch,
        input_shape=input,
        candidate=candidate,
        settings=settings or [],
    )
    if as_json:
        print_json(found.to_json())
        return
    from bitscout.report import cost_table

    for index, report in enumerate(found.reports):
        table = cost_table(found.network, found.bits, report, width=stdout_width())
        print_result(*([""] if index else []), table)
