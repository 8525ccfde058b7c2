# SPDX-License-Identifier: Apache-2.0
"""Which observations are desirable: the schedule of k, clusters, ties, outliers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.samplers import ClusterSplit, QuantileSplit
from bitscout.samplers.observation_split import winsorized

# Ten objectives, larger is better, and the clusters of four that k-means gives by hand.
OBJECTIVES = np.array([0.90, 0.89, 0.885, 0.80, 0.79, 0.60, 0.55, 0.12, 0.11, 0.10])
RULES = [
    ClusterSplit(),
    ClusterSplit(k=3, bad="rest"),
    ClusterSplit(solver="lloyd", winsorize=False),
    QuantileSplit(),
    QuantileSplit(0.25, of_root=True),
]
values = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, 1e-300, -1e300]) | st.floats(-1e6, 1e6), max_size=40
).map(np.array)


def split_maximized(rule, objectives, t=0):
    found = rule.split(-np.asarray(objectives, dtype=float), t)
    return [sorted(np.flatnonzero(side).tolist()) for side in found]


def test_number_of_clusters_follows_the_schedule():
    # First iteration of each number of clusters, with c = 0.25 and alpha = 0.98.
    first = {4: 0, 5: 1, 6: 12, 7: 21, 8: 28, 9: 35, 10: 41, 11: 46}
    schedule = [ClusterSplit().n_clusters(t) for t in range(121)]
    assert {k: schedule.index(k) for k in first} == first
    assert schedule[80] == 21
    assert schedule[120] == 46
    assert schedule == sorted(schedule)


def test_number_of_clusters_rounded_down_and_to_the_nearest():
    down = [ClusterSplit(rounding="floor").n_clusters(t) for t in range(81)]
    assert (down.index(5), down[80]) == (12, 20)
    nearest = ClusterSplit(rounding="round")
    assert [nearest.n_clusters(t) for t in (5, 6, 10)] == [4, 5, 5]
    assert ClusterSplit(k=4).n_clusters(100) == 4


@pytest.mark.parametrize("solver", ["exact", "lloyd"])
def test_best_and_worst_of_four_clusters(solver):
    rule = ClusterSplit(k=4, winsorize=False, solver=solver)
    assert split_maximized(rule, OBJECTIVES) == [[0, 1, 2], [7, 8, 9]]


def test_all_but_the_best_cluster():
    rule = ClusterSplit(k=4, bad="rest", winsorize=False)
    assert split_maximized(rule, OBJECTIVES) == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]


def test_a_penalized_outlier_eats_a_cluster():
    rule = ClusterSplit(k=3, winsorize=False)
    assert split_maximized(rule, [*OBJECTIVES, -50.0]) == [[0, 1, 2, 3, 4, 5, 6], [10]]


def test_winsorized_outliers_share_a_cluster():
    penalized = [*OBJECTIVES, -5.0, -20.0, -50.0]
    raw, default = ClusterSplit(k=4, winsorize=False), ClusterSplit(k=4)
    assert split_maximized(raw, penalized) == [[*range(10)], [12]]
    assert split_maximized(default, penalized) == [[0, 1, 2, 3, 4], [10, 11, 12]]


def test_winsorizing_is_at_one_and_a_half_interquartile_ranges():
    y = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0])
    np.testing.assert_array_equal(winsorized(y), [*range(8), 6 + 1.5 * 4])
    plateau = np.array([0.0, 0.0, 0.0, 0.0, 9.0])
    np.testing.assert_array_equal(winsorized(plateau), plateau)


def test_two_distinct_values_are_best_against_worst():
    assert split_maximized(ClusterSplit(), [1.0, 0.0, 1.0]) == [[0, 2], [1]]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("y", [[], [1.0], [2.0, 2.0, 2.0]])
def test_values_that_are_all_alike_have_no_split(rule, y):
    assert rule.split(np.array(y), 0) is None


@settings(max_examples=50)
@given(y=values, t=st.integers(0, 150), rule=st.sampled_from(RULES))
def test_sides_are_disjoint_not_empty_and_good_values_are_lower(y, t, rule):
    found = rule.split(y, t)
    if found is None:
        return
    assert found.good.any()
    assert found.bad.any()
    assert not (found.good & found.bad).any()
    assert y[found.good].max() <= y[found.bad].min()


@settings(max_examples=50)
@given(y=values, t=st.integers(0, 150))
def test_equal_objectives_are_on_the_same_side_of_clusters(y, t):
    found = ClusterSplit().split(y, t)
    if found is None:
        return
    for value in np.unique(y):
        assert len(set(found.good[y == value].tolist())) == 1
        assert len(set(found.bad[y == value].tolist())) == 1


def test_numbers_of_good_ones_are_those_of_hyperopt_and_optuna():
    def n_good(rule, n):
        return int(rule.split(np.arange(n, dtype=float), 0).good.sum())

    root = QuantileSplit(0.25, of_root=True)
    assert [n_good(root, n) for n in (20, 40, 100, 160)] == [2, 2, 3, 4]
    assert [n_good(QuantileSplit(), n) for n in (5, 20, 101, 1000)] == [1, 2, 11, 25]
    assert n_good(QuantileSplit(1.0), 5) == 4, "one is left for the other side"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClusterSplit(c=0.0), r"`c` must be in \(0, 1\], got 0"),
        (lambda: ClusterSplit(alpha=1.5), r"`alpha` must be in \(0, 1\], got 1.5"),
        (lambda: ClusterSplit(k=1), "at least 2, a best and a worst cluster, got 1"),
        (lambda: QuantileSplit(0.0), "`share` must be > 0"),
        (lambda: QuantileSplit(maximum=0), "`maximum` must be > 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
