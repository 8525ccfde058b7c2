# SPDX-License-Identifier: Apache-2.0
"""The pool, and the scalarization of several objectives."""

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from bitscout.samplers.acquisition import Scalarization
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.proposal import _mutants, neighbours

RNG = np.random.default_rng


def space_of(**distributions):
    return DesignSpace.of(distributions, SpaceHooks())


def test_neighbours_are_all_points_at_one_exchange():
    space = space_of(a=IntDistribution(0, 2), b=IntDistribution(0, 0), c=IntDistribution(0, 3))
    row = np.array([1.0, 0.0, 3.0])
    grid = space.encoding.all_rows()
    expected = grid[(grid != row).sum(axis=1) == 1]
    found = neighbours(space, row, RNG(0))
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


def test_neighbours_of_long_and_continuous_choices_are_drawn_within_them():
    space = space_of(a=IntDistribution(0, 999), b=FloatDistribution(0, 1), c=IntDistribution(0, 1))
    row = np.array([999.0, 0.5, 0.0])
    found = neighbours(space, row, RNG(0))
    assert ((found != row).sum(axis=1) <= 1).all()
    assert {0, 1, 2} == set(np.nonzero(found != row)[1])
    assert ((found[:, 0] >= 0) & (found[:, 0] <= 999) & (found[:, 1] >= 0)).all()


def test_mutants_differ_from_an_incumbent_in_at_most_two_choices():
    space = space_of(**{f"x{d}": IntDistribution(0, 9) for d in range(8)})
    incumbents = space.encoding.random_rows(RNG(0), 3)
    mutants = _mutants(space, incumbents, 500, RNG(1))
    distances = (mutants[:, None] != incumbents[None]).sum(axis=2).min(axis=1)
    # Each of two drawn choices stays as it was one time in ten.
    assert distances.max() == 2
    assert (distances == 2).mean() == pytest.approx(0.81, abs=0.09)


def test_eligible_rows_are_feasible_then_free_then_anything():
    space = DesignSpace.of(
        {"x": IntDistribution(0, 3)},
        SpaceHooks(
            search_space={"x": IntDistribution(0, 3)}, violation=lambda rows: 2.0 - rows[:, 0]
        ),
    )
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [2.0]])

    def left(*taken):
        keys = frozenset(space.keys(np.array(taken, dtype=float).reshape(-1, 1)))
        return space.eligible(rows, keys).ravel().tolist()

    assert left() == [2, 3]
    assert left(2) == [3]
    assert left(2, 3) == [0, 1]
    assert left(0, 1, 2, 3) == [0, 1, 2, 3]


def test_scalarization_of_one_objective_is_the_identity():
    values = np.array([[3.0], [-1.0]])
    assert Scalarization.draw(values, RNG(0))(values).tolist() == [3.0, -1.0]


def test_scalarization_by_hand():
    scalarization = Scalarization(
        weights=np.array([0.25, 0.75]), low=np.array([0.0, 10.0]), span=np.array([2.0, 10.0])
    )
    # Scaled to (1, 0.5), weighted to (0.25, 0.375): 0.375 + 0.05 * 0.625.
    assert scalarization(np.array([[2.0, 15.0]]))[0] == pytest.approx(0.40625)


def test_scalarization_prefers_what_dominates():
    values = RNG(0).random((50, 3))
    better = values - RNG(1).random((50, 3))
    for seed in range(5):
        scalarization = Scalarization.draw(values, RNG(seed))
        assert scalarization.weights.sum() == pytest.approx(1.0)
        assert (scalarization(better) < scalarization(values)).all()


def test_an_objective_without_spread_does_not_divide_by_zero():
    values = np.array([[1.0, 5.0], [2.0, 5.0]])
    assert np.isfinite(Scalarization.draw(values, RNG(0))(values)).all()
