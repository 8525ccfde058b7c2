"""Fronts against brute force, areas against closed forms and Monte-Carlo-free inclusion."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import hypervolume_2d, pareto_mask
from bitscout.errors import ConfigError

# Few distinct values, so that ties and duplicates are common.
coordinates = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 2.0, np.inf])


def point_sets(n_objectives):
    row = st.lists(coordinates, min_size=n_objectives, max_size=n_objectives)
    return st.lists(row, max_size=12).map(lambda rows: np.array(rows).reshape(-1, n_objectives))


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def brute_force_mask(Y):
    mask = []
    for i, row in enumerate(Y):
        beaten = any(dominates(other, row) for other in Y)
        earlier_twin = any((Y[j] == row).all() for j in range(i))
        mask.append(not beaten and not earlier_twin)
    return mask


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_mask_equals_brute_force(n_objectives):
    @given(Y=point_sets(n_objectives))
    def check(Y):
        assert pareto_mask(Y).tolist() == brute_force_mask(Y)

    check()


def test_nan_rows_are_never_on_the_front():
    Y = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, np.nan]])
    assert pareto_mask(Y).tolist() == [False, True, False]


def test_mask_of_no_points_is_empty():
    assert pareto_mask(np.empty((0, 2))).shape == (0,)


def test_points_of_wrong_rank_are_refused():
    with pytest.raises(ConfigError, match=r"\(n, n_objectives\), got \(3,\)"):
        pareto_mask(np.zeros(3))


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_hypervolume_of_a_staircase_is_the_triangular_number(n):
    # Points (i, n-1-i) and reference (n, n): columns of heights 1, 2, ..., n.
    Y = np.array([[i, n - 1 - i] for i in range(n)], dtype=float)
    assert hypervolume_2d(Y, np.array([n, n])) == n * (n + 1) / 2


@given(Y=point_sets(2))
def test_hypervolume_equals_the_sum_of_dominated_grid_cells(Y):
    ref_point = np.array([1.5, 1.5])
    edges = np.unique(np.concatenate([Y[np.isfinite(Y)], ref_point, [-1.0]]))
    expected = 0.0
    for x0, x1 in itertools.pairwise(edges):
        for y0, y1 in itertools.pairwise(edges):
            inside = x1 <= ref_point[0] and y1 <= ref_point[1]
            if inside and any(row[0] <= x0 and row[1] <= y0 for row in Y):
                expected += (x1 - x0) * (y1 - y0)
    assert hypervolume_2d(Y, ref_point) == pytest.approx(expected, rel=1e-12)


def test_points_at_or_beyond_the_reference_add_nothing():
    Y = np.array([[1.0, 3.0], [3.0, 1.0], [5.0, 0.0]])
    assert hypervolume_2d(Y, np.array([3.0, 3.0])) == 0.0
    assert hypervolume_2d(np.empty((0, 2)), np.array([3.0, 3.0])) == 0.0


def test_hypervolume_refuses_three_objectives():
    with pytest.raises(ConfigError, match=r"got \(1, 3\)"):
        hypervolume_2d(np.zeros((1, 3)), np.zeros(3))
