# SPDX-License-Identifier: Apache-2.0
"""``bitscout verify``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from bitscout.cli.options import AsJson, CandidateName, Directory
from bitscout.cli.output import print_json, print_result

__all__ = ["verify_command"]

FAILED = 1


class Target(StrEnum):
    """What a network's files can be compared with: those of ``certificate.targets``."""

    ONNXRUNTIME = "onnxruntime"
    QONNX = "qonnx"
    C = "c"
    CORTEX_M = "cortex-m"


def verify_command(
    directory: Directory,
    candidate: CandidateName = None,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Test images to compare on; slow targets take fewer.  [default: as configured, "
            "1000]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[Target] | None,
        typer.Option(
            help="Compare with this one, and fail if it is not installed; may be given often.  "
            "[default: as configured, all that are installed]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that the exported files of a network compute what was searched.

    Examples:
      bitscout verify runs/quickstart
      bitscout verify runs/quickstart --candidate 7 --json
      bitscout verify runs/quickstart --target c --target onnxruntime

    Writes the files again, runs them in everything that is installed, compares all outputs with
    the integer reference, and writes certificate.json next to the network. With --target or fewer
    --images it only compares and writes nothing. Exit code 1 if anything differs.
    """
    from bitscout.cli.interruption import interruptible
    from bitscout.export import require_targets
    from bitscout.pipeline import load_result, verify_final
    from bitscout.report import best_name, certificate_table

    result = load_result(directory)
    name = best_name(result) if candidate is None else candidate
    changes = {"images": images, "targets": [entry.value for entry in target or []]}
    config = result.config.certificate.model_copy(
        update={key: value for key, value in changes.items() if value}
    )
    if target:
        require_targets(config.targets)
    with interruptible(f"Interrupted. Verify again with: bitscout verify {directory}"):
        certificate = verify_final(result, name, config)
    if as_json:
        print_json(certificate.to_json())
    else:
        print_result(certificate_table(certificate))
    if not certificate.passed:
        raise typer.Exit(FAILED)
