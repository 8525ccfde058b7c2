# SPDX-License-Identifier: Apache-2.0
"""How long one `ask` takes, against Optuna's own Gaussian-process sampler.

Claim: at 100 observations in the 49-dimensional space of BOMP-NAS, surrogate fit included,
`paper` is at least 10x faster than `optuna.samplers.GPSampler`, `scaled` and `edit_distance` at
least 4x; at 10,000 observations every one of them takes under 2 s.

GPSampler is timed cold (a fresh sampler, as after a resume) and warm (it starts its fit at the
last ask's length scales); ours carry nothing from ask to ask. Both are counted in wall time, and
in processor time of all threads, which other work on the machine disturbs less. Within a round
the samplers follow each other, so that they see the same load; ratios are medians over rounds.

Run: python benchmarks/sampler_ask.py
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from provenance import provenance
from sampler_synthetic import SyntheticScore

from bitscout.pipeline.hooks import describer
from bitscout.samplers import (
    EditDistanceSurrogate,
    GaussianProcessSampler,
    GradientProposal,
    PaperSurrogate,
    ScaledSurrogate,
)

TARGETS = {"paper": 10, "scaled": 4, "edit_distance": 4}


def samplers(score: SyntheticScore, seed: int) -> dict[str, optuna.samplers.BaseSampler]:
    plain, known = score.hooks(known_term=False), score.hooks(known_term=True)
    edit = EditDistanceSurrogate(describer(score.space))
    return {
        "gpsampler": optuna.samplers.GPSampler(seed=seed),
        "paper": GaussianProcessSampler(PaperSurrogate(), seed=seed, hooks=plain),
        "scaled": GaussianProcessSampler(ScaledSurrogate(), seed=seed, hooks=known),
        "edit_distance": GaussianProcessSampler(edit, seed=seed, hooks=known),
        "paper-ml2": GaussianProcessSampler(PaperSurrogate("ml2"), seed=seed, hooks=plain),
        "paper-lbfgs": GaussianProcessSampler(
            PaperSurrogate(), seed=seed, hooks=plain, proposal=GradientProposal()
        ),
    }


def make_study(score: SyntheticScore, n: int, seed: int) -> optuna.Study:
    rng = np.random.default_rng([seed, n])
    indices = score.random_indices(n, rng)
    values = score.values(indices, rng)
    study = optuna.create_study(direction="maximize")
    names, distributions = list(score.distributions), score.distributions
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(zip(names, row, strict=True)), distributions=distributions, value=value
        )
        for row, value in zip(indices.tolist(), values.tolist(), strict=True)
    )
    return study


def timed_ask(study: optuna.Study, score: SyntheticScore) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    trial = study.ask(score.distributions)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    row = np.array([list(trial.params.values())])
    study.tell(trial, float(score.values(row, np.random.default_rng(trial.number))[0]))
    return wall, cpu


def measure(n: int, rounds: int, names: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(rounds):
        score = SyntheticScore.draw(seed, noise=0.01, with_size=True)
        for name in names:
            study = make_study(score, n, seed)
            study.sampler = samplers(score, seed)[name]
            for temperature in ("cold", "warm"):
                wall, cpu = timed_ask(study, score)
                rows.append(
                    {
                        "sampler": name,
                        "n": n,
                        "seed": seed,
                        "state": temperature,
                        "wall_s": round(wall, 4),
                        "cpu_s": round(cpu, 4),
                    }
                )
    return rows


def report(rows: list[dict[str, object]], n: int) -> None:
    def select(name: str, state: str, column: str) -> np.ndarray:
        picked = [r for r in rows if (r["sampler"], r["n"], r["state"]) == (name, n, state)]
        return np.array([float(str(r[column])) for r in picked])

    names = dict.fromkeys(str(r["sampler"]) for r in rows if r["n"] == n)
    for state in ("cold", "warm"):
        for name in names:
            wall, cpu = select(name, state, "wall_s"), select(name, state, "cpu_s")
            line = f"n={n:<6} {state} {name:<14} wall {np.median(wall):7.3f} s"
            line += f" [{wall.min():.3f}, {wall.max():.3f}]  cpu {np.median(cpu):7.3f} s"
            if "gpsampler" in names and name != "gpsampler":
                ratios = [
                    np.median(select("gpsampler", state, c) / select(name, state, c))
                    for c in ("wall_s", "cpu_s")
                ]
                line += f"  {ratios[0]:6.1f}x wall, {ratios[1]:6.1f}x cpu"
                line += f" (claim {TARGETS[name]}x)" if name in TARGETS else ""
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--skip-large", action="store_true", help="no 10,000 observations")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(args.threads)
    names = list(samplers(SyntheticScore.draw(0), 0))
    make_study(SyntheticScore.draw(0), 20, 0)
    measure(20, 1, names)  # imports and first calls
    rows = measure(100, args.rounds, names)
    report(rows, 100)
    if not args.skip_large:
        rows += measure(10_000, 2, ["paper", "scaled", "edit_distance", "paper-ml2"])
        report(rows, 10_000)
    path = args.out / "sampler_ask.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *provenance()])
        writer.writeheader()
        writer.writerows({**row, **provenance()} for row in rows)
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
