# SPDX-License-Identifier: Apache-2.0
"""Other people's samplers proposing the same after a resume."""

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from bitscout.errors import ConfigError
from bitscout.samplers import OPTUNA_SAMPLERS, PerTrialSampler, optuna_sampler

SPACE = {"x": FloatDistribution(-1, 1), "y": IntDistribution(0, 9), "z": FloatDistribution(0, 1)}
# Long enough to leave every sampler's startup phase.
N_TRIALS = {"gp": 12, "nsga2": 45, "nsga3": 45, "optuna-random": 5, "tpe": 15}


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(study, make, n_trials, *, fresh_each=False):
    study.sampler = make()
    for _ in range(n_trials):
        if fresh_each:
            study.sampler = make()
        trial = study.ask(SPACE)
        study.tell(trial, trial.params["x"] ** 2 + trial.params["y"] - trial.params["z"])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(("name", "n_trials"), N_TRIALS.items())
def test_a_fresh_sampler_for_each_trial_goes_on_as_one_that_lived(name, n_trials):
    def make():
        return optuna_sampler(name, 7)

    lived = run(optuna.create_study(), make, n_trials)
    fresh = run(optuna.create_study(), make, n_trials, fresh_each=True)
    other = run(optuna.create_study(), lambda: optuna_sampler(name, 8), 5)
    assert lived == fresh
    assert lived[:5] != other


@pytest.mark.parametrize("name", ["optuna-random", "tpe"])
def test_a_trial_interrupted_between_two_parameters_goes_on_alike(name):
    def interrupted(n_done):
        study = optuna.create_study(sampler=optuna_sampler(name, 7))
        run(study, lambda: optuna_sampler(name, 7), 12)
        trial = study.ask()
        for parameter in list(SPACE)[:n_done]:
            trial._suggest(parameter, SPACE[parameter])
        study.sampler = optuna_sampler(name, 7)
        again = optuna.trial.Trial(study, trial._trial_id)
        return {parameter: again._suggest(parameter, d) for parameter, d in SPACE.items()}

    assert interrupted(0) == interrupted(1) == interrupted(2)


def test_parameters_and_trials_get_different_draws():
    params = run(optuna.create_study(), lambda: optuna_sampler("optuna-random", 0), 20)
    assert len({p["x"] for p in params} | {p["z"] for p in params}) == 40


def test_the_inner_sampler_lives_from_the_start_to_the_end_of_its_trial():
    seeds = []

    def factory(seed):
        seeds.append(seed)
        return optuna.samplers.TPESampler(seed=seed)

    study = optuna.create_study(sampler=PerTrialSampler(factory, seed=0))
    trials = [study.ask(), study.ask()]
    assert len(set(seeds)) == len(seeds) == 2
    for trial in trials:
        study.tell(trial, 0.0)
    assert not study.sampler._in_flight
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_trials_that_never_end_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("bitscout.samplers.per_trial.MAX_IN_FLIGHT", 3)
    study = optuna.create_study(sampler=optuna_sampler("optuna-random", 0))
    for _ in range(10):
        study.ask()
    assert len(study.sampler._in_flight) == 3


def test_grouped_tpe_keeps_what_it_inferred():
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = PerTrialSampler(
            lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True), 0
        )
        study = optuna.create_study(sampler=sampler)
        assert len(run(study, lambda: sampler, 15)) == 15


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"No sampler is called 'tpee'; choose one of .*tpe"):
        optuna_sampler("tpee")
    assert set(N_TRIALS) == set(OPTUNA_SAMPLERS)


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="`seed` must be >= 0, got -3"):
        optuna_sampler("tpe", -3)
