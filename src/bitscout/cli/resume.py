# SPDX-License-Identifier: Apache-2.0
"""``bitscout resume``."""

from __future__ import annotations

from bitscout.cli.options import AsJson, Directory, Quiet

__all__ = ["resume_command"]


def resume_command(directory: Directory, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Go on with a run that was interrupted.

    Nothing that is finished is done again; the result is that of a run without interruption.

    Example:
      bitscout resume runs/quickstart
    """
    from bitscout.cli.session import carry_out
    from bitscout.pipeline import load_result, resume_search

    carry_out(
        lambda listener: resume_search(directory, listener=listener),
        directory,
        history=load_result(directory).trials,
        quiet=quiet,
        as_json=as_json,
    )
