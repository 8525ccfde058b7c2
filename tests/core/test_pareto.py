"""Fronts against brute force, areas against closed forms and Monte-Carlo-free inclusion."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import hypervolume, pareto_mask
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
    assert hypervolume(Y, np.array([n, n])) == n * (n + 1) / 2


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
    assert hypervolume(Y, ref_point) == pytest.approx(expected, rel=1e-12)


def test_points_at_or_beyond_the_reference_add_nothing():
    Y = np.array([[1.0, 3.0], [3.0, 1.0], [5.0, 0.0]])
    assert hypervolume(Y, np.array([3.0, 3.0])) == 0.0
    assert hypervolume(np.empty((0, 2)), np.array([3.0, 3.0])) == 0.0


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_hypervolume_equals_inclusion_and_exclusion_over_boxes(n_objectives):
    # Independent of any sweep: the union of boxes [y, ref] by inclusion-exclusion.
    @given(Y=point_sets(n_objectives).map(lambda Y: Y[:6]))
    def check(Y):
        ref_point = np.linspace(1.5, 3.0, n_objectives)
        boxes = [row for row in Y if (row < ref_point).all()]
        expected = 0.0
        for size in range(1, len(boxes) + 1):
            for chosen in itertools.combinations(boxes, size):
                corner = np.max(chosen, axis=0)
                expected += (-1) ** (size + 1) * np.prod(ref_point - corner)
        assert hypervolume(Y, ref_point) == pytest.approx(expected, rel=1e-10, abs=1e-10)

    check()


@pytest.mark.parametrize("n_objectives", [2, 3, 4])
def test_hypervolume_agrees_with_optuna_on_random_fronts(n_objectives):
    from optuna._hypervolume import compute_hypervolume

    for seed in range(5):
        rng = np.random.default_rng(seed)
        Y = rng.random((40, n_objectives))
        ref_point = np.full(n_objectives, 1.1)
        expected = compute_hypervolume(Y, ref_point)
        assert hypervolume(Y, ref_point) == pytest.approx(expected, rel=1e-10)


def test_hypervolume_ignores_the_order_of_rows_and_objectives():
    rng = np.random.default_rng(1)
    Y, ref_point = rng.random((30, 3)), np.array([1.0, 1.1, 1.2])
    expected = hypervolume(Y, ref_point)
    for axes in itertools.permutations(range(3)):
        shuffled = rng.permutation(Y)[:, axes]
        assert hypervolume(shuffled, ref_point[list(axes)]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(5, 4), (2, 3)])
def test_hypervolume_refuses_five_objectives_and_a_reference_of_another_length(n, d):
    with pytest.raises(ConfigError, match=rf"d from 1 to 4, got \(1, {n}\) and \({d},\)"):
        hypervolume(np.zeros((1, n)), np.zeros(d))
