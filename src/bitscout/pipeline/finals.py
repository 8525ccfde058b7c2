# SPDX-License-Identifier: Apache-2.0
"""After the search: final training of the front, and the baselines every claim is measured by.

Every network gets the same recipe, and its test set is touched once. The seed of a training
depends on the architecture alone, so networks that differ in their bits only start from the same
floating-point network: what is compared is the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from bitscout.core import Candidate, Metrics, QuantPolicy, child_seed, hypervolume
from bitscout.errors import MeasurementError, RunError, TrainingError, UnsupportedError
from bitscout.hardware import size_report
from bitscout.pipeline.components import Components, build_plan
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.evaluate import evaluate_policies
from bitscout.pipeline.events import FinalFinished, FinalStarted, Listener, StageProgress
from bitscout.pipeline.front import front_metrics, front_numbers, front_points, reference_point
from bitscout.pipeline.records import INTEGER_PROGRAM, FinalRecord, TrialRecord
from bitscout.pipeline.results import best_trial
from bitscout.space import ModelSpace
from bitscout.training import evaluate, save_weights

__all__ = ["finalize", "select_networks", "uniform_policy"]

BASELINE_BITS = (8, 4)  # Of the seed network, as in BOMP-NAS Figs. 2 and 7.
# Of a given network: the line that a search has to be above, down to two bits.
GIVEN_BASELINE_BITS = (8, 4, 3, 2)
UNIFORM_BITS = range(2, 9)
# Folders of a run directory.
FRONT: Literal["final"] = "final"
BASELINES: Literal["baselines"] = "baselines"
FILES = ("weights.safetensors", "candidate.json", "metrics.json")


@dataclass(frozen=True)
class _Job:
    """A network to train: where it goes and what it is."""

    root: Path
    folder: Literal["final", "baselines"]
    name: str
    label: str
    number: int | None
    candidate: Candidate

    @property
    def path(self) -> Path:
        """The file that is written last, so that its presence means all are there."""
        return self.root / self.folder / self.name / FILES[-1]


def finalize(
    components: Components,
    run: RunDirectory,
    history: Sequence[TrialRecord],
    listener: Listener,
) -> None:
    """Train and test the networks of the front and the baselines that are not on disk yet.

    A network whose training diverges is recorded in ``failures.json`` with the reason. A best
    network that is one of its own baselines (one bit-width everywhere, or the integer program's
    bits) is trained once.

    Args:
        components: What was searched and how to train.
        run: Its directory, locked by the caller.
        history: Every trial.
        listener: Told of every network and epoch.

    Raises:
        RunError: If a file cannot be written, or no network of the front could be trained.
    """
    jobs = _front_jobs(components, run, history) + _seed_jobs(components, run)
    # What is compared with the best network is known only when the others are trained.
    n_twins = 1 + (components.guidance is not None)
    trainer = _Trainer(components, run, listener, n_networks=len(jobs) + n_twins)
    records = trainer.train(jobs)
    searched = [record for record in records if record.folder == FRONT]
    if not searched:
        reasons = "; ".join(failure["reason"] for failure in run.read_failures())
        msg = f"None of the final networks could be trained: {reasons}"
        raise RunError(msg)
    best = max(searched, key=lambda record: _merit(components, record))
    twins = [_uniform_job(components, run, best), _allocation_job(components, run, best)]
    trainer.train([job for job in twins if job is not None and job.candidate != best.candidate])


class _Trainer:
    """Train networks with the final recipe, test each once, and write them.

    Args:
        components: How to train.
        run: Where to write.
        listener: Told of every network and epoch.
        n_networks: How many there will be in all.
    """

    def __init__(
        self, components: Components, run: RunDirectory, listener: Listener, n_networks: int
    ) -> None:
        self._components = components
        self._run = run
        self._listener = listener
        self._n_networks = n_networks
        self._n_done = 0

    def train(self, jobs: Sequence[_Job]) -> list[FinalRecord]:
        """Return the records of the jobs, read from disk where they are there already.

        Jobs of one architecture share one floating-point network. Those whose training diverges,
        now or in an earlier process, are left out.
        """
        groups: dict[str, list[_Job]] = {}
        for job in jobs:
            key = self._components.space.architecture_key(job.candidate.values)
            groups.setdefault(key, []).append(job)
        records = {}
        for key, group in groups.items():
            failed = {failure["name"] for failure in self._run.read_failures()}
            missing = [job for job in group if not job.path.is_file() and job.name not in failed]
            self._n_done += len(group) - len(missing)
            if missing:
                self._train_or_fail(key, missing)
            for job in group:
                if job.path.is_file():
                    document = self._run.read_json(job.path)
                    records[job.name] = FinalRecord.from_json(document)
        return [records[job.name] for job in jobs if job.name in records]

    def _train_or_fail(self, key: str, jobs: Sequence[_Job]) -> None:
        """Train a group; where that diverges, each network alone, so that others are kept.

        What diverges alone is recorded: the same seed would fail again.
        """
        try:
            self._train_group(key, jobs)
        except TrainingError as error:
            if len(jobs) > 1:
                for job in jobs:
                    if not job.path.is_file():
                        self._train_or_fail(key, [job])
                return
            failure = {"name": jobs[0].name, "label": jobs[0].label, "reason": str(error)}
            failures = [*self._run.read_failures(), failure]
            self._run.write_json(self._run.failures, failures)
            self._n_done += 1

    def _train_group(self, key: str, jobs: Sequence[_Job]) -> None:
        """Train one architecture and quantize it once for every job."""
        components = self._components
        label = " and ".join(job.label for job in jobs)
        self._listener(FinalStarted(label, self._n_done + 1, self._n_networks))
        architecture = components.space.architecture(jobs[0].candidate.values)
        networks = evaluate_policies(
            architecture,
            [job.candidate.policy for job in jobs],
            components.data.without_test(),
            build_plan(components, components.config.final),
            seed=child_seed(components.config.seed, "final", key),
            on_stage=lambda *stage: self._listener(StageProgress(*stage)),
        )
        for job, trained in zip(jobs, networks, strict=True):
            test_accuracy = evaluate(
                trained.module, components.data, "test", device=components.device
            )
            costs, cost_failure = _costs(components, job.candidate)
            record = FinalRecord(
                name=job.name,
                label=job.label,
                folder=job.folder,
                number=job.number,
                candidate=job.candidate,
                metrics=replace(
                    costs, val_accuracy=trained.val_accuracy, test_accuracy=test_accuracy
                ),
                float_accuracy=trained.float_accuracy,
                files=tuple(f"{job.folder}/{job.name}/{name}" for name in FILES),
                seconds=sum(trained.seconds.values()),
                cost_failure=cost_failure,
            )
            self._write(job, trained.module, record)
            self._n_done += 1
            self._listener(FinalFinished(record))

    def _write(self, job: _Job, module: nn.Module, record: FinalRecord) -> None:
        def fill(folder: Path) -> None:
            weights, candidate, metrics = (folder / name for name in FILES)
            save_weights(module, weights)
            self._run.write_json(candidate, record.candidate.to_json())
            self._run.write_json(metrics, record.to_json())

        self._run.write_folder(job.path.parent, fill)


def _costs(components: Components, candidate: Candidate) -> tuple[Metrics, str | None]:
    """Return what a network costs; where hardware does not answer, its sizes and the reason.

    A baseline may be a network that was never a trial, and training it was dear: a board that
    fails now must not lose it.
    """
    architecture = components.space.architecture(candidate.values)
    try:
        return components.costs.of(architecture, candidate.policy), None
    except (MeasurementError, UnsupportedError) as error:
        return size_report(architecture.layers(), candidate.policy).metrics(), str(error)


def select_networks(
    trials: Sequence[TrialRecord], front: Sequence[int], limit: int | None, names: Sequence[str]
) -> list[TrialRecord]:
    """Return the front trials to train: all, or `limit` of them.

    The best trial first, then greedily the ones that add most hypervolume on the axes of
    `front_points`, so that a short list still covers the front. The reference is error 1 and ten
    times the dearest network: a closer one would make dear networks worthless.

    Args:
        trials: All trials by number.
        front: Numbers of those on the front.
        limit: Largest number of networks; `None` takes all.
        names: Metrics of the front.
    """
    chosen_from = [trials[number] for number in front]
    if limit is None or len(chosen_from) <= limit:
        return chosen_from
    points = front_points([t.metrics for t in chosen_from if t.metrics is not None], names)
    reference = reference_point(points, names, margin=1.0)
    best = best_trial(chosen_from)
    chosen = [index for index, trial in enumerate(chosen_from) if trial is best]
    while len(chosen) < limit:
        rest = [index for index in range(len(points)) if index not in chosen]
        gains = [hypervolume(points[[*chosen, index]], reference) for index in rest]
        chosen.append(rest[int(np.argmax(gains))])
    return [chosen_from[index] for index in sorted(chosen)]


def uniform_policy(components: Components, candidate: Candidate) -> QuantPolicy:
    """Return the uniform policy whose size on the candidate's architecture is nearest to its own.

    Of two equally near ones the larger is taken: a baseline must not lose for want of bits.
    """
    space, values = components.space, candidate.values
    graph = space.layers(values)
    target = size_report(graph, candidate.policy).size_bits
    policies = [space.uniform_policy(values, bits) for bits in UNIFORM_BITS]
    return min(
        reversed(policies), key=lambda policy: abs(size_report(graph, policy).size_bits - target)
    )


def _front_jobs(
    components: Components, run: RunDirectory, history: Sequence[TrialRecord]
) -> list[_Job]:
    names = front_metrics(components.config)
    front = front_numbers(history, names)
    chosen = select_networks(history, front, components.config.final.max_networks, names)
    return [
        _Job(
            root=run.path,
            folder=FRONT,
            name=str(trial.number),
            label=f"trial {trial.number}",
            number=trial.number,
            candidate=trial.candidate,
        )
        for trial in chosen
        if trial.candidate is not None
    ]


def _seed_jobs(components: Components, run: RunDirectory) -> list[_Job]:
    space = components.space
    values = space.seed_values()
    is_given = isinstance(space, ModelSpace)
    what = "given network" if is_given else "seed network"
    return [
        _Job(
            root=run.path,
            folder=BASELINES,
            name=f"seed-{bits}bit",
            label=f"{what} at uniform {bits} bit",
            number=None,
            candidate=Candidate(values, space.uniform_policy(values, bits)),
        )
        for bits in (GIVEN_BASELINE_BITS if is_given else BASELINE_BITS)
    ]


def _uniform_job(components: Components, run: RunDirectory, best: FinalRecord) -> _Job:
    policy = uniform_policy(components, best.candidate)
    bits = min(layer.weight_bits for layer in policy.values())  # Edges may have more.
    return _Job(
        root=run.path,
        folder=BASELINES,
        name="uniform",
        label=f"{best.label} at uniform {bits} bit",
        number=best.number,
        candidate=Candidate(best.candidate.values, policy),
    )


def _allocation_job(components: Components, run: RunDirectory, best: FinalRecord) -> _Job | None:
    """Return the best network's widths at the bits that sensitivities alone would choose.

    Within the best network's own cost: its size, and whatever the budget bounds.
    """
    if components.guidance is None:
        return None
    metrics = {"size_bytes", *components.budget.metrics}
    known = best.metrics.to_json()  # Hardware that failed left some out.
    limits = {name: known[name] for name in sorted(metrics) if name in known}
    row = components.guidance.best_bits(best.candidate.values, limits)
    if row is None:
        return None
    return _Job(
        root=run.path,
        folder=BASELINES,
        name=INTEGER_PROGRAM,
        label=f"{best.label} at the integer program's bits",
        number=best.number,
        candidate=components.space.candidate(components.space.decode(row)),
    )


def _merit(components: Components, record: FinalRecord) -> float:
    """Return what the best network has most of: the score, or the accuracy without one."""
    if components.config.objective.front is not None:
        return record.metrics["val_accuracy"]
    return components.objective.values(record.metrics)[0]
