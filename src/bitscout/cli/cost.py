# SPDX-License-Identifier: Apache-2.0
"""``bitscout cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bitscout.cli.interruption import interruptible
from bitscout.cli.options import AsJson, Settings
from bitscout.cli.output import print_json, print_result, shown_log, stdout_width
from bitscout.errors import MeasurementError, UnsupportedError

if TYPE_CHECKING:
    from bitscout.pipeline import CostPlan

__all__ = ["cost_command"]


def cost_command(  # noqa: PLR0913  # one for each option
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PRESET|CONFIG.yaml|DIR",
            help="A built-in network (see: bitscout list models), as it is or with options "
            "(mobilenet_v1:width=0.5), an import path (pkg.mod:make_net), the seed network of a "
            "preset or configuration, or a run.",
            show_default=False,
        ),
    ],
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware",
            metavar="NAME[:KEY=VALUE,...]",
            help="What it shall run on (see: bitscout list hardware), or a target file; may be "
            "given often.  [default: that of the configuration or run; else size and mcu]",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="W[/A]|POLICY.json",
            help="Bits of weights and activations: 8, or 6/4, or {layer: [w, a]} in a file.  "
            "[default: those of the configuration or candidate; 8 for any other network]",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Inputs computed together, on all hardware.  [default: the hardware's own]",
            show_default=False,
        ),
    ] = None,
    input: Annotated[  # the name of the option
        str | None,
        typer.Option(
            metavar="CxHxW",
            help="Shape of one input, 3x32x32: an import path needs it, and a built-in network "
            "may have another than its data set's.",
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
    under its key reports. Where one of several has no rule for the network, its table is replaced
    by the reason, and the exit code is 2; with --json there is the error alone.
    """
    with interruptible("Interrupted."), shown_log("bitscout.hardware"):
        from bitscout.pipeline import plan_cost  # What takes long to import may be interrupted.

        plan = plan_cost(
            source,
            hardware,
            bits=bits,
            batch=batch,
            input_shape=input,
            candidate=candidate,
            settings=settings or [],
        )
        if as_json:
            print_json(plan.carry_out().to_json())
        else:
            _print_tables(plan)


def _print_tables(plan: CostPlan) -> None:
    """Print a table for each kind of hardware, or why there is none.

    Raises:
        UnsupportedError: At the end, if there is no table for one of several.
        BitscoutError: If there is only one, what was wrong with it.
    """
    from bitscout.report import cost_table

    refused = []
    for index, model in enumerate(plan.models):
        if index:
            print_result("")
        try:
            report = plan.report(model)
        except (UnsupportedError, MeasurementError) as error:
            if len(plan.models) == 1:
                raise
            heading = Text.assemble((plan.network, "bold"), " on ", (model.spec, "bold"))
            print_result(heading, f"No figures: {error}")
            refused.append(model.spec)
        else:
            if report.description:
                print_result(Text(report.description, style="dim"))
            print_result(cost_table(plan.network, plan.bits, report, width=stdout_width()))
    if refused:
        msg = f"No figures of {plan.network} on {', '.join(refused)}; the reason is above."
        raise UnsupportedError(msg)
