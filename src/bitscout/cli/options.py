# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "CandidateName", "Directory", "Quiet", "Settings", "Source"]

Source = Annotated[
    str,
    typer.Argument(
        metavar="PRESET|CONFIG.yaml",
        help="A preset (see: bitscout list presets) or a configuration file.",
        show_default=False,
    ),
]
Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="The directory of a run, runs/quickstart.", show_default=False
    ),
]
CandidateName = Annotated[
    str | None,
    typer.Option(
        "--candidate",
        metavar="N",
        help="A final network by its trial's number, or a baseline by its name.  "
        "[default: the best]",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key, for instance training.epochs=5; may be given often.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
