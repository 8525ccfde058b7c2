# SPDX-License-Identifier: Apache-2.0
"""Shapes of MobileNetV2-like networks, by hand."""

import pytest

from bitscout.errors import ConfigError
from bitscout.space import BlockSpec, MobileNetSpec, round_channels


def keras_make_divisible(v, divisor):
    """The published rule of MobileNet's reference implementation."""
    new_v = max(divisor, int(v + divisor / 2) // divisor * divisor)
    if new_v < 0.9 * v:
        new_v += divisor
    return new_v


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_round_channels_is_the_reference_rule(divisor):
    requests = [tenth / 10 for tenth in range(1, 3200)]
    expected = [keras_make_divisible(request, divisor) for request in requests]
    assert [round_channels(request, divisor) for request in requests] == expected


@pytest.mark.parametrize(
    ("request_", "expected"), [(4, 8), (11.9, 16), (12, 16), (20, 24), (8.88, 8), (8.9, 16)]
)
def test_round_channels_by_hand(request_, expected):
    # 8.88 * 0.9 = 7.992 <= 8 < 8.01 = 8.9 * 0.9, so only the second is bumped.
    assert round_channels(request_, 8) == expected


@pytest.mark.parametrize(
    ("request_", "expected"), [(0.16, 1), (0.5, 1), (1.4, 1), (1.6, 2), (9.6, 10)]
)
def test_divisor_one_rounds_to_whole_numbers_of_at_least_one(request_, expected):
    assert round_channels(request_, 1) == expected


def tiny():
    first = BlockSpec(1, kernel=2, out_channels=4, expansion=1, repetitions=1, has_expand=False)
    second = BlockSpec(5, kernel=3, out_channels=6, expansion=2, repetitions=2, stride=2)
    return MobileNetSpec((3, 9, 7), 10, 4, (first, second), 16)


def test_layers_of_a_tiny_network_by_hand():
    got = [
        (a.name, a.in_channels, a.out_channels, a.kernel[0], a.stride[0], a.groups, a.output_size)
        for a in tiny().layers()
    ]
    assert got == [
        ("stem.conv", 3, 4, 3, 1, 1, (9, 7)),
        ("block1.0.depthwise.conv", 4, 4, 2, 1, 4, (9, 7)),
        ("block1.0.project.conv", 4, 4, 1, 1, 1, (9, 7)),
        ("block5.0.expand.conv", 4, 8, 1, 1, 1, (9, 7)),
        ("block5.0.depthwise.conv", 8, 8, 3, 2, 8, (5, 4)),
        ("block5.0.project.conv", 8, 6, 1, 1, 1, (5, 4)),
        ("block5.1.expand.conv", 6, 12, 1, 1, 1, (5, 4)),
        ("block5.1.depthwise.conv", 12, 12, 3, 1, 12, (5, 4)),
        ("block5.1.project.conv", 12, 6, 1, 1, 1, (5, 4)),
        ("conv2.conv", 6, 16, 1, 1, 1, (5, 4)),
        ("classifier", 16, 10, 1, 1, 1, (1, 1)),
    ]


def test_macs_and_weights_of_a_tiny_network_by_hand():
    graph = tiny().layers()
    weights = [108, 16, 16, 32, 72, 48, 72, 108, 72, 96, 160]
    pixels = [63, 63, 63, 63, 20, 20, 20, 20, 20, 20, 1]
    assert [layer.n_weights for layer in graph] == weights
    assert graph.macs == sum(w * p for w, p in zip(weights, pixels, strict=True))
    assert graph.n_biases == 4 + 4 + 4 + 8 + 8 + 6 + 12 + 12 + 6 + 16 + 10


def test_nodes_add_the_input_only_where_stride_is_one_and_channels_agree():
    nodes = {node.name: node for node in tiny().layers().nodes}
    adds = {name: node.inputs for name, node in nodes.items() if node.op == "add"}
    # Block 1 keeps 4 channels; the first of block 5 has stride 2; its second keeps 6 channels.
    assert adds == {
        "block1.0.add": ("stem.conv", "block1.0.project.conv"),
        "block5.1.add": ("block5.0.project.conv", "block5.1.project.conv"),
    }
    assert nodes["block5.0.expand.conv"].inputs == ("block1.0.add",)
    assert nodes["conv2.conv"].inputs == ("block5.1.add",)


def test_nodes_end_in_pool_flatten_classifier():
    last = [(node.name, node.op, node.inputs, node.shape) for node in tiny().layers().nodes[-3:]]
    assert last == [
        ("pool", "avg_pool", ("conv2.conv",), (16, 1, 1)),
        ("flatten", "flatten", ("pool",), (16,)),
        ("classifier", "linear", ("flatten",), (10,)),
    ]


def test_keys_agree_exactly_for_equal_networks():
    assert tiny().key == tiny().key
    other = MobileNetSpec((3, 9, 7), 10, 4, tiny().blocks, 17)
    assert other.key != tiny().key


@pytest.mark.parametrize("field", ["kernel", "out_channels", "expansion", "repetitions", "stride"])
def test_a_block_needs_positive_sizes(field):
    sizes = {"kernel": 3, "out_channels": 4, "expansion": 1, "repetitions": 1, "stride": 1}
    with pytest.raises(ConfigError, match="A block needs positive sizes"):
        BlockSpec(position=2, **(sizes | {field: 0}))


def test_a_block_cannot_expand_without_a_convolution():
    with pytest.raises(ConfigError, match="Block 1 expands by 2 without a convolution"):
        BlockSpec(1, 3, 8, expansion=2, repetitions=1, has_expand=False)
