# SPDX-License-Identifier: Apache-2.0
"""What every search space does with points, on the space of BOMP-NAS."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import Candidate
from bitscout.errors import ConfigError
from bitscout.space import BompSpace

SPACE = BompSpace()
SMALL = BompSpace(widths=(0.05, 0.1, 0.3), bits=(4, 8), kernels=(3, 4), repetitions=(0, 2))

points = st.tuples(*[st.integers(0, len(choice.values) - 1) for choice in SPACE.choices])


@given(row=points)
def test_encode_and_decode_are_inverse(row):
    values = SPACE.decode(np.array(row))
    assert SPACE.contains(values)
    assert tuple(SPACE.encode(values)) == row


@given(row=points)
def test_values_survive_json(row):
    values = SPACE.decode(np.array(row))
    assert json.loads(json.dumps(values)) == values
    candidate = SPACE.candidate(values)
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate


def test_values_are_plain_numbers():
    assert {type(value) for value in SPACE.sample(np.random.default_rng(0)).values()} == {
        int,
        float,
    }


def test_samples_are_canonical_points_of_the_space():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = SPACE.sample(rng)
        assert SPACE.canonical(values) == values


def test_samples_are_uniform_where_nothing_makes_them_canonical():
    rows = SPACE.sample_indices(np.random.default_rng(0), 20_000)
    for column, choice in enumerate(SPACE.choices):
        if choice.name.endswith(("repetitions", "filters")) or choice.name == "block7.kernel":
            n = len(choice.values)
            counts = np.bincount(rows[:, column], minlength=n)
            # Six standard deviations of a binomial count.
            assert abs(counts - 20_000 / n).max() < 6 * np.sqrt(20_000 / n * (1 - 1 / n))


def test_samples_depend_on_the_generator_alone():
    draws = [SPACE.sample_indices(np.random.default_rng(seed), 5) for seed in (3, 3, 4)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def brute_force_neighbours(space, values):
    """Every canonical point that one exchange in the canonical form leads to."""
    start = space.canonical(values)
    found = []
    for choice in space.choices:
        for value in choice.values:
            neighbour = space.canonical(start | {choice.name: value})
            if neighbour != start and neighbour not in found:
                found.append(neighbour)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_all_single_exchanges_in_order(seed):
    values = SMALL.sample(np.random.default_rng(seed))
    assert SMALL.neighbours(values) == brute_force_neighbours(SMALL, values)


@given(row=points)
def test_neighbours_are_different_canonical_networks_or_policies(row):
    values = SPACE.decode(np.array(row))
    neighbours = SPACE.neighbour_indices(row)
    assert (SPACE.canonical_indices(neighbours) == neighbours).all()
    digests = {SPACE.candidate(SPACE.decode(neighbour)).digest for neighbour in neighbours[::9]}
    assert len(digests) == len(neighbours[::9])
    assert SPACE.candidate(values).digest not in digests


def test_neighbours_with_all_blocks_change_one_choice():
    seed = SPACE.seed_indices()
    n_changed = (SPACE.neighbour_indices(seed) != seed).sum(axis=1)
    # The seed's own values are the defaults, so even a removed block changes nothing else.
    assert (n_changed == 1).all()


def test_candidate_holds_canonical_values_and_their_policy():
    values = SPACE.seed_values() | {"block2.repetitions": 0, "block2.kernel": 7}
    candidate = SPACE.candidate(values)
    assert dict(candidate.values) == SPACE.canonical(values)
    assert candidate.values["block2.kernel"] == 3
    assert candidate.policy == SPACE.policy(values)


def test_architecture_key_ignores_bits_and_what_is_inactive():
    seed = SPACE.seed_values()
    key = SPACE.architecture_key(seed)
    assert SPACE.architecture_key(seed | {"stem.bits": 4, "block2.expand.bits": 5}) == key
    assert SPACE.architecture_key(seed | {"block2.kernel": 5}) != key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block2.kernel": 8}, r"`block2\.kernel` must be one of \[2, 3, 4, 5, 6, 7\], got 8"),
        ({"block2.kernels": 3}, r"no choice `block2\.kernels`\. Did you mean `block2\.kernel`\?"),
        ({"zzz": 3}, r"no choice `zzz`\.$"),
        ({"block1.expansion": 1}, r"no choice `block1\.expansion`"),
    ],
)
def test_values_outside_the_space_are_named(change, message):
    values = SPACE.seed_values() | change
    assert not SPACE.contains(values)
    for method in (SPACE.validate, SPACE.encode, SPACE.layers, SPACE.policy, SPACE.candidate):
        with pytest.raises(ConfigError, match=message):
            method(values)


def test_missing_values_are_named():
    values = SPACE.seed_values()
    del values["stem.bits"]
    with pytest.raises(ConfigError, match=r"A value is missing for `stem\.bits`\."):
        SPACE.validate(values)
