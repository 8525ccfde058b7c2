# SPDX-License-Identifier: Apache-2.0
"""``bitscout export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bitscout.cli.options import AsJson, CandidateName, Directory
from bitscout.cli.output import print_json, print_result

__all__ = ["export_command"]


def export_command(  # noqa: PLR0913  # one for each option
    directory: Directory,
    candidate: CandidateName = None,
    format: Annotated[
        Literal["packed", "onnx", "qonnx", "c"],
        typer.Option("--format", "-f", help="Which file to write.", show_default=False),
    ] = ...,  # type: ignore[assignment]  # required
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="File, or folder of c.  [default: in the network's own folder]"
        ),
    ] = None,
    storage: Annotated[
        Literal["int8", "packed", "int4"] | None,
        typer.Option(
            help="Weights in onnx: a byte each, at their bits, or 4-bit where they fit.  "
            "[default: int8]",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        Literal["hls4ml"] | None,
        typer.Option(help="Restrict qonnx to what a tool can read.", show_default=False),
    ] = None,
    target: Annotated[
        Literal["host", "cortex-m"] | None,
        typer.Option(
            help="Of c: any C99 compiler, or an image for a Cortex-M4.  [default: host]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one final network of a run as a file for a device.

    Examples:
      bitscout export runs/quickstart --format onnx
      bitscout export runs/quickstart --candidate 7 --format onnx --storage packed
      bitscout export runs/quickstart --format c --target cortex-m --out firmware

    Formats: packed is a safetensors file of exactly the bits that were searched; onnx runs in
    ONNX Runtime; qonnx holds any bit-width for FINN and hls4ml; c is C99 without any library.
    """
    from bitscout.pipeline import DeployRequest, export_final, load_result
    from bitscout.report import best_name, exported_lines

    request = DeployRequest(format=format, storage=storage, profile=profile, target=target)
    result = load_result(directory)
    name = best_name(result) if candidate is None else candidate
    exported = export_final(result, name, request, out)
    if as_json:
        document = {"candidate": int(name) if name.isdigit() else name, **exported.to_json()}
        print_json(document)
    else:
        print_result(*exported_lines(name, exported))
