# SPDX-License-Identifier: Apache-2.0
"""What ``search`` and ``resume`` share: progress, interruption, and the result at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote

import typer

from bitscout.cli.interruption import interruptible
from bitscout.cli.output import print_json, print_note, print_result, stderr_console
from bitscout.cli.progress import ProgressDisplay
from bitscout.errors import BitscoutError
from bitscout.pipeline import (
    Listener,
    RunDirectory,
    RunResult,
    TrialRecord,
    ignore_events,
    load_result,
)
from bitscout.report import (
    best_certificate,
    certificate_table,
    certificate_words,
    networks_table,
    verdict_lines,
    write_report,
)

__all__ = ["carry_out", "resumable"]

FAILED = 1  # A certificate.


def carry_out(
    work: Callable[[Listener], RunResult],
    directory: Path,
    *,
    history: Sequence[TrialRecord] = (),
    quiet: bool,
    as_json: bool,
) -> None:
    """Do `work` with progress on stderr, write the report, and print the result on stdout.

    Args:
        work: The run; told whom to keep informed.
        directory: Its directory.
        history: Trials finished before, for the best so far.
        quiet: Show no progress.
        as_json: Print the document of ``show --json``, with ``report``, instead of tables.
    """
    with resumable(directory):
        display = (
            nullcontext(ignore_events)
            if quiet
            else ProgressDisplay(stderr_console(), history=history)
        )
        with display as listener:
            result = work(listener)
        report = write_report(result, RunDirectory(directory).report)
    if as_json:
        print_json({**result.to_json(), "report": str(report)})
    else:
        print_result("", networks_table(result), "", *verdict_lines(result))
        best = best_certificate(result)
        if best is not None:
            print_result("", certificate_table(best))
        print_result("", f"Report: {report}")
    for certificate in result.certificates.values():
        if not certificate.passed:
            name, words = certificate.candidate, certificate_words(certificate)
            print_note(f"Network {name}: {words}. See: bitscout verify {quote(str(directory))}")
    if not all(certificate.passed for certificate in result.certificates.values()):
        raise typer.Exit(FAILED)


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """End with exit code 130 on Ctrl-C or SIGTERM, and say what is kept and how to go on."""
    with interruptible(lambda: _what_is_kept(directory)):
        yield


def _what_is_kept(directory: Path) -> str:
    try:
        result = load_result(directory)
    except BitscoutError:  # It had not become a run yet.
        return "Interrupted before the run began; nothing was kept."
    n_trials = result.config.searcher.n_trials
    n_networks = len(result.final) + len(result.baselines)
    networks = f" and {n_networks} trained networks" if n_networks else ""
    return (
        f"Interrupted. Kept in {directory}: {sum(result.counts().values())} of {n_trials} "
        f"trials{networks}. Go on with: bitscout resume {quote(str(directory))}"
    )
