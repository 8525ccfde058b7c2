# SPDX-License-Identifier: Apache-2.0
"""``bitscout show``."""

from __future__ import annotations

from bitscout.cli.options import AsJson, Directory
from bitscout.cli.output import print_json, print_result

__all__ = ["show_command"]


def show_command(directory: Directory, as_json: AsJson = False) -> None:
    """Show what a run has found so far, also while it goes on.

    Examples:
      bitscout show runs/quickstart
      bitscout show runs/quickstart --json | jq .pareto_front
    """
    from bitscout.pipeline import load_result
    from bitscout.report import show_run

    result = load_result(directory)
    if as_json:
        print_json(result.to_json())
    else:
        print_result(show_run(result))
