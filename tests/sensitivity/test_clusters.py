# SPDX-License-Identifier: Apache-2.0
"""Clusters of layers and the windows of bit-widths they leave."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.sensitivity import (
    LayerSensitivity,
    Sensitivity,
    bit_windows,
    candidate_bits,
    cluster_labels,
    tie_scores,
)

TRACES = [1, 0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.005, 0.002, 0.001]
BITS = [2, 3, 4, 6, 8]


def sensitivity(traces, n_weights=None):
    counts = n_weights or [1] * len(traces)
    layers = tuple(
        LayerSensitivity(f"l{i}", float(trace), 0.0, 0.0, count, 1)
        for i, (trace, count) in enumerate(zip(traces, counts, strict=True))
    )
    return Sensitivity(layers, "gauss_newton", "cross_entropy", 1, 0.0, "0")


def test_windows_are_the_papers_for_five_bit_widths_and_four_clusters():
    assert bit_windows(BITS, 4) == ((8, 6), (6, 4, 3), (4, 3, 2), (3, 2))


@given(
    bits=st.lists(st.integers(2, 8), min_size=1, max_size=7, unique=True),
    n_clusters=st.integers(1, 8),
)
def test_windows_descend_overlap_and_leave_no_bit_width_out(bits, n_clusters):
    windows = bit_windows(bits, n_clusters)
    assert len(windows) == n_clusters
    assert sorted({b for window in windows for b in window}) == sorted(bits)
    for window, following in pairwise(windows):
        assert list(window) == sorted(window, reverse=True)
        assert set(window) & set(following)
        assert window[0] >= following[0]
        assert window[-1] >= following[-1]


def test_logarithms_spread_layers_evenly_and_raw_traces_do_not():
    log = cluster_labels(TRACES)
    raw = cluster_labels(TRACES, scale="raw")
    assert log.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 0]  # The last is put on top.
    assert raw.tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 0]


def test_first_and_last_layer_have_the_widest_bits_whatever_their_traces():
    traces = [1e-6, 1.0, 0.1, 0.01, 1e-6]
    found = candidate_bits(sensitivity(traces), BITS)
    assert found["l0"] == found["l4"] == (6, 8)
    assert found["l3"] == (2, 3)  # The cluster of 1e-6 is gone with them.


def test_scores_that_are_not_positive_count_as_the_smallest_positive_one():
    labels = cluster_labels([1.0, 1.0, -3.0, 0.0, 0.01, 1.0], n_clusters=2)
    assert labels.tolist() == [0, 0, 1, 1, 1, 0]
    assert cluster_labels([0.0, -1.0, 0.0]).tolist() == [0, 0, 0]


def test_equal_scores_leave_all_bits():
    found = candidate_bits(sensitivity([0.5] * 4), BITS)
    assert set(found.values()) == {(2, 3, 4, 6, 8)}


def test_a_tie_has_the_mean_curvature_of_its_weights():
    measured = sensitivity([4.0, 6.0, 1.0], [2, 8, 1])
    scores = tie_scores(measured, {"block": ("l0", "l1"), "head": ("l2",)})
    assert scores == {"block": 1.0, "head": 1.0}
    weighted = (2 * measured["l0"].mean + 8 * measured["l1"].mean) / 10
    assert scores["block"] == pytest.approx(weighted)


def test_layers_of_a_tie_get_the_same_bits():
    ties = {"first": ("l0",), "block": ("l1", "l2"), "last": ("l3",)}
    found = candidate_bits(sensitivity([1, 0.1, 1e-3, 1]), BITS, ties=ties, n_clusters=2)
    assert found == {"first": (3, 4, 6, 8), "block": (2, 3), "last": (3, 4, 6, 8)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bit_windows([], 4), "at least one cluster, got"),
        (lambda: bit_windows(BITS, 0), "and 0"),
        (lambda: tie_scores(sensitivity([1]), {"a": ("b",)}), "'a' needs layers .* got b"),
        (lambda: tie_scores(sensitivity([1]), {"a": ()}), "got none"),
        (lambda: cluster_labels([]), "at least one"),
    ],
)
def test_what_cannot_be_clustered_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
