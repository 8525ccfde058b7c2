"""Other people's samplers, kept within a budget."""

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from bitscout.errors import ConfigError
from bitscout.samplers import (
    FeasibleSampler,
    RandomSearchSampler,
    SpaceHooks,
    optuna_sampler,
    search_feasible,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {f"x{d}": IntDistribution(0, 9) for d in range(12)}
NAMES = list(SPACE)


def hooks_for(budget):
    """The sum of all choices may be at most `budget`: 10**12 points, few of them feasible."""
    return SpaceHooks(search_space=SPACE, violation=lambda rows: rows.sum(axis=1) / budget - 1.0)


def run(sampler, n_trials, objective=sum, directions=("maximize",)):
    study = optuna.create_study(sampler=sampler, directions=list(directions))
    for _ in range(n_trials):
        trial = study.ask(SPACE)
        values = objective(trial.params.values())
        study.tell(trial, values)
    return study


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "nsga3", "optuna-random"])
def test_every_proposal_is_within_the_budget(name):
    # P(sum <= 12) is about 3e-6 for uniform choices.
    sampler = FeasibleSampler(optuna_sampler(name, 0), hooks_for(12), seed=0)
    n_trials = 12 if name == "gp" else 30
    study = run(sampler, n_trials)
    assert all(sum(trial.params.values()) <= 12 for trial in study.trials)
    points = {tuple(trial.params[n] for n in NAMES) for trial in study.trials}
    assert len(points) > n_trials / 2


def test_feasible_proposals_are_left_as_they_are():
    plain = run(optuna_sampler("tpe", 3), 25)
    within = run(FeasibleSampler(optuna_sampler("tpe", 3), hooks_for(10**6), seed=3), 25)
    assert [t.params for t in within.trials] == [t.params for t in plain.trials]


def test_a_resumed_study_proposes_what_the_uninterrupted_one_would_have():
    def fresh():
        return FeasibleSampler(optuna_sampler("tpe", 5), hooks_for(12), seed=5)

    straight = run(fresh(), 16)
    resumed = optuna.create_study(direction="maximize", sampler=fresh())
    resumed.add_trials(straight.trials[:9])
    for _ in range(7):
        trial = resumed.ask(SPACE)
        resumed.tell(trial, sum(trial.params.values()))
    assert [t.params for t in resumed.trials] == [t.params for t in straight.trials]


def test_repairs_avoid_what_was_evaluated():
    # 13 feasible points in all: nothing, or a single 1.
    sampler = FeasibleSampler(optuna_sampler("optuna-random", 0), hooks_for(1), seed=0)
    study = run(sampler, 13)
    assert len({tuple(t.params.values()) for t in study.trials}) == 13
    assert all(sum(t.params.values()) <= 1 for t in study.trials)


def test_pruned_trials_with_constraints_teach_tpe():
    """Optuna's mechanism for what is known only later: constraints of trials without a value."""
    sampler = optuna_sampler("tpe", 0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(100):
        trial = study.ask({"x": IntDistribution(0, 99)})
        excess = trial.params["x"] - 30
        trial.set_constraint("size_kb", float(excess))
        if excess > 0:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, trial.params["x"])
    late = [trial.params["x"] for trial in study.trials[40:]]
    # The mean of 60 uniform draws is 49.5 with a standard error of 3.7.
    assert np.mean(late) < 49.5 - 3 * 3.7


def test_it_needs_to_know_the_distance_to_the_budget():
    with pytest.raises(ConfigError, match="needs hooks with `violation`"):
        FeasibleSampler(RandomSearchSampler(seed=0), SpaceHooks(search_space=SPACE))


def test_a_search_for_feasible_points_ends_and_reports_the_nearest():
    rng = np.random.default_rng(0)
    found = search_feasible(hooks_for(3), rng)
    assert found.violation <= 0
    assert found.row.sum() <= 3
    impossible = SpaceHooks(search_space=SPACE, violation=lambda rows: rows.sum(axis=1) + 0.5)
    nearest = search_feasible(impossible, rng)
    assert nearest.row.tolist() == [0.0] * 12
    assert nearest.violation == 0.5
    assert 2_000 < nearest.n_attempts < 50_000


def test_a_small_space_is_enumerated_before_it_is_called_infeasible():
    space = {"x": IntDistribution(0, 40), "y": IntDistribution(0, 40)}
    only = SpaceHooks(
        search_space=space, violation=lambda rows: 1.0 - 2.0 * ((rows == [17, 23]).all(axis=1))
    )
    found = search_feasible(only, np.random.default_rng(0))
    assert found.row.tolist() == [17, 23]
