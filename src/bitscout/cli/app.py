# SPDX-License-Identifier: Apache-2.0
"""The program: its commands, and what its exit codes mean.

0 done; 1 a certificate that failed, a bug, with its traceback, or a reader that closed the pipe;
2 invalid input, with one message; 3 nothing feasible in the budget; 130 interrupted, resumable.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from bitscout import __version__
from bitscout.cli.cost import cost_command
from bitscout.cli.explain import explain_command
from bitscout.cli.export import export_command
from bitscout.cli.list_names import list_command
from bitscout.cli.output import print_error
from bitscout.cli.report import report_command
from bitscout.cli.resume import resume_command
from bitscout.cli.search import search_command
from bitscout.cli.sensitivity import sensitivity_command
from bitscout.cli.show import show_command
from bitscout.cli.verify import verify_command
from bitscout.errors import BitscoutError

__all__ = ["app", "main"]

app = typer.Typer(
    name="bitscout",
    help=(
        "Search small quantized neural networks: architecture and the bits of every layer, "
        "together."
    ),
    epilog="Start with: bitscout search quickstart",
    add_completion=False,
    pretty_exceptions_enable=False,  # An unexpected exception is a bug: show its traceback.
    rich_markup_mode=None,  # Plain text keeps the examples as they are.
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _help(command: Callable[..., None]) -> str:
    """Return the docstring of `command`, with its examples kept line by line (Click's mark)."""
    return inspect.cleandoc(command.__doc__ or "").replace("\n\nExample", "\n\n\b\nExample")


for _name, _command in (
    ("search", search_command),
    ("resume", resume_command),
    ("show", show_command),
    ("explain", explain_command),
    ("cost", cost_command),
    ("sensitivity", sensitivity_command),
    ("export", export_command),
    ("verify", verify_command),
    ("report", report_command),
    ("list", list_command),
):
    app.command(_name, help=_help(_command))(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bitscout {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What to parse; by default what the process was started with.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` for instance, has what it wanted. Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(arguments, prog_name="bitscout")
    except SystemExit as stop:  # Typer ends so, after it has printed usage errors itself.
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BitscoutError as error:
        print_error(str(error))
        return error.exit_code
    return 0
