# SPDX-License-Identifier: Apache-2.0
"""The edit distance: hand cases, metric axioms, and a plain recursive implementation."""

from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.samplers import Descriptors, edit_distances
from bitscout.samplers import edit_distance as module
from bitscout.samplers.edit_distance import layer_distances, skip_distances

# Lists of at most 6 layers: at most 12 additions of numbers below 8, each off by half an ulp of
# single precision (2.4e-7), and the attributes' quotients.
ATOL = 1e-5
layer = st.tuples(
    st.integers(0, 2),
    st.sampled_from([0, 8, 16, 24, 64]),
    st.integers(0, 7),
    st.integers(1, 4),
    st.integers(4, 8),
)
networks = st.lists(layer, max_size=6)
skip = st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 1))
skip_lists = st.lists(skip, max_size=4)


def batch(*layers, skips=None):
    return Descriptors.from_sequences(layers, skips)


def layers_between(p, q):
    return layer_distances(batch(p), batch(q))[0, 0]


def skips_between(p, q):
    return skip_distances(batch([], skips=[p]), batch([], skips=[q]))[0, 0]


def plain_distance(p, q):
    def cost(x, y):
        if x[0] != y[0]:
            return 1.0
        pairs = list(zip(x[1:], y[1:], strict=True))
        return sum(abs(a - b) / max(a, b) if max(a, b) else 0.0 for a, b in pairs) / len(pairs)

    @cache
    def distance(i, j):
        if i == 0 or j == 0:
            return float(i + j)
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + cost(p[i - 1], q[j - 1]),
        )

    return distance(len(p), len(q))


def plain_matching(p, q):
    def cost(x, y):
        if x[2] != y[2]:
            return 1.0
        return (abs(x[0] - y[0]) + abs(x[1] - y[1])) / (max(x[0], y[0]) + max(x[1], y[1]))

    if len(p) > len(q):
        p, q = q, p
    best = min(
        sum(cost(x, y) for x, y in zip(p, chosen, strict=True))
        for chosen in permutations(q, len(p))
    )
    return best + len(q) - len(p)


def test_doubling_the_filters_of_a_convolution_costs_a_sixth():
    conv32, conv64 = [(0, 32, 3, 1)], [(0, 64, 3, 1)]
    assert layers_between(conv32, conv64) == pytest.approx((0.5 + 0 + 0) / 3, abs=ATOL)


def test_bits_are_a_fourth_attribute():
    assert layers_between([(0, 32, 3, 1, 8)], [(0, 32, 3, 1, 4)]) == pytest.approx(0.125)
    assert layers_between([(0, 32, 3, 1, 8)], [(0, 64, 3, 1, 8)]) == pytest.approx(0.125)


def test_inserting_a_layer_costs_one():
    short, long = [(0, 32, 3, 1), (1, 10, 0, 0)], [(0, 32, 3, 1), (0, 8, 5, 2), (1, 10, 0, 0)]
    assert layers_between(short, long) == 1.0


def test_a_layer_of_another_kind_costs_one():
    assert layers_between([(0, 32, 3, 1)], [(1, 32, 3, 1)]) == 1.0


def test_shifting_and_lengthening_a_skip_costs_the_relative_difference():
    assert skips_between([(2, 3, 0)], [(4, 5, 0)]) == pytest.approx((2 + 2) / (4 + 5))


def test_a_skip_of_another_kind_and_a_skip_too_many_cost_one_each():
    assert skips_between([(2, 3, 0)], [(2, 3, 1)]) == 1.0
    assert skips_between([(2, 3, 0), (9, 3, 0)], [(2, 3, 0)]) == 1.0


def test_the_total_is_layers_plus_skips():
    a = batch([(0, 32, 3, 1)], skips=[[(2, 3, 0)]])
    b = batch([(0, 64, 3, 1)], skips=[[]])
    assert edit_distances(a, b)[0, 0] == pytest.approx(1 / 6 + 1, abs=ATOL)


@given(p=networks, q=networks)
def test_layers_agree_with_the_recursive_definition(p, q):
    assert layers_between(p, q) == pytest.approx(plain_distance(tuple(p), tuple(q)), abs=ATOL)


@given(p=skip_lists, q=skip_lists)
def test_skips_agree_with_the_best_of_all_matchings(p, q):
    assert skips_between(p, q) == pytest.approx(plain_matching(p, q), abs=1e-12)


@settings(max_examples=50)
@given(
    sequences=st.lists(networks, min_size=1, max_size=6),
    skips=st.lists(skip_lists, min_size=6, max_size=6),
)
def test_metric_axioms(sequences, skips):
    networks_ = batch(*sequences, skips=skips[: len(sequences)])
    total = edit_distances(networks_, networks_)
    np.testing.assert_allclose(total, total.T, rtol=0, atol=ATOL)
    assert (total >= 0).all()
    for i, (p, s) in enumerate(zip(sequences, skips, strict=False)):
        for j, (q, t) in enumerate(zip(sequences, skips, strict=False)):
            is_same = p == q and sorted(s) == sorted(t)
            assert (total[i, j] < ATOL) == is_same
    d = layer_distances(networks_, networks_)
    through = d[:, :, None] + d[None, :, :]
    assert (d[:, None, :] <= through + 3 * ATOL).all()


def test_a_batch_is_a_loop_over_pairs_whatever_the_tiles(monkeypatch):
    rng = np.random.default_rng(0)
    sequences = [
        [tuple(rng.integers(0, (2, 4, 8, 3, 9))) for _ in range(rng.integers(0, 12))]
        for _ in range(11)
    ]
    many, other = batch(*sequences), batch(*sequences[:7])
    expected = [[layers_between(p, q) for q in sequences] for p in sequences]
    for tile in (1, 3, 128):
        monkeypatch.setattr(module, "TILE", tile)
        np.testing.assert_array_equal(layer_distances(many, many), expected)
        np.testing.assert_array_equal(layer_distances(many, other), np.array(expected)[:, :7])


def test_empty_networks_and_empty_batches():
    empty, one = batch([]), batch([(0, 8, 3, 1)])
    assert edit_distances(empty, empty).tolist() == [[0.0]]
    assert edit_distances(one, empty).tolist() == [[1.0]]
    none = Descriptors.from_sequences([])
    assert edit_distances(none, one).shape == (0, 1)
    assert edit_distances(one, none).shape == (1, 0)


def test_different_numbers_of_attributes_are_refused():
    with pytest.raises(ConfigError, match="same attributes, got 3 and 4"):
        layer_distances(batch([(0, 8, 3, 1)]), batch([(0, 8, 3, 1, 4)]))


def test_arrays_of_different_batches_are_refused():
    with pytest.raises(ConfigError, match=r"Expected layers \(n, L, 1 \+ A\)"):
        Descriptors(np.zeros((2, 3, 4)), np.array([3]), np.zeros((2, 0, 3)), np.zeros(2, int))
