# SPDX-License-Identifier: Apache-2.0
"""What the Gaussian-process sampler promises about its proposals."""

import copy
import pickle
from itertools import product

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from bitscout.errors import ConfigError, UnsupportedError
from bitscout.samplers import (
    Descriptors,
    EditDistanceSurrogate,
    GaussianProcessSampler,
    GradientProposal,
    PaperSurrogate,
    PoolProposal,
    ScaledSurrogate,
    Screening,
    SpaceHooks,
)

SPACE = {f"x{d}": IntDistribution(0, 4) for d in range(6)}
MIXED = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "width": FloatDistribution(0.0, 1.0),
    "depth": IntDistribution(1, 9),
    "kind": CategoricalDistribution(["a", "b", "c"]),
}
SMALL_POOL = PoolProposal(n_random=100, n_best=3, n_mutants=20)


def describe(indices):
    """Return one network a row: the index of each choice is the width of a layer."""
    return Descriptors.from_sequences(
        [[(0, 8 * (int(j) + 1)) for j in row] for row in indices],
        [[(int(row[0]), 2, 0)] * int(row[1] > 2) for row in indices],
    )


SURROGATES = {
    "paper": PaperSurrogate(),
    "ml2": PaperSurrogate(length_scale="ml2"),
    "ard": ScaledSurrogate("ard"),
    "isotropic": ScaledSurrogate("isotropic"),
    "groups": ScaledSurrogate((0, 0, 0, 1, 1, 1)),
    "edit_distance": EditDistanceSurrogate(describe),
}


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def score(params):
    return -sum((value - 3) ** 2 * (d + 1) for d, value in enumerate(params.values()))


def run(sampler, n_trials, space=SPACE, objective=score, study=None):
    study = study or optuna.create_study(direction="maximize", sampler=sampler)
    study.sampler = sampler
    for _ in range(n_trials):
        trial = study.ask(space)
        study.tell(trial, objective(trial.params))
    return study


def points(study):
    return [tuple(trial.params.values()) for trial in study.trials]


def told(space, params, value, **kwargs):
    return create_trial(params=params, distributions=space, value=value, **kwargs)


def random_trials(n, seed=0, space=SPACE):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        params = {name: int(rng.integers(5)) for name in space}
        yield told(space, params, score(params))


@pytest.mark.parametrize("name", SURROGATES)
def test_a_proposal_depends_on_seed_number_and_history_alone(name):
    def fresh():
        return GaussianProcessSampler(
            SURROGATES[name], seed=3, n_startup_trials=5, proposal=SMALL_POOL
        )

    lived = run(fresh(), 12)
    for n in (1, 5, 9, 11):
        other = optuna.create_study(direction="maximize", sampler=fresh())
        other.add_trials(lived.trials[:n])
        # Trial 0 of the first study had no finished trials to infer a space from.
        assert other.ask(SPACE).params == lived.trials[n].params


def test_an_interrupted_trial_gets_its_proposal_again():
    lived = run(GaussianProcessSampler(seed=3, n_startup_trials=5), 9)
    study = optuna.create_study(
        direction="maximize", sampler=GaussianProcessSampler(seed=3, n_startup_trials=5)
    )
    study.add_trials(lived.trials[:8])
    first = study.ask()
    for name in list(SPACE)[:3]:
        first.suggest_int(name, 0, 4)
    # The process dies here; another one goes on with the trial of the same number.
    study.sampler = GaussianProcessSampler(seed=3, n_startup_trials=5)
    second = optuna.trial.Trial(study, first._trial_id)
    assert {name: second.suggest_int(name, 0, 4) for name in SPACE} == lived.trials[8].params
    # Its own parameters, all stored by now, do not stand in its way.
    own = study.trials[8]
    assert study.sampler.sample_relative(study, own, SPACE) == lived.trials[8].params


def test_copies_of_the_sampler_go_on_alike():
    sampler = GaussianProcessSampler(n_startup_trials=3, proposal=SMALL_POOL)
    study = run(sampler, 6)
    proposals = []
    for twin in (sampler, copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        twin.reseed_rng()
        other = optuna.create_study(direction="maximize", sampler=twin)
        other.add_trials(study.trials)
        proposals.append(other.ask(SPACE).params)
    assert proposals[0] == proposals[1] == proposals[2]


def test_different_seeds_and_different_numbers_give_different_startups():
    first, second = (run(GaussianProcessSampler(seed=s), 5) for s in (0, 1))
    assert len(set(points(first) + points(second))) == 10
    without = [GaussianProcessSampler()._seed for _ in range(2)]
    assert without[0] != without[1]


@pytest.mark.parametrize("name", ["paper", "ard", "edit_distance"])
def test_a_small_space_is_visited_without_repetition_then_repeats_its_best(name):
    space = {f"x{d}": IntDistribution(0, 2) for d in range(3)}
    hooks = SpaceHooks(search_space=space)
    sampler = GaussianProcessSampler(SURROGATES[name], seed=0, n_startup_trials=5, hooks=hooks)
    study = run(sampler, 27, space)
    assert sorted(points(study)) == sorted(product(range(3), repeat=3))
    values = sorted(t.value for t in study.trials)
    assert score(study.ask(space).params) >= values[-6]


def test_startup_points_are_uniform_without_repetition():
    space = {"x": IntDistribution(0, 4), "y": CategoricalDistribution(["a", "b"])}
    hooks = SpaceHooks(search_space=space)
    study = run(
        GaussianProcessSampler(seed=0, n_startup_trials=10, hooks=hooks), 10, space, lambda p: 0.0
    )
    assert len(set(points(study))) == 10


class Listening:
    """Proposes what the pool does and keeps the question."""

    def __init__(self, inner=SMALL_POOL):
        self.inner, self.question, self.row = inner, None, None

    def propose(self, question):
        self.question, self.row = question, self.inner.propose(question)
        return self.row


def test_enqueued_running_failed_and_pruned_points_are_taken():
    space = {"x": IntDistribution(0, 9), "y": IntDistribution(0, 9)}
    listening = Listening()
    study = optuna.create_study(
        sampler=GaussianProcessSampler(seed=0, n_startup_trials=1, proposal=listening)
    )
    study.add_trial(told(space, {"x": 0, "y": 0}, 1.0))
    for state, x in ((TrialState.FAIL, 1), (TrialState.PRUNED, 2)):
        params = {"x": x, "y": 0}
        study.add_trial(create_trial(state=state, params=params, distributions=space))
    running = study.ask(space)
    study.enqueue_trial({"x": 3, "y": 3})
    # Started, but bound to parameters that were not asked for yet.
    study.ask()
    study.enqueue_trial({"x": 4, "y": 4})
    study.sampler.sample_relative(study, create_trial(state=TrialState.FAIL), space)
    rows = [[0, 0], [1, 0], [2, 0], list(running.params.values()), [3, 3], [4, 4]]
    expected = listening.question.space.keys(np.array(rows, dtype=float))
    assert listening.question.taken == frozenset(expected)


def test_pending_points_are_pretended_to_have_been_observed():
    listening = Listening()
    sampler = GaussianProcessSampler(seed=0, n_startup_trials=1, proposal=listening)
    study = optuna.create_study(sampler=sampler)
    study.add_trials(random_trials(8))
    for n_pending in range(3):
        study.ask(SPACE)
        assert len(listening.question.acquisition.objectives[0].model.X) == 8 + n_pending


def test_a_local_model_keeps_the_scale_of_the_whole_study():
    listening = Listening()
    sampler = GaussianProcessSampler(PaperSurrogate(max_observations=20), proposal=listening)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(random_trials(60))
    study.ask(SPACE)
    objective = listening.question.acquisition.objectives[0]
    assert objective.standardizer.mean == pytest.approx(
        -np.mean([score(t.params) for t in study.trials[:60]])
    )
    assert len(objective.model.X) == 20


def test_screening_lets_only_the_best_of_the_cheap_model_through():
    def proposal(surrogate):
        sampler = GaussianProcessSampler(surrogate, seed=0, proposal=SMALL_POOL)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(random_trials(12))
        return study.ask(SPACE).params

    cheap = PaperSurrogate()
    screened = EditDistanceSurrogate(describe, screening=Screening(cheap, n_kept=1))
    assert proposal(screened) == proposal(cheap)


def test_a_continuous_choice_is_refined_to_the_minimum_of_the_bound():
    space = {"x": FloatDistribution(0.0, 1.0)}
    listening = Listening(PoolProposal(n_random=1, n_best=1, n_mutants=1))
    sampler = GaussianProcessSampler(
        PaperSurrogate(), seed=0, n_startup_trials=1, proposal=listening
    )
    study = optuna.create_study(sampler=sampler)
    study.add_trials([told(space, {"x": x}, (x - 0.37) ** 2) for x in (0.0, 0.3, 0.5, 1.0)])
    study.ask(space)
    question = listening.question

    def bound(rows):
        return question.acquisition.objectives[0].bound(question.space.points(rows), 2.6)[0]

    grid = bound(np.linspace(0, 1, 10_001)[:, None])
    # The last of the radii is 0.003 wide, drawn 200 times.
    assert bound(listening.row[None])[0] <= grid.min() + 1e-5 * np.ptp(grid)


@pytest.mark.parametrize("bad", [TrialState.FAIL, TrialState.PRUNED])
def test_a_failed_trial_teaches_nothing(bad):
    def proposal(extra):
        study = optuna.create_study(
            direction="maximize", sampler=GaussianProcessSampler(seed=0, n_startup_trials=2)
        )
        study.add_trials(random_trials(8))
        study.add_trial(extra)
        return study.ask(SPACE).params

    params = dict.fromkeys(SPACE, 0)
    failed = create_trial(state=bad, params=params, distributions=SPACE)
    unrelated = create_trial(state=bad, params={}, distributions={})
    assert proposal(failed) == proposal(unrelated)


def test_incomplete_and_foreign_trials_are_left_out():
    def proposal(extra):
        hooks = SpaceHooks(search_space=SPACE)
        sampler = GaussianProcessSampler(seed=0, n_startup_trials=2, hooks=hooks)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([*random_trials(5), extra])
        return study.ask(SPACE).params

    wide = {name: IntDistribution(0, 9) for name in SPACE}
    outside = told(wide, dict.fromkeys(SPACE, 9), 99.0)
    incomplete = told({"x0": SPACE["x0"]}, {"x0": 1}, 99.0)
    failed = create_trial(state=TrialState.FAIL)
    assert proposal(outside) == proposal(incomplete) == proposal(failed)


@pytest.mark.parametrize("name", SURROGATES)
def test_running_trials_repel_the_next_of_a_batch(name):
    sampler = GaussianProcessSampler(
        SURROGATES[name], seed=0, n_startup_trials=2, proposal=SMALL_POOL
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(random_trials(12))
    batch = [tuple(study.ask(SPACE).params.values()) for _ in range(5)]
    assert len(set(batch)) == 5
    assert not set(batch) & set(points(study)[:12])


def test_a_liar_lowers_the_bound_where_a_trial_runs():
    from bitscout.samplers.acquisition import ObjectiveModel
    from bitscout.samplers.surrogates import Points

    rng = np.random.default_rng(0)
    X, y = rng.random((8, 3)), rng.normal(size=8)
    observed = Points(X, X)
    model = ObjectiveModel.fit(PaperSurrogate(0.5), None, observed, y, np.arange(8))
    pending = Points(np.full((1, 3), 0.5), np.full((1, 3), 0.5))
    before, deviation = model.bound(pending, 2.6)
    mean = before + 2.6 * deviation * model.standardizer.scale
    after, left = model.with_liars(pending).bound(pending, 0.0)
    # To be minimized: pessimistic is mean + deviation; the noise of 1e-4 leaves some way.
    np.testing.assert_allclose(after, mean + deviation * model.standardizer.scale, atol=1e-2)
    assert left[0] < 0.02 < deviation[0]


def test_proposals_are_canonical_and_never_equal_up_to_inactive_choices():
    def canonicalize(indices):
        result = indices.copy()
        result[result[:, 0] == 0, 1:] = 2
        return result

    hooks = SpaceHooks(search_space=SPACE, canonicalize=canonicalize)
    sampler = GaussianProcessSampler(seed=0, n_startup_trials=4, hooks=hooks, proposal=SMALL_POOL)
    # An inactive block is best, so that it is proposed as often as it may be.
    study = run(sampler, 25, objective=lambda p: -p["x0"])
    rows = np.array(points(study))
    np.testing.assert_array_equal(canonicalize(rows), rows)
    assert (rows[:, 0] == 0).sum() == 1
    assert len(set(points(study))) == 25


def test_non_canonical_trials_of_others_are_seen_as_their_canonical_form():
    listening = Listening()
    hooks = SpaceHooks(search_space=SPACE, canonicalize=lambda rows: rows.clip(0, 1))
    sampler = GaussianProcessSampler(n_startup_trials=1, hooks=hooks, proposal=listening)
    study = optuna.create_study(sampler=sampler)
    study.add_trial(told(SPACE, dict.fromkeys(SPACE, 3), 0.0))
    study.ask(SPACE)
    assert listening.question.incumbents.tolist() == [[1.0] * 6]
    assert listening.question.taken == {np.ones(6).tobytes()}


def test_infeasible_points_are_proposed_only_when_nothing_else_is_left():
    space = {"x": IntDistribution(0, 3), "y": IntDistribution(0, 1)}
    hooks = SpaceHooks(search_space=space, violation=lambda rows: rows[:, 0] - 1.0)
    sampler = GaussianProcessSampler(seed=0, n_startup_trials=2, hooks=hooks)
    study = run(sampler, 8, space, lambda p: p["x"])
    assert {x for x, _ in points(study)[:4]} == {0, 1}
    assert len(set(points(study))) == 8


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("name", ["paper", "ard"])
def test_with_a_constant_rest_the_known_term_alone_decides(direction, name):
    # No two sums of these are equal, so that there are no ties.
    weights = np.sqrt([2.0, 3.0, 5.0, 7.0, 11.0, 13.0]) * [1, -1, 1, 1, -1, 1]
    space = {f"x{d}": IntDistribution(0, 2) for d in range(6)}

    def known(rows):
        return (rows - 1.3) ** 2 @ weights

    hooks = SpaceHooks(search_space=space, known_term=known)
    sampler = GaussianProcessSampler(SURROGATES[name], seed=0, n_startup_trials=4, hooks=hooks)
    study = optuna.create_study(direction=direction, sampler=sampler)
    # 729 points: the pool is the whole space. The constant 5 is what the surrogate models.
    study = run(sampler, 12, space, lambda p: 5.0 + known(np.array([list(p.values())]))[0], study)
    grid = np.array(list(product(range(3), repeat=6)))
    best_first = grid[np.argsort(known(grid) * (-1 if direction == "maximize" else 1))]
    startup = set(points(study)[:4])
    expected = [tuple(row) for row in best_first.tolist() if tuple(row) not in startup]
    assert points(study)[4:] == expected[:8]


def test_ties_go_to_the_most_uncertain_point():
    space = {"x": FloatDistribution(0.0, 1.0)}
    sampler = GaussianProcessSampler(PaperSurrogate(0.1), seed=0, n_startup_trials=1)
    study = optuna.create_study(sampler=sampler)
    study.add_trials([told(space, {"x": x}, 7.0) for x in (0.0, 0.5)])
    assert study.ask(space).params["x"] > 0.9


@pytest.mark.parametrize("name", ["paper", "ml2", "ard"])
def test_continuous_spaces_are_refined_beyond_the_random_pool(name):
    sampler = GaussianProcessSampler(SURROGATES[name], seed=0, n_startup_trials=8)
    study = run(sampler, 25, MIXED, lambda p: -((p["width"] - 0.4321) ** 2) - (p["kind"] != "b"))
    assert study.best_value > -1e-3


def test_gradient_proposal_descends_and_is_discretized():
    sampler = GaussianProcessSampler(
        seed=0, n_startup_trials=6, proposal=GradientProposal(n_restarts=5)
    )
    study = run(sampler, 20)
    assert len(set(points(study))) == 20
    assert study.best_value > max(t.value for t in study.trials[:6])


def test_gradient_proposal_refuses_what_it_cannot_differentiate():
    hooks = SpaceHooks(search_space=SPACE, known_term=lambda rows: rows.sum(axis=1))
    sampler = GaussianProcessSampler(n_startup_trials=2, hooks=hooks, proposal=GradientProposal())
    with pytest.raises(UnsupportedError, match="Use `PoolProposal`"):
        run(sampler, 3)


def test_several_objectives_approach_the_front():
    space = {"x": IntDistribution(0, 20), "y": IntDistribution(0, 20)}

    def objectives(p):
        return (p["x"] ** 2 + p["y"], (20 - p["x"]) ** 2 + p["y"])

    sampler = GaussianProcessSampler(seed=0, n_startup_trials=8)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    run(sampler, 40, space, objectives, study)
    # The front is y = 0: 21 of 441 points, of which 40 random points would hold 2.
    assert sum(t.params["y"] == 0 for t in study.trials[8:]) >= 8
    assert len(set(points(study))) == 40


def test_known_objectives_are_exact_and_need_no_model():
    space = {"x": IntDistribution(0, 30), "y": IntDistribution(0, 30)}
    hooks = SpaceHooks(
        search_space=space,
        known_objectives={0: lambda rows: rows[:, 0] * 1.0, 1: lambda rows: -rows[:, 0] * 1.0},
    )
    listening = Listening()
    sampler = GaussianProcessSampler(seed=0, n_startup_trials=2, hooks=hooks, proposal=listening)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    run(sampler, 8, space, lambda p: (p["x"], -p["x"]), study)
    # Both known objectives agree that x = 30 is best.
    assert {x for x, _ in points(study)[2:]} == {30}
    assert all(o.model is None for o in listening.question.acquisition.objectives)


def test_infinite_values_do_not_spoil_the_model():
    sampler = GaussianProcessSampler(seed=0, n_startup_trials=2)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(random_trials(6))
    for value, x in ((float("inf"), 1), (float("-inf"), 2)):
        study.add_trial(told(SPACE, dict.fromkeys(SPACE, x), value))
    assert set(study.ask(SPACE).params.values()) <= set(range(5))


@pytest.mark.parametrize("name", ["paper", "ard", "edit_distance"])
def test_a_long_study_is_modelled_locally(name):
    from dataclasses import replace

    surrogate = replace(SURROGATES[name], max_observations=20)
    sampler = GaussianProcessSampler(surrogate, seed=0, proposal=SMALL_POOL)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(random_trials(300))
    assert tuple(study.ask(SPACE).params.values()) not in set(points(study)[:300])


def test_the_local_model_takes_the_best_half_and_the_nearest_to_the_best():
    from bitscout.samplers.gp_sampler import _local_subset

    unit = np.arange(10.0)[:, None] / 10
    ranking = np.array([9, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert _local_subset(unit, ranking, 5).tolist() == [0, 1, 7, 8, 9]
    assert _local_subset(unit, ranking, 10).tolist() == list(range(10))


def test_conditional_choices_are_drawn_at_random_and_the_rest_is_modelled():
    def objective(trial):
        x = trial.suggest_int("x", 0, 20)
        if x > 10:
            return x + 0 * trial.suggest_float("y", 0, 1)
        return x

    study = optuna.create_study(
        direction="maximize", sampler=GaussianProcessSampler(seed=0, n_startup_trials=4)
    )
    study.optimize(objective, n_trials=15)
    assert study.best_value == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianProcessSampler(n_startup_trials=-1), "must be >= 0, got -1 and 2.6"),
        (lambda: GaussianProcessSampler(beta=float("nan")), "got 10 and nan"),
        (lambda: GaussianProcessSampler(seed=-1), "`seed` must be >= 0, got -1"),
        (lambda: PaperSurrogate(length_scale=0.0), "`length_scale` must be > 0, got 0.0"),
        (lambda: PaperSurrogate(noise=0.0), "`noise` must be > 0"),
        (lambda: ScaledSurrogate((0, 2)), r"without gaps, got \(0, 2\)"),
        (lambda: PoolProposal(n_random=0), "`n_random` must be > 0"),
        (lambda: SpaceHooks(known_term=len), "need `search_space`"),
        (
            lambda: SpaceHooks(search_space=MIXED, known_term=len),
            "but rate, width have no index",
        ),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_groups_that_do_not_fit_the_space_are_refused():
    sampler = GaussianProcessSampler(ScaledSurrogate((0, 1)), n_startup_trials=1)
    with pytest.raises(ConfigError, match="names 2 dimensions, the space has 6"):
        run(sampler, 2)


def test_hooks_for_other_columns_are_refused():
    hooks = SpaceHooks(search_space=SPACE, canonicalize=lambda rows: rows)
    sampler = GaussianProcessSampler(hooks=hooks)
    study = optuna.create_study(sampler=sampler)
    trial = study.ask()._cached_frozen_trial
    with pytest.raises(ConfigError, match="Fix choices in the search space"):
        sampler.sample_relative(study, trial, {"x0": SPACE["x0"]})


@pytest.mark.parametrize(
    "hooks",
    [
        SpaceHooks(search_space=SPACE, known_objectives={2: lambda rows: rows[:, 0]}),
        SpaceHooks(search_space=SPACE, known_term=lambda rows: rows[:, 0]),
    ],
)
def test_hooks_for_other_objectives_are_refused(hooks):
    sampler = GaussianProcessSampler(n_startup_trials=1, hooks=hooks)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    with pytest.raises(ConfigError, match="The study has 2 objectives"):
        run(sampler, 2, SPACE, lambda p: (1.0, 2.0), study)
