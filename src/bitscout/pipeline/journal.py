# SPDX-License-Identifier: Apache-2.0
"""The study behind a run: Optuna's journal, opened safely, and records to and from its trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from bitscout.core import METRIC_DIRECTIONS, Candidate, FrontObjective, Metrics, Objective
from bitscout.errors import RunError
from bitscout.pipeline.directory import write_errors_explained
from bitscout.pipeline.journal_file import ExclusiveJournalFile
from bitscout.pipeline.records import TrialRecord

__all__ = ["Journal", "read_records"]

STUDY_NAME = "bitscout"
CONFIG_DIGEST = "config_digest"
RECORD = "record"  # The one user attribute of every finished trial.


class Journal:
    """The study of one run, open for writing.

    The caller holds the run's lock; close the journal when done with it.

    Args:
        path: The journal; created where there is none.
        objective: Decides the study's directions.
        sampler: Proposes the parameters.

    Raises:
        RunError: If the journal is damaged or cannot be written.
    """

    def __init__(self, path: Path, objective: Objective, sampler: BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._path = path
        with write_errors_explained(path):
            self._file = ExclusiveJournalFile(path)
            try:
                self._storage = JournalStorage(self._file)
                self.study: Study = optuna.create_study(
                    storage=self._storage,
                    study_name=STUDY_NAME,
                    sampler=sampler,
                    directions=_directions(objective),
                    load_if_exists=True,
                )
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(path, error) from error
        self._study_id = self._storage.get_study_id_from_name(STUDY_NAME)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers, not to be modified."""
        return self.study.get_trials(deepcopy=False)

    def records(self) -> list[TrialRecord]:
        """Return the record of every trial."""
        return [record_of(trial) for trial in self.trials()]

    def enqueue_first(self, params: Mapping[str, int]) -> None:
        """Make `params` trial 0 of an empty study; do nothing in one that has trials."""
        if not self.trials():
            with write_errors_explained(self._path):
                self.study.enqueue_trial(dict(params))

    def check_config(self, digest: str) -> None:
        """Check that the study belongs to the configuration of `digest`; a new one then does.

        Raises:
            RunError: If it was begun with another.
        """
        known = self.study.user_attrs.get(CONFIG_DIGEST)
        if known is None:
            with write_errors_explained(self._path):
                self.study.set_user_attr(CONFIG_DIGEST, digest)
        elif known != digest:
            msg = (
                f"{self._path} belongs to another configuration than the one beside it. A run "
                "goes on as it began: undo the changes, or start a new run with --out."
            )
            raise RunError(msg)

    def ask(self, number: int, sizes: Mapping[str, int]) -> tuple[Trial, dict[str, int]]:
        """Return trial `number` with an index below ``sizes[name]`` for every name.

        A trial that was interrupted is taken up under its own number with the parameters it
        has: a proposal is in the journal as a whole or not at all.
        """
        trials = self.trials()
        with write_errors_explained(self._path), self._file.transaction():
            if number < len(trials) and trials[number].state is TrialState.RUNNING:
                trial = Trial(
                    self.study,
                    self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number),
                )
            else:
                trial = self.study.ask()
            return trial, {name: trial.suggest_int(name, 0, n - 1) for name, n in sizes.items()}

    def tell(self, trial: Trial, record: TrialRecord) -> None:
        """Write `record` and finish the trial.

        Both or neither are in the journal; a trial that is not told is evaluated again. The
        record's constraints become Optuna's. A trial that is over budget is told as pruned:
        samplers that know constraints learn from it, without a value nobody measured.
        """
        with write_errors_explained(self._path):
            with self._file.transaction():
                trial.set_user_attr(RECORD, _to_attribute(record))
                for name, violation in record.constraints.items():
                    trial.set_constraint(name, violation)
                if record.outcome == "complete":
                    self.study.tell(trial, list(record.values))
                elif record.outcome == "infeasible" and record.constraints:
                    self.study.tell(trial, state=TrialState.PRUNED)
                else:
                    self.study.tell(trial, state=TrialState.FAIL)
            self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_records(path: Path) -> list[TrialRecord]:
    """Return every trial in the journal, without writing to it; safe while a run goes on.

    Raises:
        RunError: If the journal is missing or damaged.
    """
    if not path.is_file():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        studies = storage.get_all_studies()
        if not studies:
            return []
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
        return [record_of(trial) for trial in study.get_trials(deepcopy=False)]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Return the record that `tell` wrote."""
    if not trial.state.is_finished():
        return TrialRecord(number=trial.number, outcome="running")
    attribute: Mapping[str, Any] = trial.user_attrs[RECORD]
    metrics = attribute["metrics"]
    return TrialRecord(
        number=trial.number,
        outcome=attribute["outcome"],
        candidate=Candidate.from_json(attribute["candidate"]),
        metrics=Metrics.from_json(metrics) if metrics is not None else None,
        values=tuple(trial.values or ()),
        reason=attribute["reason"],
        constraints=trial.constraints,
        duplicate_of=attribute["duplicate_of"],
        seconds=attribute["seconds"],
    )


def _to_attribute(record: TrialRecord) -> dict[str, Any]:
    assert record.candidate is not None, "only proposed candidates are told"
    return {
        "outcome": record.outcome,
        "candidate": record.candidate.to_json(),
        "digest": record.candidate.digest,
        "metrics": record.metrics.to_json() if record.metrics else None,
        "reason": record.reason,
        "duplicate_of": record.duplicate_of,
        "seconds": dict(record.seconds or {}),
    }


def _directions(objective: Objective) -> list[StudyDirection]:
    if isinstance(objective, FrontObjective):
        signs = [METRIC_DIRECTIONS[name] for name in objective.metrics]
    else:
        signs = [1]
    return [StudyDirection.MAXIMIZE if s > 0 else StudyDirection.MINIMIZE for s in signs]


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"The journal {path} is damaged: {error}. Restore it from a copy.")
