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

from bitscout.core import Candidate, Metrics, child_seed
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
    listener(SearchStarted(section.n_trials, len(records), str(run.path)))
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
    number, candidate = proposal.trial.number, proposal.candidate
    seconds = {"propose": proposal.seconds}
    architecture = components.space.architecture(candidate.values)
    start = perf_counter()
    earlier = _same_candidate(candidate, records)
    if earlier is not None:
        return replace(earlier, number=number, duplicate_of=earlier.number, seconds=seconds)
    try:
        known = components.costs.of(architecture, candidate.policy, components.budget)
    except UnsupportedError as error:
        return _unsupported(proposal, components, str(error), seconds)
    except MeasurementError as error:
        return _failed(proposal, None, str(error), seconds)
    seconds["cost"] = perf_counter() - start
    constraints = components.budget.constraints(known)
    reason = components.budget.reason(known)
    if reason is not None:
        return TrialRecord(
            number=number,
            outcome="infeasible",
            candidate=candidate,
            metrics=known,
            reason=reason,
            constraints=constraints,
            seconds=seconds,
        )
    listener(TrialStarted(number, known["size_bytes"]))
    try:
        (trained,) = evaluate_policies(
            architecture,
            [candidate.policy],
            components.data.without_test(),
            build_plan(components, components.config.training),
            seed=child_seed(components.config.seed, "trial", number),
            on_stage=lambda *stage: listener(StageProgress(*stage)),
        )
    except TrainingError as error:
        return _failed(proposal, known, str(error), seconds)
    metrics = replace(known, val_accuracy=trained.val_accuracy)
    values = components.objective.values(metrics)
    if not all(isfinite(value) for value in values):
        return _failed(proposal, metrics, f"the objective is {values}, not finite", seconds)
    return TrialRecord(
        number=number,
        outcome="complete",
        candidate=candidate,
        metrics=metrics,
        values=values,
        constraints=constraints,
        seconds={**seconds, **trained.seconds},
    )


def _unsupported(
    proposal: _Proposal, components: Components, reason: str, seconds: Mapping[str, float]
) -> TrialRecord:
    """Return the record of a network the hardware cannot run: every bound counts as broken."""
    graph = components.space.layers(proposal.candidate.values)
    return TrialRecord(
        number=proposal.trial.number,
        outcome="infeasible",
        candidate=proposal.candidate,
        metrics=size_report(graph, proposal.candidate.policy).metrics(),
        reason=reason,
        constraints=dict.fromkeys(components.budget.bounds(), 1.0),
        seconds=seconds,
    )


def _failed(
    proposal: _Proposal, metrics: Metrics | None, reason: str, seconds: Mapping[str, float]
) -> TrialRecord:
    return TrialRecord(
        number=proposal.trial.number,
        outcome="failed",
        candidate=proposal.candidate,
        metrics=metrics,
        reason=reason,
        seconds=seconds,
    )


def _same_candidate(
    candidate: Candidate, records: Mapping[int, TrialRecord]
) -> TrialRecord | None:
    """Return the first earlier trial of `candidate`; samplers that repeat cost no training."""
    for number in sorted(records):
        if records[number].candidate == candidate:
            return records[number]
    return None


def _check_hopeless(records: Mapping[int, TrialRecord]) -> None:
    outcomes = [record.outcome for record in records.values() if record.outcome != "infeasible"]
    if len(outcomes) >= MAX_LEADING_FAILURES and set(outcomes) == {"failed"}:
        reasons = {record.reason for record in records.values() if record.reason}
        msg = (
            f"The first {MAX_LEADING_FAILURES} trials all failed, so the search stops here: "
            f"{'; '.join(sorted(reasons)[:3])}"
        )
        raise RunError(msg)


def _check_feasible(history: list[TrialRecord]) -> None:
    if any(record.outcome == "complete" for record in history):
        return
    if all(record.outcome == "infeasible" for record in history):
        raise InfeasibleError(_nearest_of(history))
    reason = next(record.reason for record in history if record.outcome == "failed")
    msg = f"No trial was completed, so there is nothing to train. The first failure: {reason}"
    raise RunError(msg)


def _nearest_of(history: Sequence[TrialRecord]) -> str:
    """Return a message about candidates that all are over budget."""
    nearest = min(
        history, key=lambda record: sum(max(v, 0.0) for v in record.constraints.values())
    )
    return (
        f"None of {len(history)} candidates fits the budget. The nearest is trial "
        f"{nearest.number}: {nearest.reason}. Raise the budget or narrow the space."
    )
