# SPDX-License-Identifier: Apache-2.0
"""The proof that float32 is exact, against networks where it is and where it is not."""

import numpy as np
import pytest
import torch
from tests.export.graphs import residual_net

from bitscout.core import QuantPolicy
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.graph import Conv, Grid, Input, IntegerGraph, Linear, Rescale, SumPool
from bitscout.export.lowering import lower
from bitscout.export.reference import Reference
from bitscout.export.windows import Windows
from bitscout.networks import resnet
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize

IMAGE = Input("image", (2, 4, 4), Grid(np.array(0.5), 8, 0, 255))


def conv(weight, scale, bias=0, step=0.5):
    """A pointwise layer: 255 |weight| + |bias| is the largest sum of a channel."""
    weight = np.array(weight, dtype=np.int8).reshape(1, 2, 1, 1)
    scales = np.array([scale])
    return Conv(
        name="conv",
        inputs=("image",),
        shape=(1, 4, 4),
        grid=Grid.sums(step * scales),
        weight=weight,
        weight_bits=8,
        weight_scale=scales,
        bias=np.array([bias]),
    )


def graph(*ops):
    return IntegerGraph((IMAGE, *ops), ops[-1].name)


def rescale(step, divisor=1, inputs=("conv",)):
    one = np.full((len(inputs), 1), 2**30)
    grid = Grid(np.array(step), 8, 0, 255)
    return Rescale(
        "codes", inputs, (1, 4, 4), grid, one, np.array([40]), np.array(divisor, dtype=np.int64)
    )


@pytest.mark.parametrize(
    ("bias", "scale", "is_exact"),
    [
        (2**24 - 255 * 3, 2.0**-7, True),
        (2**24 - 255 * 3 + 1, 2.0**-7, False),
        (2**23 - 255 * 3, 3 * 2.0**-7, False),  # Three units a step.
        (5_592_405 - 255 * 3, 3 * 2.0**-7, True),  # 2**24 // 3
        (5_592_406 - 255 * 3, 3 * 2.0**-7, False),
        (-(2**24) + 255 * 3, 2.0**-7, True),
        (0, float(np.float32(0.1)), False),
        (0, 2.0**-124, True),
        (0, 2.0**-126, False),  # With the input's step below the smallest normal number.
    ],
)
def test_sums_are_exact_up_to_two_to_the_24_units(bias, scale, is_exact):
    network = graph(conv([1, -2], scale, bias))
    assert rounded_in_float32(network) == (() if is_exact else ("conv",))


@pytest.mark.parametrize(
    ("step", "divisor", "is_exact"),
    [(0.25, 1, True), (0.3, 1, False), (0.25, 2**14 - 1, True), (0.25, 2**14, False)],
)
def test_quotients_need_a_power_of_two_and_a_small_window(step, divisor, is_exact):
    network = graph(conv([1, 1], 0.5), rescale(step, divisor))
    assert rounded_in_float32(network) == (() if is_exact else ("codes",))


@pytest.mark.parametrize(("exponent", "is_exact"), [(15, True), (17, False)])
def test_operands_of_an_addition_need_steps_that_are_near(exponent, is_exact):
    near = Input("near", (2, 4, 4), Grid(np.array(0.5), 8, 0, 255))
    far = Input("far", (2, 4, 4), Grid(np.array(0.5 * 2**exponent), 8, 0, 255))
    network = IntegerGraph((near, far, rescale(0.5, inputs=("near", "far"))), "codes")
    assert rounded_in_float32(network) == (() if is_exact else ("codes",))


def test_a_quotient_of_a_sum_of_operands_is_not_proved():
    # PyTorch divides every operand, then adds: two roundings.
    a, b = (Input(name, (2, 4, 4), Grid(np.array(0.5), 8, 0, 255)) for name in "ab")
    for divisor, is_exact in ((1, True), (2, False), (3, False)):
        network = IntegerGraph((a, b, rescale(0.5, divisor, inputs=("a", "b"))), "codes")
        assert rounded_in_float32(network) == (() if is_exact else ("codes",))


def test_sums_of_a_pool_count_its_window():
    rows = Windows(((0, 256),), ((0, 258),), (256, 258))
    codes = Input("image", (1, 256, 258), Grid(np.array(1.0), 8, 0, 255))
    pool = SumPool("pool", ("image",), (1, 1, 1), Grid.sums(np.array(1.0)), rows)
    assert 255 * 256 * 258 > 2**24
    assert rounded_in_float32(IntegerGraph((codes, pool), "pool")) == ("pool",)


def test_linear_is_proved_by_its_weights_and_not_by_their_number():
    codes = Input("x", (1000,), Grid(np.array(1.0), 8, 0, 255))
    for largest, is_exact in ((65, True), (66, False)):
        weight = np.full((1, 1000), largest, dtype=np.int8)
        scale = np.array([1.0])
        layer = Linear("fc", ("x",), (1,), Grid.sums(scale), weight, 8, scale, None)
        found = rounded_in_float32(IntegerGraph((codes, layer), "fc"))
        assert found == (() if is_exact else ("fc",))


def test_hand_built_networks_with_arbitrary_steps_are_not_proved():
    _, network = residual_net()
    assert set(rounded_in_float32(network)) >= {op.name for op in network.layers}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("exact", [True, False])
def test_what_is_proved_is_what_pytorch_computes(bits, exact):
    net = resnet(depth=8, n_classes=10, in_channels=3, base_width=16, generator_seed=bits).eval()
    x = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    policy = QuantPolicy.uniform(layer_names(net), bits)
    quantized = post_training_quantize(net, policy, x, QuantConfig(exact_steps=exact)).eval()
    network = lower(quantized, x)
    with torch.no_grad():
        real = quantized(x).double().numpy()
    scores = network.scores(Reference(network).run(x.numpy()))
    assert (rounded_in_float32(network) == ()) is exact
    assert np.array_equal(real, scores) is exact
