# SPDX-License-Identifier: Apache-2.0
"""Vectorised sizes against the sum over the layers of each network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.hardware import size_report
from bitscout.space import BompSpace

SPACES = {
    "cifar10": BompSpace(),
    "cifar10, divisor 1": BompSpace(channel_divisor=1),
    "cifar100": BompSpace(widths="cifar100", n_classes=100),
    "digits, few lists": BompSpace(
        input_shape=(1, 8, 8), bits=(2, 3, 8), repetitions=(0, 3), expansions=(4,)
    ),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@given(data=st.data())
def test_sizes_are_the_sums_over_the_layers(space, data):
    lengths = [len(choice.values) for choice in space.choices]
    row = data.draw(st.tuples(*[st.integers(0, length - 1) for length in lengths]))
    values = space.decode(np.array(row))
    layers, policy = space.layers(values), space.policy(values)
    expected = sum(layer.n_weights * policy[layer.name].weight_bits for layer in layers)
    weight_bits, size_bits = space.weight_bits([row]), space.size_bits([row])
    assert weight_bits.dtype == size_bits.dtype == np.int64
    assert weight_bits.tolist() == [expected]
    assert size_bits.tolist() == [expected + 32 * layers.n_biases]
    assert size_bits[0] == size_report(layers, policy).size_bits


def test_a_batch_is_a_loop_over_its_rows():
    space = SPACES["cifar10"]
    rows = space.sample_indices(np.random.default_rng(0), 50)
    assert space.size_bits(rows).tolist() == [space.size_bits(row[None])[0] for row in rows]


def test_no_rows_have_no_sizes():
    space = SPACES["cifar10"]
    assert space.size_bits(np.zeros((0, 49), dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.zeros(49, dtype=int), r"shape \(n, 49\), got \(49,\)"),
        (np.zeros((2, 48), dtype=int), r"shape \(n, 49\), got \(2, 48\)"),
        (np.zeros((1, 49)), "must be integers, got an array of float64"),
        (np.full((1, 49), -1), r"`block1\.kernel` must be in \[0, 5\], got -1 in row 0"),
        (np.eye(2, 49, 1, dtype=int) * 5, r"`block1\.width` must be in \[0, 4\], got 5 in row 0"),
    ],
)
def test_what_is_no_batch_of_points_is_rejected(indices, message):
    with pytest.raises(ConfigError, match=message):
        SPACES["cifar10"].size_bits(indices)
