# SPDX-License-Identifier: Apache-2.0
"""After the search: final training of the front, and the baselines every claim is measured by.

Every network gets the same recipe, and its test set is touched once. A network's seed depends on
its candidate alone, so a front network that equals a baseline is trained once and counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from bitscout.core import Candidate, QuantPolicy, child_seed, hypervolume_2d
from bitscout.hardware import size_report
from bitscout.pipeline.components import Components, build_plan
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.evaluate import Trained, evaluate_policies
from bitscout.pipeline.events import FinalFinished, FinalStarted, Listener, StageProgress
from bitscout.pipeline.records import FinalRecord, TrialRecord
from bitscout.pipeline.results import front_metrics, front_numbers
from bitscout.training import evaluate, save_weights

__all__ = ["finalize", "select_networks", "uniform_policy"]

BASELINE_BITS = (8, 4)  # Of the seed network, as in BOMP-NAS Figs. 2 and 7.
UNIFORM_BITS = range(2, 9)


@dataclass(frozen=True)
class _Job:
    """A network to train: where it goes and what it is."""

    folder: Path
    label: str
    number: int | None
    candidate: Candidate


def finalize(
    components: Components,
    run: RunDirectory,
    history: Sequence[TrialRecord],
    listener: Listener,
) -> None:
    """Train and test the networks of the front and the baselines that are not on disk yet.

    Args:
        components: What was searched and how to train.
        run: Its directory, locked by the caller.
        history: Every trial.
        listener: Told of every network and epoch.

    Raises:
        RunError: If a file cannot be written.
        TrainingError: If a final training diverges.
    """
    jobs = _front_jobs(components, run, history) + _seed_jobs(components, run)
    # One more baseline is known only when the others are trained.
    total = len(jobs) + 1
    records = [
        _train_or_read(components, run, job, (index, total), listener)
        for index, job in enumerate(jobs, start=1)
    ]
    best = max(
        (record for record in records if record.number is not None),  # The searched ones.
        key=lambda record: (
            components.objective.values(record.metrics)[0]
            if components.config.objective.front is None
            else record.metrics["val_accuracy"]
        ),
    )
    job = _uniform_job(components, run, best)
    _train_or_read(components, run, job, (total, total), listener)


def select_networks(
    trials: Sequence[TrialRecord], front: Sequence[int], limit: int | None
) -> list[TrialRecord]:
    """Return the front trials to train: all, or the `limit` that span the most hypervolume.

    Chosen greedily in (error, log10 size), so that a short list still covers the front. The
    reference is error 1 and ten times the largest network: a closer one would make large networks
    worthless.
    """
    chosen_from = [trials[number] for number in front]
    if limit is None or len(chosen_from) <= limit:
        return chosen_from
    points = np.array([_error_and_log_size(trial) for trial in chosen_from])
    reference = np.array([1.0, points[:, 1].max() + 1.0])
    chosen: list[int] = []
    for _ in range(limit):
        rest = [index for index in range(len(points)) if index not in chosen]
        gains = [hypervolume_2d(points[[*chosen, index]], reference) for index in rest]
        chosen.append(rest[int(np.argmax(gains))])
    return [chosen_from[index] for index in sorted(chosen)]


def uniform_policy(components: Components, candidate: Candidate) -> QuantPolicy:
    """Return the uniform policy whose size on the candidate's architecture is nearest to its own.

    Of two equally near ones the larger is taken: a baseline must not lose for want of bits.
    """
    graph = components.space.layers(candidate.values)
    act_bits = max(bits.act_bits for bits in candidate.policy.values())
    target = size_report(graph, candidate.policy).size_bits
    policies = [QuantPolicy.uniform(graph.names, bits, act_bits) for bits in UNIFORM_BITS]
    return min(
        reversed(policies), key=lambda policy: abs(size_report(graph, policy).size_bits - target)
    )


def _front_jobs(
    components: Components, run: RunDirectory, history: Sequence[TrialRecord]
) -> list[_Job]:
    front = front_numbers(history, front_metrics(components.config))
    chosen = select_networks(history, front, components.config.final.max_networks)
    return [
        _Job(run.final / str(trial.number), f"trial {trial.number}", trial.number, trial.candidate)
        for trial in chosen
        if trial.candidate is not None
    ]


def _seed_jobs(components: Components, run: RunDirectory) -> list[_Job]:
    values = components.space.seed_values()
    names = components.space.layers(values).names
    act_bits = max(bits.act_bits for bits in components.space.policy(values).values())
    return [
        _Job(
            run.baselines / f"seed-{bits}bit",
            f"seed network at uniform {bits} bit",
            None,
            Candidate(values, QuantPolicy.uniform(names, bits, act_bits)),
        )
        for bits in BASELINE_BITS
    ]


def _uniform_job(components: Components, run: RunDirectory, best: FinalRecord) -> _Job:
    policy = uniform_policy(components, best.candidate)
    bits = next(iter(policy.values())).weight_bits
    return _Job(
        run.baselines / "uniform",
        f"{best.label} at uniform {bits} bit",
        best.number,
        Candidate(best.candidate.values, policy),
    )


def _train_or_read(
    components: Components,
    run: RunDirectory,
    job: _Job,
    place: tuple[int, int],
    listener: Listener,
) -> FinalRecord:
    path = job.folder / "metrics.json"
    if path.is_file():
        return FinalRecord.from_json(run.read_json(path))
    listener(FinalStarted(job.label, *place))
    start = perf_counter()
    architecture = components.space.architecture(job.candidate.values)
    (trained,) = evaluate_policies(
        architecture,
        [job.candidate.policy],
        components.data.without_test(),
        build_plan(components, components.config.final),
        seed=child_seed(components.config.seed, "final", job.candidate.digest),
        on_stage=lambda *stage: listener(StageProgress(*stage)),
    )
    test_accuracy = evaluate(trained.module, components.data, "test", device=components.device)
    costs = size_report(architecture.layers(), job.candidate.policy).metrics(
        val_accuracy=trained.val_accuracy
    )
    relative = job.folder.relative_to(run.path)
    files = ("weights.safetensors", "candidate.json", "metrics.json")
    record = FinalRecord(
        name=job.folder.name,
        label=job.label,
        number=job.number,
        candidate=job.candidate,
        metrics=replace(costs, test_accuracy=test_accuracy),
        float_accuracy=trained.float_accuracy,
        files=tuple(str(relative / name) for name in files),
        seconds=perf_counter() - start,
    )
    run.write_folder(job.folder, lambda folder: _write_network(run, folder, trained, record))
    listener(FinalFinished(record))
    return record


def _write_network(run: RunDirectory, folder: Path, trained: Trained, record: FinalRecord) -> None:
    save_weights(trained.module, folder / "weights.safetensors")
    run.write_json(folder / "candidate.json", record.candidate.to_json())
    run.write_json(folder / "metrics.json", record.to_json())


def _error_and_log_size(trial: TrialRecord) -> tuple[float, float]:
    assert trial.metrics is not None
    return 1 - trial.metrics["val_accuracy"], float(np.log10(8 * trial.metrics["size_bytes"]))
