# SPDX-License-Identifier: Apache-2.0
"""``bitscout verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from bitscout.cli.options import AsJson, CandidateName, Directory
from bitscout.cli.output import print_json, print_result

__all__ = ["verify_command"]

FAILED = 1


def verify_command(
    directory: Directory,
    candidate: CandidateName = None,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Test images every target computes.  [default: as configured, 1000]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that the exported files of a network compute what was searched.

    Examples:
      bitscout verify runs/quickstart
      bitscout verify runs/quickstart --candidate 7 --json

    Writes the files again, runs them in everything that is installed, compares all outputs with
    the integer reference, and writes certificate.json. Exit code 1 if anything differs.
    """
    from bitscout.pipeline import load_result, verify_final
    from bitscout.report import best_name, certificate_table

    result = load_result(directory)
    name = candidate or best_name(result)
    certificate = verify_final(result, name, n_images=images)
    if as_json:
        print_json(certificate.to_json())
    else:
        print_result(certificate_table(certificate))
    if not certificate.passed:
        raise typer.Exit(FAILED)
