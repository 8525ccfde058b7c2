# SPDX-License-Identifier: Apache-2.0
"""Made-up runs over the real BOMP space, as results in memory and as directories on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from bitscout.core import Candidate, Metrics, QuantPolicy
from bitscout.hardware import HardwareModel, size_report
from bitscout.pipeline import FinalRecord, RunConfig, RunResult, TrialRecord, dump_config
from bitscout.pipeline.journal import Journal
from bitscout.space import BompSpace

SPACE = BompSpace(input_shape=(1, 8, 8))
FILES = ("weights.safetensors", "candidate.json", "metrics.json")
ENVIRONMENT = {
    "bitscout": "0.1.0",
    "python": "3.11.2",
    "torch": "2.13.0",
    "cpu": "Example CPU @ 2.00GHz",
    "cores": 2,
    "commit": "0123abc",
    "seeds": {"root": 0},
}
DATASET = {
    "name": "digits",
    "input_shape": [1, 8, 8],
    "n_classes": 10,
    "n_train": 1294,
    "n_test": 360,
}


def metrics_of(
    candidate: Candidate, models: Sequence[HardwareModel] = (), **accuracies: float
) -> Metrics:
    graph = SPACE.layers(candidate.values)
    known = size_report(graph, candidate.policy).metrics().to_json()
    for model in models:
        known = {**model.report(graph, candidate.policy).total, **known}
    return Metrics.from_json({**known, **accuracies})


def models_of(config: RunConfig) -> list[HardwareModel]:
    """The hardware of a run; boards are not asked."""
    return [model for model in config.build_hardware() if not model.needs_file]


def accuracy_of(candidate: Candidate, rng: np.random.Generator, gain: float = 0.0) -> float:
    """Larger networks are better, with noise; some learn nothing."""
    size = metrics_of(candidate).size_bytes
    bits = np.mean([pair.weight_bits for pair in candidate.policy.values()])
    accuracy = 0.99 - 0.16 * np.exp(-1.3 * (log10(size) - 3.35)) + 0.004 * (bits - 6)
    return float(np.clip(accuracy + gain + rng.normal(0, 0.012), 0.1, 1))


def make_trials(config: RunConfig, n_trials: int, rng: np.random.Generator) -> list[TrialRecord]:
    objective, budget = config.objective.build(), config.budget.build()
    models = models_of(config)
    trials: list[TrialRecord] = []
    best = SPACE.seed_values()
    for number in range(n_trials):
        if number % 3 == 2 and trials:  # as a searcher does: near the best so far
            near = SPACE.neighbours(best)
            values = near[rng.integers(len(near))]
        else:
            values = SPACE.sample(rng) if number else best
        candidate = SPACE.candidate(values)
        known = metrics_of(candidate, models)
        reason = budget.reason(known)
        if not budget.bounds() and number % 17 == 11:
            reason = "size_kb 91.6 is over the budget of 64"
        if reason is not None:
            trials.append(
                TrialRecord(
                    number=number,
                    outcome="infeasible",
                    candidate=candidate,
                    metrics=known,
                    reason=reason,
                )
            )
            continue
        if number % 23 == 13:
            trials.append(
                TrialRecord(
                    number=number,
                    outcome="failed",
                    candidate=candidate,
                    metrics=metrics_of(candidate),
                    reason="The loss is nan after epoch 3 of 20; lower training.lr.",
                )
            )
            continue
        accuracy = 0.11 if number % 19 == 6 else accuracy_of(candidate, rng)
        metrics = replace(known, val_accuracy=accuracy)
        record = TrialRecord(
            number=number,
            outcome="complete",
            candidate=candidate,
            metrics=metrics,
            values=objective.values(metrics),
            seconds={"propose": 0.1, "train": 2.0, "quantize": 0.3, "fine-tune": 0.2},
        )
        trials.append(record)
        scored = [trial for trial in trials if trial.outcome == "complete"]
        best = max(scored, key=lambda trial: trial.values[0]).candidate.values
    return trials


def make_final(name, label, number, candidate, rng, gain, models) -> FinalRecord:
    folder = "final" if name.isdigit() else "baselines"
    return FinalRecord(
        name=name,
        label=label,
        folder=folder,
        number=number,
        candidate=candidate,
        metrics=metrics_of(
            candidate,
            models,
            val_accuracy=accuracy_of(candidate, rng, gain + 0.01),
            test_accuracy=accuracy_of(candidate, rng, gain),
        ),
        float_accuracy=accuracy_of(candidate, rng, gain + 0.015),
        files=tuple(f"{folder}/{name}/{file}" for file in FILES),
        seconds=31.0,
    )


def make_result(
    directory: str | Path = "runs/quickstart",
    *,
    n_trials: int = 40,
    n_finished: int | None = None,
    with_final: bool = True,
    with_baselines: bool = True,
    gain: float = 0.02,
    baseline_gain: float = 0.0,
    front: bool = False,
    sections: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> RunResult:
    """Return a run; `n_finished` below `n_trials` leaves it searching, without finals it is
    finalizing. `sections` are those of a configuration: hardware, budget, objective."""
    rng = np.random.default_rng(seed)
    config = RunConfig.model_validate(
        {
            "name": "quickstart",
            "searcher": {"n_trials": n_trials},
            "objective": {"front": ["accuracy", "size_bytes"]} if front else {},
            **(sections or {}),
        }
    )
    models = models_of(config)
    n_finished = n_trials if n_finished is None else n_finished
    trials = make_trials(config, n_finished, rng)
    searching = n_finished < n_trials
    partial = RunResult(Path(directory), config, DATASET, ENVIRONMENT, "searching", tuple(trials))
    final, baselines = [], []
    if with_final and not searching:
        for number in partial.pareto_front:
            candidate = trials[number].candidate
            args = (str(number), f"trial {number}", number, candidate)
            final.append(make_final(*args, rng, gain, models))
    if with_baselines and final:
        seed_values = SPACE.seed_values()
        names = SPACE.layers(seed_values).names
        for bits in (8, 4):
            policy = QuantPolicy.uniform(names, bits)
            label = f"seed network, uniform {bits} bit"
            candidate = Candidate(seed_values, policy)
            args = (f"seed-{bits}bit", label, None, candidate)
            baselines.append(make_final(*args, rng, baseline_gain, models))
        own = final[len(final) // 2].candidate
        policy = QuantPolicy.uniform(list(own.policy), 6)
        label = f"architecture of trial {final[len(final) // 2].number}, uniform 6 bit"
        candidate = Candidate(own.values, policy)
        baselines.append(make_final("uniform", label, None, candidate, rng, baseline_gain, models))
    size = lambda record: record.metrics["size_bytes"]  # noqa: E731
    state = "searching" if searching else "complete" if baselines else "finalizing"
    return RunResult(
        directory=Path(directory),
        config=config,
        dataset=DATASET,
        environment=ENVIRONMENT,
        state=state,
        trials=tuple(trials),
        final=tuple(sorted(final, key=size)),
        baselines=tuple(sorted(baselines, key=size)),
    )


def write_run(result: RunResult) -> Path:
    """Write `result` where `load_result` finds it, and return the directory."""
    import optuna

    directory = result.directory
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(dump_config(result.config))
    (directory / "dataset.json").write_text(json.dumps(result.dataset))
    (directory / "environment.json").write_text(json.dumps(result.environment))
    sampler = optuna.samplers.RandomSampler(seed=0)
    journal = Journal(directory / "study.journal", result.config.objective.build(), sampler)
    for record in result.trials:
        trial, _ = journal.ask(record.number, {"a": 2})
        journal.tell(trial, record)
    for folder, records in (("final", result.final), ("baselines", result.baselines)):
        for record in records:
            path = directory / folder / record.name / "metrics.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(record.to_json()))
    if result.state == "complete":
        (directory / "done.json").write_text("{}")
    return directory
