# SPDX-License-Identifier: Apache-2.0
"""How fast k-means TPE converges on tasks like those of Fig. 3 of Azizi et al., over 20 seeds.

``iris`` and ``titanic`` are its two classic tasks (classic_tasks.py), ``bits`` stands for the
third one (synthetic_bits.py: an objective a seed, as regret).

The paper shows one curve a task, without seeds, and claims the same or better results than TPE at
two to three times fewer evaluations. Here every sampler of a seed starts from the same 20 random
points, and what counts is the best value so far: its median and quartiles after each evaluation,
and the evaluation at which it reaches TPE's final median.

``kmeans-tpe-literal`` is Algorithm 1 within HyperOpt to the letter, ``kmeans-tpe`` the same with
whole points drawn from l and nothing evaluated twice, ``kmeans-tpe-ours`` what we make of it. All
samplers see ordered choices as integers.

What was run is kept in ``--work`` and not run again; objectives are cached there too.

Run: python benchmarks/kmeans_tpe_convergence.py --work DIRECTORY
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import hyperopt
import numpy as np
import optuna
import torch
from classic_tasks import IrisForest, Task, TitanicBoosting
from hyperopt import hp
from optuna.distributions import FloatDistribution, IntDistribution
from provenance import provenance
from synthetic_bits import SyntheticBits

from bitscout.samplers import KMeansTPESampler, RandomSearchSampler, SpaceHooks

REFERENCE = "optuna-tpe"
RESULTS = Path(__file__).parent / "results"
TaskOf = Callable[[int], Task]
Make = Callable[[int, int], optuna.samplers.BaseSampler]

SAMPLERS: dict[str, Make] = {
    REFERENCE: lambda seed, n: optuna.samplers.TPESampler(seed=seed, n_startup_trials=n),
    "optuna-gp": lambda seed, n: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=n, deterministic_objective=True
    ),
    "kmeans-tpe-literal": lambda seed, n: KMeansTPESampler.literal(seed=seed, n_startup_trials=n),
    "kmeans-tpe": lambda seed, n: KMeansTPESampler(seed=seed, n_startup_trials=n),
    "kmeans-tpe-ours": lambda seed, n: KMeansTPESampler.improved(seed=seed, n_startup_trials=n),
}
NAMES = ("random", *SAMPLERS, "hyperopt-tpe")


def iris(work: Path) -> TaskOf:
    objective = IrisForest(work)
    return lambda seed: Task("iris", objective.space, objective)


def titanic(work: Path) -> TaskOf:
    objective = TitanicBoosting(work)
    return lambda seed: Task("titanic", objective.space, objective)


TASKS: dict[str, Callable[[Path], TaskOf]] = {
    "bits": lambda work: lambda seed: SyntheticBits(seed).task(),
    "iris": iris,
    "titanic": titanic,
}


def startup_points(task: Task, seed: int, n: int) -> list[dict]:
    """Return the first `n` points of random search."""
    hooks = SpaceHooks(search_space=task.space)
    study = optuna.create_study(sampler=RandomSearchSampler(seed=seed, hooks=hooks))
    points = []
    for _ in range(n):
        trial = study.ask(task.space)
        points.append(trial.params)
        study.tell(trial, 0.0)
    return points


def values_of(task: Task, name: str, seed: int) -> list[float]:
    """Return all values of a study, in order."""
    points = startup_points(task, seed, task.n_trials if name == "random" else task.n_startup)
    if name == "hyperopt-tpe":
        return with_hyperopt(task, points, seed)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        optuna.trial.create_trial(
            params=point, distributions=task.space, value=task.objective(point)
        )
        for point in points
    )
    if name != "random":
        study.sampler = SAMPLERS[name](seed, task.n_startup)
    while len(study.trials) < task.n_trials:
        trial = study.ask(task.space)
        study.tell(trial, task.objective(trial.params))
    return [trial.value for trial in study.trials]


def with_hyperopt(task: Task, points: list[dict], seed: int) -> list[float]:
    space = {}
    for name, d in task.space.items():
        if isinstance(d, IntDistribution):
            space[name] = hp.uniformint(name, d.low, d.high)
        elif isinstance(d, FloatDistribution):
            space[name] = hp.loguniform(name, np.log(d.low), np.log(d.high))
    trials = hyperopt.fmin.__globals__["generate_trials_to_calculate"](points)
    hyperopt.fmin(
        lambda point: (
            -task.objective(
                {
                    k: v if isinstance(task.space[k], FloatDistribution) else int(v)
                    for k, v in point.items()
                }
            )
        ),
        space,
        algo=hyperopt.tpe.suggest,
        max_evals=task.n_trials,
        trials=trials,
        rstate=np.random.default_rng(seed),
        show_progressbar=False,
        verbose=False,
    )
    return [-loss for loss in trials.losses()]


def run(task_of: TaskOf, names: list[str], seeds: int, work: Path) -> dict[str, np.ndarray]:
    """Return the best value so far of each sampler, ``(seeds, n_trials)``."""
    best, title = {}, task_of(0).name
    for name in names:
        path = work / f"{title}_{name}.json"
        done = json.loads(path.read_text()) if path.exists() else []
        start = time.perf_counter()
        for seed in range(len(done), seeds):
            done.append(values_of(task_of(seed), name, seed))
            path.write_text(json.dumps(done))
        best[name] = np.maximum.accumulate(np.array(done[:seeds]), axis=1)
        final = np.quantile(best[name][:, -1], [0.25, 0.5, 0.75])
        print(
            f"{title:<8} {name:<20} median {final[1]:.5f} [{final[0]:.5f}, {final[2]:.5f}]"
            f"  {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return best


def first_reaching(curve: np.ndarray, target: float) -> int | None:
    """Return after how many evaluations `curve` is at `target`, or `None` if it never is."""
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else None


def tables(task: Task, best: dict[str, np.ndarray]) -> tuple[list[dict], list[dict]]:
    """Return rows by seed, and rows of quartiles by evaluation."""
    target = float(np.median(best[REFERENCE][:, -1]))
    by_seed, by_evaluation = [], []
    for name, curves in best.items():
        quartiles = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
        reached = [first_reaching(curve, target) for curve in curves]
        own = np.median([task.n_trials + 1 if r is None else r for r in reached])
        median = first_reaching(quartiles[1], target)
        print(
            f"{task.name:<8} {name:<20} median curve reaches TPE's final {target:.5f} after "
            f"{median or 'never'}; median of seeds {own:g}"
        )
        by_seed += [
            {
                "task": task.name,
                "sampler": name,
                "seed": seed,
                "best": round(float(curve[-1]), 6),
                "evaluations_to_target": r or "",
                "target": round(target, 6),
                **provenance(("numpy", "scikit-learn", "optuna", "hyperopt")),
            }
            for seed, (curve, r) in enumerate(zip(curves, reached, strict=True))
        ]
        by_evaluation += [
            {
                "task": task.name,
                "sampler": name,
                "evaluation": i + 1,
                **{
                    label: round(float(value), 6)
                    for label, value in zip(("q25", "median", "q75"), column, strict=True)
                },
            }
            for i, column in enumerate(quartiles.T)
        ]
    return by_seed, by_evaluation


def write(rows: list[dict], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--samplers", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--work", type=Path, required=True, help="a directory for caches")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    seeds, evaluations, raw = [], [], {}
    for name in args.tasks:
        task_of = TASKS[name](args.work)
        best = run(
            task_of, list(dict.fromkeys([REFERENCE, *args.samplers])), args.seeds, args.work
        )
        more_seeds, more_evaluations = tables(task_of(0), best)
        seeds += more_seeds
        evaluations += more_evaluations
        raw |= {f"{name}/{sampler}": curves.astype(np.float32) for sampler, curves in best.items()}
    write(seeds, args.out / "kmeans_tpe_convergence.csv")
    write(evaluations, args.out / "kmeans_tpe_convergence_curves.csv")
    np.savez_compressed(args.out / "kmeans_tpe_convergence.npz", **raw)


if __name__ == "__main__":
    main()
