# SPDX-License-Identifier: Apache-2.0
"""The model must earn its keep: better than random search where there is structure to find."""

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from scipy.stats import wilcoxon

from bitscout.samplers import (
    GaussianProcessSampler,
    PaperSurrogate,
    RandomSearchSampler,
    ScaledSurrogate,
    SpaceHooks,
)

SPACE = {f"x{d}": IntDistribution(0, 4) for d in range(49)}
N_SEEDS, N_TRIALS = 20, 100


def best(sampler, seed, n_trials=N_TRIALS):
    rng = np.random.default_rng([seed, 49])
    peaks, weights = rng.random(49), rng.dirichlet(np.ones(49))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(n_trials):
        trial = study.ask(SPACE)
        x = np.array(list(trial.params.values())) / 4
        study.tell(trial, float(-((x - peaks) ** 2 @ weights)))
    return study.best_value


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("surrogate", [PaperSurrogate(), ScaledSurrogate()])
def test_beats_random_search_on_a_separable_score_of_49_choices(surrogate):
    # 20 pairs and p < 0.05, one-sided: 80 % power for a shift of 0.6 standard deviations of the
    # paired difference. The measured one is above 2 (benchmarks/sampler_quality.py).
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    hooks = SpaceHooks(search_space=SPACE)
    model, random = [], []
    for seed in range(N_SEEDS):
        model.append(best(GaussianProcessSampler(surrogate, seed=seed, hooks=hooks), seed))
        random.append(best(RandomSearchSampler(seed=seed, hooks=hooks), seed))
    assert wilcoxon(model, random, alternative="greater").pvalue < 0.05


def test_forty_trials_already_beat_random_search_on_average():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    hooks = SpaceHooks(search_space=SPACE)
    gains = [
        best(GaussianProcessSampler(ScaledSurrogate("isotropic"), seed=s, hooks=hooks), s, 40)
        - best(RandomSearchSampler(seed=s, hooks=hooks), s, 40)
        for s in range(4)
    ]
    # Measured for seeds 0 to 19: mean 0.050, standard deviation 0.021 (0.011 for four).
    assert np.mean(gains) > 0.015
