"""Overflow is proved from the weights."""

import numpy as np
import pytest
import torch
from tests.export.graphs import GraphBuilder, relu_net, residual_net, tiny_net
from tests.export.random_graphs import random_net
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.export.bounds import check_no_overflow, magnitudes
from bitscout.export.graph import Grid, Rescale
from bitscout.export.lowering import lower
from bitscout.export.reference import Reference
from bitscout.quantization import QuantConfig, post_training_quantize

INT32_MAX = 2**31 - 1
GRAPHS = [tiny_net, residual_net, relu_net]


@pytest.mark.parametrize("make", [*GRAPHS, *[lambda s=s: random_net(s) for s in range(20)]])
def test_no_integer_is_larger_than_its_bound(make):
    b, graph = make()
    bounds = magnitudes(graph)
    for name, values in Reference(graph).tensors(b.images(64)).items():
        grid = graph[name].grid
        largest = np.abs(values - grid.zero_point).max(axis=(0, *range(2, values.ndim)))
        assert bounds[name].shape == largest.shape
        assert (largest <= bounds[name]).all()


def test_the_bound_of_a_layer_is_reached():
    b = GraphBuilder(0)
    x = b.input((1, 1, 3))
    b.weights = lambda shape, bits: (np.full(shape, -127, dtype=np.int8), np.ones(shape[:1]))
    b.bias = lambda channels: np.full(channels, -1000)
    graph = b.build(b.conv(x, 1, (1, 3), pads=(0, 0, 0, 0)), one_step=False)
    sums = Reference(graph).run_codes({x: np.full((1, 1, 1, 3), 255)})
    assert magnitudes(graph)[graph.output] == 3 * 127 * 255 + 1000 == -sums.item()


def test_groups_see_their_own_channels():
    b = GraphBuilder(0)
    wide, narrow = b.input((2, 3, 3), 8), b.input((2, 3, 3), 2, name="narrow")
    both = b.concat(b.conv(wide, 2, 1, bias=False), b.conv(narrow, 2, 1, bias=False))
    codes = b.rescale(both)
    grouped = b.conv(codes, 4, 1, groups=2, bias=False)
    bounds = magnitudes(b.build(grouped, one_step=False))
    weight = np.abs(b.ops[grouped].weight.astype(int)).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(bounds[grouped], weight * 255)


def wide_linear(n_inputs, bias=0.0):
    layer = nn.Linear(n_inputs, 2)
    nn.init.constant_(layer.weight, 127.0)
    nn.init.constant_(layer.bias, bias)
    policy = QuantPolicy({"": LayerBits(8, 8)})
    config = QuantConfig(exact_steps=False, bias_correction=False)
    x = torch.rand(4, n_inputs)
    x[0, 0] = 1.0
    return post_training_quantize(layer, policy, x, config), x


def test_a_layer_that_could_overflow_is_refused_by_name():
    module, x = wide_linear(70_000)
    with pytest.raises(UnsupportedError, match=r"sums of 'linear' can reach 2\.267e\+09.*fewer"):
        lower(module, x)


def test_the_last_number_of_inputs_that_fits_passes():
    most = INT32_MAX // (127 * 255)
    lower(*wide_linear(most))
    with pytest.raises(UnsupportedError, match="more than an int32 holds"):
        lower(*wide_linear(most + 1))


def test_the_bias_counts():
    most = INT32_MAX // (127 * 255)
    module, x = wide_linear(most, bias=127.0 * 200)
    with pytest.raises(UnsupportedError, match="more than an int32 holds"):
        lower(module, x)


def test_a_sum_pool_that_could_overflow_is_refused():
    b = GraphBuilder(0)
    x = b.input((1, 2900, 2900))
    check_no_overflow(b.build(b.sum_pool(x), one_step=False))
    b = GraphBuilder(0)
    x = b.input((1, 2900, 2900))
    with pytest.raises(UnsupportedError, match="fewer weight or activation bits"):
        check_no_overflow(b.build(b.sum_pool(b.conv(x, 1, 1)), one_step=False))


def test_products_of_a_rescale_stay_in_an_int64():
    b = GraphBuilder(0)
    sums = b.sum_pool(b.input((1, 2000, 2000)))
    grid = Grid(b.ops[sums].grid.scale * 0.51, 8, 0, 255)
    check_no_overflow(b.build(b.to_grid([sums] * 2, grid), one_step=False))
    out = b.to_grid([sums] * 4, grid)
    with pytest.raises(UnsupportedError, match="more than an int64 holds"):
        check_no_overflow(b.build(out, one_step=False))


def test_a_divisor_and_a_shift_stay_in_an_int64():
    b = GraphBuilder(0)
    grid = b.grid(0.5)
    ones = np.array([[1]])
    for shift, divisor, fits in ((62, 1, True), (61, 3, True), (62, 2, False), (61, 4, False)):
        b.add(Rescale("out", (b.input((1, 2, 2)),), (1, 2, 2), grid, ones, np.array([shift]),
                      np.array([[1, divisor], [1, 1]])))  # fmt: skip
        graph = b.build("out", one_step=False)
        if fits:
            check_no_overflow(graph)
            continue
        with pytest.raises(UnsupportedError, match=r"'out' divides by .*, more than an int64"):
            check_no_overflow(graph)


def test_an_output_that_could_overflow_is_refused():
    b = GraphBuilder(0)
    x = b.input((1, 1, 1000))
    sums = b.sum_pool(x)
    fine = Grid.sums(b.ops[sums].grid.scale / 2.0**14)
    with pytest.raises(UnsupportedError, match="The outputs can reach"):
        check_no_overflow(b.build(b.to_grid([sums], fine), one_step=False))
