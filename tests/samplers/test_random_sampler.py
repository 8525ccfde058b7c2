# SPDX-License-Identifier: Apache-2.0
"""Random search: uniform, without repetition, a function of seed and study."""

from itertools import product

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from bitscout.samplers import RandomSearchSampler, SpaceHooks

SPACE = {"x": IntDistribution(0, 4), "y": CategoricalDistribution(["a", "b", "c"])}
HOOKS = SpaceHooks(search_space=SPACE)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(sampler, n_trials, space=SPACE):
    study = optuna.create_study(sampler=sampler)
    for _ in range(n_trials):
        study.tell(study.ask(space), 0.0)
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_space_is_visited_once_before_anything_is_repeated(seed):
    drawn = run(RandomSearchSampler(seed=seed, hooks=HOOKS), 17)
    assert sorted(drawn[:15]) == sorted(product(range(5), "abc"))
    assert set(drawn[15:]) <= set(drawn[:15])


def test_pending_trials_are_not_repeated():
    study = optuna.create_study(sampler=RandomSearchSampler(seed=0, hooks=HOOKS))
    assert len({tuple(study.ask(SPACE).params.values()) for _ in range(15)}) == 15


def test_failed_trials_are_not_repeated():
    study = optuna.create_study(sampler=RandomSearchSampler(seed=0, hooks=HOOKS))
    for x in range(4):
        for y in "abc":
            study.add_trial(
                create_trial(state=TrialState.FAIL, params={"x": x, "y": y}, distributions=SPACE)
            )
    assert study.ask(SPACE).params["x"] == 4


def test_first_draws_are_uniform():
    first = [run(RandomSearchSampler(seed=s, hooks=HOOKS), 1)[0][0] for s in range(500)]
    counts = np.bincount(first, minlength=5)
    # Standard deviation of a count: sqrt(500 * 0.2 * 0.8) = 8.9.
    assert (abs(counts - 100) < 5 * 8.9).all()


def test_a_draw_depends_on_seed_and_study_alone():
    study = optuna.create_study(sampler=RandomSearchSampler(seed=5))
    drawn = []
    for _ in range(6):
        study.sampler = RandomSearchSampler(seed=5)
        trial = study.ask({**SPACE, "z": FloatDistribution(0, 1)})
        drawn.append(tuple(trial.params.values()))
        study.tell(trial, 0.0)
    space = {**SPACE, "z": FloatDistribution(0, 1)}
    assert drawn == run(RandomSearchSampler(seed=5), 6, space)
    assert drawn != run(RandomSearchSampler(seed=6), 6, space)


def test_rare_feasible_points_are_found_in_a_space_that_can_be_listed():
    hooks = SpaceHooks(
        search_space={f"x{d}": IntDistribution(0, 9) for d in range(3)},
        violation=lambda rows: 27.0 - rows.sum(axis=1),
    )
    # Rejection sampling alone finds the one point with a probability of 0.88.
    found = [
        run(RandomSearchSampler(seed=seed, hooks=hooks), 1, dict(hooks.search_space))[0]
        for seed in range(60)
    ]
    assert set(found) == {(9, 9, 9)}
