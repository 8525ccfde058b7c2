# SPDX-License-Identifier: Apache-2.0
"""The search: ask, cost, evaluate, tell, trial by trial, until the journal is full.

The history is a function of the configuration and the seed. Proposals of one batch see the
finished trials of the batches before; results are told in the order of the trial numbers. So
nothing but the journal is needed to go on after a crash: a trial that was interrupted is
evaluated again under its own number and gets the same result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter

from optuna.trial import Trial

from bitscout.core import Candidate, child_seed
from bitscout.errors import (
    InfeasibleError,
    MeasurementError,
    RunError,
    TrainingError,
    UnsupportedError,
)
from bitscout.hardware import size_report
from bitscout.pipeline.components import Components, build_plan, build_sampler
from bitscout.pipeline.config import config_digest
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.evaluate import evaluate_policies
from bitscout.pipeline.events import (
    Listener,
    SearchStarted,
    StageProgress,
    TrialFinished,
    TrialStarted,
)
from bitscout.pipeline.journal import Journal
from bitscout.pipeline.records import TrialRecord

__all__ = ["run_trials"]

MAX_LEADING_FAILURES = 10  # If the first ten trials all fail, so will the others.


@dataclass(frozen=True)
class _Proposal:
    """A trial with its candidate, not evaluated yet."""

    trial: Trial
    candidate: Candidate
    seconds: float


def run_trials(components: Components, run: RunDirectory, listener: Listener) -> list[TrialRecord]:
    """Evaluate every trial that the journal does not hold yet.

    Args:
        components: What to search and how.
        run: Its directory, locked by the caller.
        listener: Told of every trial and epoch.

    Returns:
        The record of every trial, by number.

    Raises:
        InfeasibleError: If no candidate fits the budget.
        RunError: If every trial fails, or the journal cannot be written.
    """
    journal = Journal(run.journal, components.objective, build_sampler(components))
    with contextlib.closing(journal):
        history = _fill(journal, components, run, listener)
    _check_feasible(history)
    return history


def _fill(
    journal: Journal, components: Components, run: RunDirectory, listener: Listener
) -> list[TrialRecord]:
    section, space = components.config.searcher, components.space
    first = space.encode(space.seed_values())
    names = [choice.name for choice in space.choices]
    journal.enqueue_first(dict(zip(names, first.tolist(), strict=True)))
    journal.check_config(config_digest(components.config))
    records = _finished(journal)
    _check_hopeless(records)
    notes = tuple(components.costs.notes)
    listener(SearchStarted(section.n_trials, len(records), str(run.path), notes))
    for start in range(0, section.n_trials, section.batch):
        numbers = range(start, min(start + section.batch, section.n_trials))
        proposals = [_propose(journal, components, n) for n in numbers if n not in records]
        for proposal in proposals:
            record = _evaluate(proposal, components, records, listener)
            journal.tell(proposal.trial, record)
            records[record.number] = record
            listener(TrialFinished(record))
            _check_hopeless(records)
    return [records[number] for number in sorted(records)]


def _finished(journal: Journal) -> dict[int, TrialRecord]:
    return {record.number: record for record in journal.records() if record.outcome != "running"}


def _propose(journal: Journal, components: Components, number: int) -> _Proposal:
    start = perf_counter()
    space = components.space
    trial, params = journal.ask(
        number, {choice.name: len(choice.values) for choice in space.choices}
    )
    values = space.decode([params[choice.name] for choice in space.choices])
    return _Proposal(trial, space.candidate(values), perf_counter() - start)


def _evaluate(
    proposal: _Proposal,
    components: Components,
    records: Mapping[int, TrialRecord],
    listener: Listener,
) -> TrialRecord:
    """Return the record of one proposal: its cost first, training only where that is needed."""
    seconds = {"propose": proposal.seconds}
    earlier = _same_candidate(proposal.candidate, records, components)
    if earlier is not None:
        number = proposal.trial.number
        return replace(earlier, number=number, duplicate_of=earlier.number, seconds=seconds)
    start = perf_counter()
    costed = _cost(proposal, components)
    seconds["cost"] = perf_counter() - start
    if costed.outcome != "running":
        return replace(costed, seconds=seconds)
    return _train(costed, components, seconds, listener)


def _cost(proposal: _Proposal, components: Components) -> TrialRecord:
    """Return the record of a proposal with its costs: infeasible, failed, or still running."""
    candidate, costs, budget = proposal.candidate, components.costs, components.budget
    architecture = components.space.architecture(candidate.values)
    record = TrialRecord(number=proposal.trial.number, outcome="running", candidate=candidate)
    try:
        known = costs.computed(architecture, candidate.policy)
        if components.is_penalized or budget.reason(known) is None:
            known = costs.measured(architecture, candidate.policy, known)
    except UnsupportedError as error:
        # Hardware that cannot run it breaks every bound.
        return replace(
            record,
            outcome="infeasible",
            metrics=size_report(architecture.layers(), candidate.policy).metrics(),
            reason=str(error),
            constraints=dict.fromkeys(budget.bounds(), 1.0),
        )
    except MeasurementError as error:
        return replace(record, outcome="failed", metrics=known, reason=str(error))
    reason = None if components.is_penalized else budget.reason(known)
    return replace(
        record,
        outcome="running" if reason is None else "infeasible",
        metrics=known,
        reason=reason,
        constraints=budget.constraints(known),
    )


def _train(
    record: TrialRecord, components: Components, seconds: Mapping[str, float], listener: Listener
) -> TrialRecord:
    """Return the record of a candidate within the budget after its training."""
    candidate, known = record.candidate, record.metrics
    assert candidate is not None and known is not None, "its cost is known"
    listener(TrialStarted(record.number, known["size_bytes"]))
    try:
        (trained,) = evaluate_policies(
            components.space.architecture(candidate.values),
            [candidate.policy],
            components.data.without_test(),
            build_plan(components, components.config.training),
            seed=child_seed(components.config.seed, "trial", record.number),
            on_stage=lambda *stage: listener(StageProgress(*stage)),
        )
    except TrainingError as error:
        return replace(record, outcome="failed", reason=str(error), seconds=seconds)
    metrics = replace(known, val_accuracy=trained.val_accuracy)
    values = components.objective.values(metrics)
    if not all(isfinite(value) for value in values):
        reason = f"the objective is {values}, not finite"
        return replace(record, outcome="failed", metrics=metrics, reason=reason, seconds=seconds)
    return replace(
        record,
        outcome="complete",
        metrics=metrics,
        values=values,
        seconds={**seconds, **trained.seconds},
    )


def _same_candidate(
    candidate: Candidate, records: Mapping[int, TrialRecord], components: Components
) -> TrialRecord | None:
    """Return the first earlier trial of `candidate`; samplers that repeat cost no training.

    Where hardware is measured, one that failed is tried again: the board may answer now.
    """
    for number in sorted(records):
        record = records[number]
        is_final = record.outcome != "failed" or not components.costs.is_measured
        if record.candidate == candidate and is_final:
            return record
    return None


def _check_hopeless(records: Mapping[int, TrialRecord]) -> None:
    outcomes = [record.outcome for record in records.values() if record.outcome != "infeasible"]
    if len(outcomes) >= MAX_LEADING_FAILURES and set(outcomes) == {"failed"}:
        reasons = {record.reason for record in records.values() if record.reason}
        msg = (
            f"The first {MAX_LEADING_FAILURES} trials within the budget all failed, so the search "
            f"stops here: "
            f"{'; '.join(sorted(reasons)[:3])}"
        )
        raise RunError(msg)


def _check_feasible(history: list[TrialRecord]) -> None:
    if any(record.outcome == "complete" and record.is_feasible for record in history):
        return
    if any(record.outcome == "complete" for record in history):
        raise InfeasibleError(_nothing_fits(history))
    if all(record.outcome == "infeasible" for record in history):
        raise InfeasibleError(_nothing_fits(history))
    reason = next(record.reason for record in history if record.outcome == "failed")
    n_over = sum(record.outcome == "infeasible" for record in history)
    msg = (
        f"No trial was completed, so there is nothing to train: {n_over} of {len(history)} are "
        f"over the budget, {len(history) - n_over} failed. The first failure: {reason}"
    )
    raise RunError(msg)


def _nothing_fits(history: Sequence[TrialRecord]) -> str:
    """Return a message about candidates that were all rejected before training."""
    if not any(record.constraints for record in history):
        return (
            f"The hardware has no rule for any of {len(history)} candidates. The first: "
            f"{history[0].reason}"
        )
    nearest = min(
        (record for record in history if record.constraints),
        key=lambda record: sum(max(v, 0.0) for v in record.constraints.values()),
    )
    over = [f"{100 * v:.3g} % over {name}" for name, v in nearest.constraints.items() if v > 0]
    reason = nearest.reason or ", ".join(over)
    return (
        f"None of {len(history)} candidates fits the budget. The nearest is trial "
        f"{nearest.number}: {reason.rstrip('.')}. Raise the budget or narrow the space."
    )
