# SPDX-License-Identifier: Apache-2.0
"""Which searcher finds better networks in 100 trials, on synthetic scores over 49 choices.

Claim: with at least one surrogate the Gaussian-process sampler beats random search, one-sided
Wilcoxon signed-rank test over 20 paired seeds, p < 0.05.

Each seed draws a separable score (sampler_synthetic.py). ``plain`` is the accuracy alone;
``sized`` adds noise of 0.01 to each evaluation and the size term of BOMP-NAS, Eq. (1), which
samplers called "+size" are told exactly. What counts is the best
noise-free score among the evaluated points. All samplers of a seed see the same score, and ours
share their 10 random startup points.

Run: python benchmarks/sampler_quality.py [--samplers random paper scaled] [--scores plain]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from provenance import provenance
from sampler_synthetic import SyntheticScore
from scipy.stats import wilcoxon

from bitscout.pipeline.hooks import describer
from bitscout.samplers import (
    EditDistanceSurrogate,
    GaussianProcessSampler,
    GradientProposal,
    PaperSurrogate,
    RandomSearchSampler,
    ScaledSurrogate,
    Surrogate,
    optuna_sampler,
)

SCORES = {
    "plain": {"noise": 0.0, "with_size": False},
    "sized": {"noise": 0.01, "with_size": True},
}
Make = Callable[[SyntheticScore, int], optuna.samplers.BaseSampler]


def ours(surrogate: Callable[[SyntheticScore], Surrogate], *, known: bool = False) -> Make:
    return lambda score, seed: GaussianProcessSampler(
        surrogate(score), seed=seed, hooks=score.hooks(known_term=known)
    )


def two_groups(score: SyntheticScore) -> tuple[int, ...]:
    return tuple(int(choice.kind == "bits") for choice in score.space.choices)


def edit(score: SyntheticScore) -> EditDistanceSurrogate:
    return EditDistanceSurrogate(describer(score.space))


SAMPLERS: dict[str, Make] = {
    "random": lambda score, seed: RandomSearchSampler(
        seed=seed, hooks=score.hooks(known_term=False)
    ),
    "paper": ours(lambda score: PaperSurrogate()),
    "paper-ml2": ours(lambda score: PaperSurrogate("ml2")),
    "paper-lbfgs": lambda score, seed: GaussianProcessSampler(
        seed=seed, hooks=score.hooks(known_term=False), proposal=GradientProposal()
    ),
    "edit_distance": ours(edit),
    "edit_distance+size": ours(edit, known=True),
    "scaled-isotropic": ours(lambda score: ScaledSurrogate("isotropic")),
    "scaled-groups": ours(lambda score: ScaledSurrogate(two_groups(score))),
    "scaled-ard": ours(lambda score: ScaledSurrogate("ard")),
    "scaled-isotropic+size": ours(lambda score: ScaledSurrogate("isotropic"), known=True),
    "scaled-groups+size": ours(lambda score: ScaledSurrogate(two_groups(score)), known=True),
    "scaled-ard+size": ours(lambda score: ScaledSurrogate("ard"), known=True),
    "tpe": lambda score, seed: optuna_sampler("tpe", seed),
    "gpsampler": lambda score, seed: optuna_sampler("gp", seed),
}


def best_score(score: SyntheticScore, make: Make, seed: int, n_trials: int) -> float:
    """Return the best noise-free score among the points of one study."""
    study = optuna.create_study(direction="maximize", sampler=make(score, seed))
    rng = np.random.default_rng([seed, 100])
    distributions = score.distributions
    rows = []
    for _ in range(n_trials):
        trial = study.ask(distributions)
        rows.append(list(trial.params.values()))
        study.tell(trial, float(score.values(np.array(rows[-1:]), rng)[0]))
    exact = score.accuracy(np.array(rows)) / 0.8
    return float((exact + (score.size_term(np.array(rows)) if score.with_size else 0.0)).max())


def summarize(name: str, best: np.ndarray, random: np.ndarray) -> str:
    p = 1.0 if np.all(best == random) else wilcoxon(best, random, alternative="greater").pvalue
    low, median, high = np.quantile(best, [0.25, 0.5, 0.75])
    wins = int((best > random).sum())
    verdict = "beats random" if p < 0.05 else "does NOT beat random"
    return (
        f"{name:<22} median {median:.4f} IQR [{low:.4f}, {high:.4f}]  {wins}/{len(best)} seeds, "
        f"p = {p:.2g}: {verdict}"
    )


def write(rows: list[dict[str, object]], path: Path) -> None:
    """Write all rows so far, so that an interrupted run keeps what it has."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--scores", nargs="+", default=list(SCORES), choices=list(SCORES))
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "sampler_quality.csv"
    )
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[dict[str, object]] = []
    for kind in args.scores:
        scores = [SyntheticScore.draw(seed, **SCORES[kind]) for seed in range(args.seeds)]
        best: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(["random", *args.samplers]):
            if name.endswith("+size") and not SCORES[kind]["with_size"]:
                continue
            start = time.perf_counter()
            best[name] = np.array(
                [best_score(s, SAMPLERS[name], i, args.trials) for i, s in enumerate(scores)]
            )
            seconds = time.perf_counter() - start
            print(f"{kind:<6}", summarize(name, best[name], best["random"]), flush=True)
            rows += [
                {
                    "score": kind,
                    "sampler": name,
                    "seed": seed,
                    "best": round(value, 6),
                    "trials": args.trials,
                    "seconds": round(seconds / args.seeds, 2),
                    **provenance(),
                }
                for seed, value in enumerate(best[name].tolist())
            ]
            write(rows, args.out)


if __name__ == "__main__":
    main()
