# SPDX-License-Identifier: Apache-2.0
"""How long one `ask` of k-means TPE takes, against Optuna's TPE.

Claim: at 160 observations and 40 integer choices of 5 values, `KMeansTPESampler` is no slower than
`optuna.samplers.TPESampler` with its defaults, nor with independent choices.

All samplers of a round follow each other in one process, so that they see the same load; ratios
are medians over rounds. Processor time, which other work on the machine disturbs less, is given
too.

Run: python benchmarks/sampler_ask_tpe.py
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from provenance import provenance

from bitscout.samplers import (
    ClusterSplit,
    KMeansTPESampler,
    MixtureParzen,
    QuantileSplit,
)

N_OBSERVATIONS, N_CHOICES = 160, 40
SPACE = {f"x{d}": IntDistribution(0, 4) for d in range(N_CHOICES)}
REFERENCE = "optuna-tpe"


def samplers(seed: int) -> dict[str, optuna.samplers.BaseSampler]:
    return {
        REFERENCE: optuna.samplers.TPESampler(seed=seed),
        "optuna-tpe-independent": optuna.samplers.TPESampler(seed=seed, multivariate=False),
        "joint": KMeansTPESampler(seed=seed),
        "literal": KMeansTPESampler.literal(seed=seed),
        "rest": KMeansTPESampler(split=ClusterSplit(bad="rest"), seed=seed),
        "mixture": KMeansTPESampler(estimator=MixtureParzen(), split=QuantileSplit(), seed=seed),
    }


def make_study(seed: int) -> optuna.Study:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 5, (N_OBSERVATIONS, N_CHOICES)).tolist()
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(zip(SPACE, row, strict=True)),
            distributions=SPACE,
            value=float(rng.normal()),
        )
        for row in rows
    )
    return study


def timed_ask(study: optuna.Study) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    trial = study.ask(SPACE)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    study.tell(trial, 0.0)
    return wall, cpu


def measure(rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(rounds):
        for name, sampler in samplers(seed).items():
            study = make_study(seed)
            study.sampler = sampler
            wall, cpu = timed_ask(study)
            rows.append(
                {"sampler": name, "seed": seed, "wall_s": round(wall, 5), "cpu_s": round(cpu, 5)}
            )
    return rows


def report(rows: list[dict[str, object]]) -> None:
    names = dict.fromkeys(str(row["sampler"]) for row in rows)
    columns = {
        (name, column): np.array([row[column] for row in rows if row["sampler"] == name])
        for name in names
        for column in ("wall_s", "cpu_s")
    }
    for name in names:
        line = f"{name:<24}"
        for column in ("wall_s", "cpu_s"):
            times = columns[name, column]
            ratio = np.median(columns[REFERENCE, column] / times)
            line += f"  {column[:-2]:<4} {1e3 * np.median(times):7.2f} ms {ratio:6.2f}x"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    measure(1)  # imports and first calls
    rows = measure(args.rounds)
    report(rows)
    path = args.out / "sampler_ask_tpe.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *provenance()])
        writer.writeheader()
        writer.writerows({**row, **provenance()} for row in rows)
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
