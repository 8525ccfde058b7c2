# SPDX-License-Identifier: Apache-2.0
"""What is said of a run whose trials are all used without one result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bitscout.pipeline import RunResult
from bitscout.report.quantities import ABSENT
from bitscout.report.rejected import rejected

__all__ = ["Untrained", "untrained"]

MAX_REASONS: Final = 2  # Of failures, the commonest; the table of failed trials has them all.
MAX_LENGTH: Final = 160  # Of one reason; some end with the output of a program.


@dataclass(frozen=True, slots=True)
class Untrained:
    """Why there is nothing to show, and what helps.

    Attributes:
        state: How far the run is.
        what: How many trials ended in which way.
        advice: What to change; going on with the run can only repeat the error.
    """

    state: str
    what: str
    advice: str


def untrained(result: RunResult) -> Untrained | None:
    """Return why no trial has a result; `None` where one has, or where trials are left."""
    n_trials = result.config.searcher.n_trials
    if result.complete or len(result.trials) < n_trials:
        return None
    parts, changes = [], []
    found = rejected(result)
    n_over = len(found.rows) - found.n_without_rule if found.bounds else 0
    if n_over:
        bounds = [f"{bound.label.split(', ')[0]} {bound.n_over}" for bound in found.bounds]
        parts.append(f"{n_over} over the budget ({', '.join(bounds)})")
        changes += ["raise the budget", "give the search more trials (searcher.n_trials)"]
    if len(found.rows) > n_over:
        parts.append(f"{len(found.rows) - n_over} that the hardware has no rule for")
        changes.append("take other hardware or another space")
    failed = [trial.reason or ABSENT for trial in result.trials if trial.outcome == "failed"]
    if failed:
        parts.append(_failed_words(failed))
        changes.append("remove the cause of the failures")
    advice = " or ".join(changes)
    return Untrained(
        state=f"Ended without a network: {n_trials} of {n_trials} trials.",
        what=f"All {n_trials} trials are used and none was trained: {'; '.join(parts)}.",
        advice=f"{advice[0].upper()}{advice[1:]}, and search again in a new directory: this run "
        "cannot go on.",
    )


def _failed_words(reasons: Sequence[str]) -> str:
    commonest = Counter(" ".join(reason.split()) for reason in reasons).most_common()
    said = [
        f"{count} × {_short(reason)}" if len(commonest) > 1 else _short(reason)
        for reason, count in commonest[:MAX_REASONS]
    ]
    rest = sum(count for _, count in commonest[MAX_REASONS:])
    said += [f"{rest} for other reasons"] if rest else []
    return f"{len(reasons)} failed ({'; '.join(said)})"


def _short(reason: str) -> str:
    if len(reason) <= MAX_LENGTH:
        return reason.rstrip(".")
    return reason[:MAX_LENGTH].rsplit(" ", 1)[0] + " ..."
