# SPDX-License-Identifier: Apache-2.0
"""A run as it stands on disk: what `show`, `report` and the Python API read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from bitscout.core import FrontObjective, hypervolume
from bitscout.errors import RunError
from bitscout.export import Certificate
from bitscout.pipeline.certificates import EXPORTED, read_certificate
from bitscout.pipeline.components import load_data
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.front import front_metrics, front_numbers, front_points, reference_point
from bitscout.pipeline.journal import read_records
from bitscout.pipeline.load import load_config
from bitscout.pipeline.records import FinalRecord, TrialRecord
from bitscout.pipeline.reload import reload_network
from bitscout.pipeline.verdict import Verdict, judge
from bitscout.space import SearchSpace
from bitscout.training import ImageData

__all__ = ["RunResult", "best_trial", "load_result"]

State = Literal["searching", "finalizing", "complete"]


@dataclass(frozen=True)
class RunResult:
    """Everything a run has found so far.

    Attributes:
        directory: The run directory.
        config: The resolved configuration.
        dataset: Name, shape, classes and sizes of the data (``dataset.json``).
        environment: Versions, hardware and commit (``environment.json``).
        state: ``searching``, ``finalizing`` or ``complete``.
        trials: Every trial, by number.
        final: Final networks, smallest first.
        baselines: Uniform-precision networks trained with the same final recipe.
        failures: ``name``, ``label`` and ``reason`` of the final trainings that diverged.
        certificates: By name of the final network: what its exported files compute.
    """

    directory: Path
    config: RunConfig
    dataset: dict[str, Any]
    environment: dict[str, Any]
    state: State
    trials: tuple[TrialRecord, ...]
    final: tuple[FinalRecord, ...] = ()
    baselines: tuple[FinalRecord, ...] = ()
    failures: tuple[Mapping[str, str], ...] = ()
    certificates: Mapping[str, Certificate] = field(default_factory=dict)

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The trials that were evaluated."""
        return tuple(trial for trial in self.trials if trial.outcome == "complete")

    @property
    def front_metrics(self) -> tuple[str, ...]:
        """Metrics the front of the search trades off: the objective's, or accuracy and size."""
        return front_metrics(self.config)

    @property
    def pareto_front(self) -> tuple[int, ...]:
        """Numbers of the trials on the front of the search, smallest network first."""
        return front_numbers(self.trials, self.front_metrics)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score, or, without a score, the most accurate on the front."""
        return best_trial(self.trials)

    @property
    def best_final(self) -> FinalRecord | None:
        """The final network the run answers with, or `None` before there is one.

        It is chosen on validation data, by the score, or by accuracy where there is no score; the
        test set would flatter a network chosen by it. Of equal networks the smallest is taken.
        """
        objective = self.config.build_objective()

        def merit(record: FinalRecord) -> tuple[float, float]:
            metrics = record.metrics
            is_score = not isinstance(objective, FrontObjective)
            first = objective.values(metrics)[0] if is_score else metrics["val_accuracy"]
            return first, -metrics["size_bytes"]

        return max(self.final, key=merit, default=None)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """For every baseline, whether a searched network beats it."""
        return judge(self.final, self.baselines, n_test=int(self.dataset.get("n_test", 0)))

    @property
    def beats_baselines(self) -> bool | None:
        """Whether any searched network beats any baseline; `None` before both exist."""
        verdicts = self.verdicts
        return any(v.outcome == "won" for v in verdicts) if verdicts else None

    def load(
        self,
        name: str | int,
        *,
        space: SearchSpace | None = None,
        model: nn.Module | None = None,
    ) -> nn.Module:
        """Return a final network or baseline, fake-quantized, in evaluation mode, on the CPU.

        Its input is ``(N, C, H, W)``, normalized: ``(pixels / 255 - mean) / std`` with ``mean``
        and ``std`` of `dataset`.

        Args:
            name: The ``name`` of a final network or baseline; a trial number for the former.
            space: The run's space, where that was handed over in Python.
            model: The given network, likewise; its weights do not count.

        Raises:
            RunError: If there is no such network.
            DataError: If its weights are missing or damaged.
        """
        return reload_network(
            self.directory, self.record(name), self.config, self.dataset, space, model
        )

    def record(self, name: str | int) -> FinalRecord:
        """Return the record of a final network or baseline.

        Raises:
            RunError: If there is no such network.
        """
        records = {record.name: record for record in (*self.final, *self.baselines)}
        if str(name) not in records:
            known = ", ".join(records) or "none yet"
            msg = f"{self.directory} has no final network {str(name)!r}. It has: {known}."
            raise RunError(msg)
        return records[str(name)]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the tables alone would not tell: networks and comparisons that are missing."""
        remarks = [
            f"{failure['label']} could not be trained: {failure['reason']}"
            for failure in self.failures
        ]
        remarks += [
            f"What {record.label} costs on the hardware is not known: {record.cost_failure}"
            for record in (*self.final, *self.baselines)
            if record.cost_failure is not None
        ]
        names = {record.name for record in self.baselines} | {f["name"] for f in self.failures}
        if self.state == "complete" and "uniform" not in names:
            remarks.append(
                "The best final network has one bit-width everywhere: there is no mixture to "
                "compare with a uniform width."
            )
        return tuple(remarks)

    def data(self) -> ImageData:
        """Return the data of the run, split and normalized as it was, from where it was.

        Raises:
            ConfigError: If the data was handed over in Python.
            DataError: If it is no longer there.
        """
        return load_data(self.config)

    def counts(self) -> dict[str, int]:
        """Return how many trials ended in each way."""
        outcomes = [trial.outcome for trial in self.trials]
        return {name: outcomes.count(name) for name in ("complete", "failed", "infeasible")}

    def hypervolume(self) -> float:
        """Return the volume dominated by the front, the search's one-number summary.

        Its axes are those of `front_points`: the error, and log10 of every cost. The reference
        is accuracy 0 and the dearest network evaluated, so that it is comparable within one run
        only. 0 with fewer than two trials.
        """
        names = self.front_metrics
        points = front_points([t.metrics for t in self.complete if t.metrics is not None], names)
        if len(points) < 2:
            return 0.0
        return hypervolume(points, reference_point(points, names))

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout show --json``."""
        return {
            "directory": str(self.directory),
            "name": self.config.name,
            "state": self.state,
            "n_trials": self.config.searcher.n_trials,
            "counts": self.counts(),
            "dataset": self.dataset,
            "candidates": [trial.to_json() for trial in self.trials],
            "pareto_front": list(self.pareto_front),
            "best": self.best.number if self.best else None,
            "hypervolume": self.hypervolume(),
            "final": [
                {**record.to_json(), "certificate": self._certificate_json(record)}
                for record in self.final
            ],
            "baselines": [record.to_json() for record in self.baselines],
            "failures": [dict(failure) for failure in self.failures],
            "remarks": list(self.remarks),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "beats_baselines": self.beats_baselines,
        }

    def _certificate_json(self, record: FinalRecord) -> dict[str, Any] | None:
        certificate = self.certificates.get(record.name)
        return None if certificate is None else certificate.to_json()


def load_result(directory: str | Path) -> RunResult:
    """Read a run from disk; safe while the run goes on.

    Raises:
        RunError: If the directory is no run, or a file of it is damaged.
    """
    run = RunDirectory(directory)
    run.check_is_run()
    config = load_config(run.config)
    final = _read_finals(run, run.final)
    baselines = _read_finals(run, run.baselines)
    trials = tuple(read_records(run.journal))
    return RunResult(
        directory=run.path,
        config=config,
        dataset=run.read_json(run.dataset),
        environment=run.read_json(run.environment) if run.environment.exists() else {},
        state=_state(run, config, trials),
        trials=trials,
        final=tuple(sorted(final, key=lambda record: record.metrics["size_bytes"])),
        baselines=tuple(sorted(baselines, key=lambda record: record.metrics["size_bytes"])),
        failures=tuple(run.read_failures()),
        certificates={
            record.name: certificate
            for record in (*final, *baselines)
            if (certificate := read_certificate(run, record)) is not None
        },
    )


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the largest score, or accuracy where there is no score.

    One that is over the budget, where that is only penalized, is no answer.
    """
    return max(
        (trial for trial in trials if trial.outcome == "complete" and trial.is_feasible),
        key=lambda trial: trial.values[0] if trial.score is not None else _accuracy(trial),
        default=None,
    )


def _read_finals(run: RunDirectory, folder: Path) -> list[FinalRecord]:
    if not folder.is_dir():
        return []
    return [
        _with_exports(FinalRecord.from_json(run.read_json(path)), path.parent)
        for path in sorted(folder.glob("[!.]*/metrics.json"))
    ]


def _with_exports(record: FinalRecord, folder: Path) -> FinalRecord:
    """Return the record with the files that were exported after its training."""
    exported = tuple(
        f"{record.folder}/{record.name}/{name}" for name in EXPORTED if (folder / name).is_file()
    )
    return replace(record, files=(*record.files, *exported))


def _state(run: RunDirectory, config: RunConfig, trials: Sequence[TrialRecord]) -> State:
    finished = sum(trial.outcome != "running" for trial in trials)
    n_trials = config.searcher.n_trials
    if run.done.exists() and finished < n_trials:
        msg = (
            f"{run.journal} holds {finished} of {n_trials} trials, but the run was complete. "
            f"Restore it from a copy; or delete {run.done} and resume to evaluate the others."
        )
        raise RunError(msg)
    if run.done.exists():
        return "complete"
    return "searching" if finished < n_trials else "finalizing"


def _size(trial: TrialRecord) -> float:
    assert trial.metrics is not None
    return trial.metrics["size_bytes"]


def _accuracy(trial: TrialRecord) -> float:
    assert trial.metrics is not None
    return trial.metrics["val_accuracy"]
