# SPDX-License-Identifier: Apache-2.0
"""Exact k-means of numbers against every partition, and Lloyd's iteration against it."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import kmeans, kmeans_1d, lloyd_1d
from bitscout.errors import ConfigError

# A coarse grid, so that ties are common, and magnitudes that cancel.
numbers = st.one_of(
    st.integers(-4, 4).map(float),
    st.floats(-1e3, 1e3, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1e9, 1e9 + 1, 5e-324]),
)
lists = st.lists(numbers, min_size=1, max_size=9)

TRACES = [1, 0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.005, 0.002, 0.001]
SCORES = [0.90, 0.89, 0.885, 0.80, 0.79, 0.60, 0.55, 0.12, 0.11, 0.10]


def smallest_sse(values, k):
    """Return the smallest sum of squares over all partitions into at most k intervals."""
    ordered = np.sort(values)
    best = np.inf
    for cuts in combinations(range(1, len(values)), min(k, len(values)) - 1):
        parts = np.split(ordered, cuts)
        best = min(best, sum(((part - part.mean()) ** 2).sum() for part in parts))
    return best


@given(values=lists, k=st.integers(1, 5))
def test_no_partition_has_a_smaller_sum_of_squares(values, k):
    found = kmeans_1d(values, k)
    # Sums of squares of numbers up to 1e9 are known to eps * 1e18, relative to the largest.
    allowed = 1e-12 * np.square(np.asarray(values) - np.median(values)).max()
    assert found.sse <= smallest_sse(values, k) + allowed


@given(values=lists, k=st.integers(1, 5))
def test_equal_values_share_a_cluster_and_larger_values_never_have_a_larger_label(values, k):
    for found in (kmeans_1d(values, k), lloyd_1d(values, k)):
        order = np.argsort(values, kind="stable")
        labels = found.labels[order]
        assert (np.diff(labels) <= 0).all()
        assert (np.diff(labels)[np.diff(np.asarray(values)[order]) == 0] == 0).all()


@given(values=lists, k=st.integers(1, 5))
def test_centroids_are_the_means_and_sse_the_distances(values, k):
    for found in (kmeans_1d(values, k), lloyd_1d(values, k)):
        values = np.asarray(values)
        means = [values[found.labels == label].mean() for label in range(found.k)]
        np.testing.assert_allclose(found.centroids, means, rtol=1e-12, atol=1e-300)
        expected = np.square(values - found.centroids[found.labels]).sum()
        assert found.sse == pytest.approx(expected, rel=1e-10, abs=1e-300)


@given(values=lists, k=st.integers(1, 8))
def test_there_are_as_many_clusters_as_asked_for_or_distinct_values(values, k):
    assert kmeans_1d(values, k).k == min(k, len(set(values)))


@given(values=lists, k=st.integers(1, 5))
def test_lloyd_never_beats_the_exact_solution(values, k):
    allowed = 1e-12 * np.square(np.asarray(values) - np.median(values)).max()
    assert lloyd_1d(values, k).sse >= kmeans_1d(values, k).sse - allowed


@pytest.mark.parametrize("k", [1, 2, 5, 40])
@pytest.mark.parametrize("n", [40, 129, 300])
def test_divide_and_conquer_equals_the_dense_program(n, k, monkeypatch):
    rng = np.random.default_rng(n + k)
    values = np.round(rng.lognormal(sigma=2, size=n), 2)  # Skewed, with ties.
    dense = kmeans_1d(values, k)
    monkeypatch.setattr(kmeans, "DENSE_VALUES", 0)
    divided = kmeans_1d(values, k)
    np.testing.assert_array_equal(divided.labels, dense.labels)


def test_ten_thousand_values_are_clustered_better_than_by_lloyd():
    values = np.random.default_rng(0).lognormal(sigma=2, size=10_000)
    exact, local = kmeans_1d(values, 6), lloyd_1d(values, 6)
    assert exact.k == 6
    assert exact.sse <= local.sse


def test_raw_traces_are_split_by_the_largest_and_logarithms_evenly():
    raw, log = kmeans_1d(TRACES, 4), kmeans_1d(np.log10(TRACES), 4)
    assert np.bincount(raw.labels).tolist() == [1, 1, 1, 7]
    assert np.bincount(log.labels).tolist() == [3, 3, 2, 2]


def test_an_outlier_takes_a_cluster_of_its_own_from_the_scores():
    without, with_outlier = kmeans_1d(SCORES, 4), kmeans_1d([*SCORES, -50.0], 3)
    assert np.flatnonzero(without.labels == 0).tolist() == [0, 1, 2]
    assert np.flatnonzero(without.labels == 3).tolist() == [7, 8, 9]
    assert np.flatnonzero(with_outlier.labels == 0).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.flatnonzero(with_outlier.labels == 2).tolist() == [10]


def test_lloyd_drops_clusters_that_run_empty():
    found = lloyd_1d([0.0, 0.0, 0.0, 0.0, 0.0, 9.0], 5)
    assert found.k == 2
    assert found.labels.tolist() == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("cluster", [kmeans_1d, lloyd_1d])
@pytest.mark.parametrize(
    ("values", "k", "message"),
    [
        ([], 2, r"at least one, got an array of shape \(0,\)"),
        ([[1.0]], 2, r"shape \(1, 1\)"),
        ([1.0, float("nan")], 2, "got nan among them"),
        ([1.0, float("inf")], 2, "got inf among them"),
        ([1.0], 0, "`k`, the number of clusters, must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_clustered_is_refused(cluster, values, k, message):
    with pytest.raises(ConfigError, match=message):
        cluster(values, k)
