# SPDX-License-Identifier: Apache-2.0
"""Who finds good bit-widths of a trained network with few evaluations, over 20 seeds.

Two objectives (guided_objective.py) over 10 layers x {2, 3, 4, 6, 8} bits: ``ptq``, accuracy after
quantization at 3.5 bits a weight on average, each seed on its own half of the validation images
and given relative to 8 bits everywhere; ``qat``, accuracy after four epochs of fine-tuning at 2.5
bits, every trial with its own training seed.

The budget is the same for all and costs no evaluation: what a sampler proposes over the budget is
repaired before it is evaluated (`FeasibleSampler`), unless the sampler itself knows the budget
(random search, k-means TPE and the guided sampler do). Every sampler sees bits as integers and
starts as it does by default. What counts is the best value so far, its median and quartiles, and
the evaluation at which it reaches the final median of Optuna's TPE.

``ladder`` is five integer programs, within the budget and 0.97, 0.94, 0.9 and 0.85 of it, and then
a plain search from the best network so far: changes of one or two layers in the order of the
expected loss. ``guided`` starts from the first of the five, ``guided-ladder`` from all.

What was evaluated is kept in ``--work`` and not evaluated again.

Run: python benchmarks/guided_search.py CIFAR10_NPZ --work DIRECTORY [--objective qat]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hyperopt
import numpy as np
import optuna
import torch
from guided_objective import BITS, N_LAYERS, OBJECTIVES, Network
from optuna.distributions import IntDistribution
from provenance import provenance

from bitscout.core import child_seed
from bitscout.samplers import (
    FeasibleSampler,
    GuidedSampler,
    KMeansTPESampler,
    RandomSearchSampler,
    SpaceHooks,
    optuna_sampler,
)
from bitscout.sensitivity import allocate

REFERENCE = "optuna-tpe"
# What is asked of them is whether they are there within 20 evaluations.
SHORT = ("ladder", "guided", "guided-ladder")
SHARES = (1.0, 0.97, 0.94, 0.9, 0.85)
MEAN_BITS = {"ptq": 3.5, "qat": 2.5}
RESULTS = Path(__file__).parent / "results"
SPACE = {f"layer{d}": IntDistribution(0, len(BITS) - 1) for d in range(N_LAYERS)}


class HyperOptSampler(optuna.samplers.RandomSampler):
    """HyperOpt's TPE, which is told the whole study and asked once for each trial."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._root = seed
        space = {name: hyperopt.hp.uniformint(name, d.low, d.high) for name, d in SPACE.items()}
        self._domain = hyperopt.base.Domain(lambda point: 0.0, space)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return dict(SPACE)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        done = [t for t in study.get_trials(deepcopy=False) if t.values is not None]
        trials = hyperopt.Trials()
        documents = [
            {
                **dict.fromkeys(("exp_key", "owner", "version", "book_time", "refresh_time")),
                "state": hyperopt.JOB_STATE_DONE,
                "tid": t.number,
                "spec": None,
                "result": {"status": hyperopt.STATUS_OK, "loss": -t.value},
                "misc": {
                    "tid": t.number,
                    "cmd": ("domain_attachment", "FMinIter_Domain"),
                    "workdir": None,
                    "idxs": {name: [t.number] for name in t.params},
                    "vals": {name: [float(value)] for name, value in t.params.items()},
                },
            }
            for t in done
        ]
        trials.insert_trial_docs(documents)
        trials.refresh()
        seed = child_seed(self._root, "hyperopt", trial.number) % 2**31
        (asked,) = hyperopt.tpe.suggest([trial.number], self._domain, trials, seed)
        return {name: int(found[0]) for name, found in asked["misc"]["vals"].items()}


class Ladder(optuna.samplers.RandomSampler):
    """Integer programs, then changes of one or two layers of the best, least loss first."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(0)
        self._setting = setting

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return dict(SPACE)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        done = [t for t in study.get_trials(deepcopy=False) if t.values is not None]
        seen = {tuple(t.params.values()) for t in done}
        for start in self._setting.ladder(SHARES):
            if tuple(start) not in seen:
                return dict(zip(SPACE, start, strict=True))
        for best in sorted(done, key=lambda t: -t.value):
            rows = self._setting.around(np.array(list(best.params.values())))
            expected = self._setting.losses[np.arange(N_LAYERS), rows].sum(axis=1)
            for i in np.argsort(expected, kind="stable"):
                if tuple(rows[i].tolist()) not in seen:
                    return dict(zip(SPACE, rows[i].tolist(), strict=True))
        msg = "Everything around every network within the budget was evaluated."
        raise RuntimeError(msg)


class Setting:
    """What is known before the search: weights, expected losses, the budget."""

    def __init__(self, network: Network, mean_bits: float) -> None:
        self.losses = network.losses
        self.costs = network.sizes[:, None] * BITS
        self.limit = mean_bits * network.sizes.sum()
        self.hooks = SpaceHooks(search_space=SPACE, violation=self.violation)

    def violation(self, rows: np.ndarray) -> np.ndarray:
        return self.costs[np.arange(N_LAYERS), rows].sum(axis=1) / self.limit - 1.0

    def ladder(self, shares: tuple[float, ...]) -> list[tuple[int, ...]]:
        """Return the integer program's solutions within shares of the budget."""
        found = (
            allocate(list(self.losses), {"bits": list(self.costs)}, {"bits": share * self.limit})
            for share in shares
        )
        return list(dict.fromkeys(found))

    def around(self, row: np.ndarray) -> np.ndarray:
        """Return the rows within the budget that differ from `row` in one or two layers."""
        one = np.concatenate(
            [
                np.where(np.arange(N_LAYERS) == d, j, row)[None]
                for d in range(N_LAYERS)
                for j in range(len(BITS))
            ]
        )
        two = np.concatenate(
            [
                np.where(np.arange(N_LAYERS) == d, j, one)
                for d in range(N_LAYERS)
                for j in range(len(BITS))
            ]
        )
        rows = np.unique(two, axis=0)
        return rows[self.violation(rows) <= 0]


Make = Callable[[Setting, int], optuna.samplers.BaseSampler]


def kept_feasible(make: Callable[[int], optuna.samplers.BaseSampler]) -> Make:
    return lambda setting, seed: FeasibleSampler(make(seed), setting.hooks, seed=seed)


def guided(shares: tuple[float, ...]) -> Make:
    return lambda setting, seed: GuidedSampler(
        list(setting.losses), setting.ladder(shares), seed=seed, hooks=setting.hooks
    )


SAMPLERS: dict[str, Make] = {
    "random": lambda setting, seed: RandomSearchSampler(seed=seed, hooks=setting.hooks),
    REFERENCE: kept_feasible(lambda seed: optuna_sampler("tpe", seed)),
    "optuna-gp": kept_feasible(lambda seed: optuna_sampler("gp", seed)),
    "hyperopt-tpe": kept_feasible(HyperOptSampler),
    "kmeans-tpe-literal": kept_feasible(lambda seed: KMeansTPESampler.literal(seed=seed)),
    "kmeans-tpe": lambda setting, seed: KMeansTPESampler(seed=seed, hooks=setting.hooks),
    "kmeans-tpe-ours": lambda setting, seed: KMeansTPESampler.improved(
        seed=seed, hooks=setting.hooks
    ),
    "ladder": lambda setting, seed: Ladder(setting),
    "guided": guided(SHARES[:1]),
    "guided-ladder": guided(SHARES),
}


def values_of(
    objective: Any, setting: Setting, name: str, seed: int, n_trials: int
) -> list[float]:
    """Return all values of a study, in order, relative to the seed's reference."""
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](setting, seed))
    for i in range(n_trials):
        trial = study.ask(SPACE)
        row = np.array([trial.params[key] for key in SPACE])
        assert setting.violation(row[None])[0] <= 0, "evaluations count within the budget only"
        study.tell(trial, objective(row, seed, i))
    reference = objective.reference(seed)
    return [trial.value - reference for trial in study.trials]


def first_reaching(curve: np.ndarray, target: float) -> int | None:
    """Return after how many evaluations `curve` is at `target`, or `None` if it never is."""
    reached = np.flatnonzero(curve >= target - 1e-9)
    return int(reached[0]) + 1 if len(reached) else None


def tables(title: str, best: dict[str, np.ndarray]) -> tuple[list[dict], list[dict]]:
    """Return rows by seed, and rows of quartiles by evaluation."""
    target = float(np.median(best[REFERENCE][:, -1]))
    by_seed, by_evaluation = [], []
    for name, curves in best.items():
        quartiles = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
        reached = [first_reaching(curve, target) for curve in curves]
        own = np.median([np.inf if r is None else r for r in reached])
        never = "never" if not np.isfinite(own) else f"{own:g}"
        median = first_reaching(quartiles[1], target)
        print(
            f"{title} {name:<20} final median {quartiles[1, -1]:+.4f} [{quartiles[0, -1]:+.4f}, "
            f"{quartiles[2, -1]:+.4f}] of {len(curves)} seeds; median curve at TPE's final "
            f"{target:+.4f} after {median or 'never'}, median seed after {never}"
        )
        by_seed += [
            {
                "task": title,
                "sampler": name,
                "seed": seed,
                "evaluations": len(curve),
                "best": round(float(curve[-1]), 6),
                "evaluations_to_target": r or "",
                "target": round(target, 6),
                **provenance(("numpy", "scipy", "optuna", "hyperopt", "torch")),
            }
            for seed, (curve, r) in enumerate(zip(curves, reached, strict=True))
        ]
        by_evaluation += [
            {
                "task": title,
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


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--objective", choices=list(OBJECTIVES), default="ptq")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--few", type=int, default=25, help=f"trials of {', '.join(SHORT)}")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    network = Network(args.cifar10, args.work)
    objective = OBJECTIVES[args.objective](network)
    setting = Setting(network, MEAN_BITS[args.objective])
    best: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([REFERENCE, *args.samplers]):
        n_trials = args.few if name in SHORT else args.trials
        path = args.work / f"{args.objective}_{name}_{n_trials}.json"
        done = json.loads(path.read_text()) if path.exists() else []
        for seed in range(len(done), args.seeds):
            start = time.perf_counter()
            done.append(values_of(objective, setting, name, seed, n_trials))
            path.write_text(json.dumps(done))
            seconds = time.perf_counter() - start
            print(f"{name} {seed} {max(done[-1]):+.4f} {seconds:.0f} s", flush=True)
        best[name] = np.maximum.accumulate(np.array(done[: args.seeds]), axis=1)
    by_seed, by_evaluation = tables(args.objective, best)
    write(RESULTS / f"guided_search_{args.objective}.csv", by_seed)
    write(RESULTS / f"guided_search_{args.objective}_curves.csv", by_evaluation)


if __name__ == "__main__":
    main()
