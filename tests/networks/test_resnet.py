# SPDX-License-Identifier: Apache-2.0
"""Residual networks for small images."""

import pytest
import torch

from bitscout.errors import ConfigError
from bitscout.networks import resnet, trace
from bitscout.quantization import Add


def test_resnet8_has_the_operations_of_mlperf_tiny():
    # MLPerf Tiny's image classification reference: 12.5 M multiply-accumulates.
    graph = trace(resnet(8), (3, 32, 32))
    assert len(graph) == 10
    assert graph.macs == 12_501_632
    # By hand: stem, three blocks, two 1x1 shortcuts, classifier.
    convs = 27 * 16 + 2 * 9 * 16 * 16 + 9 * (16 * 32 + 32 * 32) + 9 * (32 * 64 + 64 * 64)
    assert graph.n_weights == convs + 16 * 32 + 32 * 64 + 64 * 10


def test_resnet20_has_the_parameters_of_the_paper():
    # He et al., Table 6: 0.27 M; theirs has no convolution in the shortcuts.
    network = resnet(20)
    shortcuts = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    n_parameters = sum(p.numel() for p in network.parameters())
    assert n_parameters - shortcuts == 269_722
    assert sum(isinstance(part, Add) for part in network.modules()) == 9


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_options_shape_the_network(shape):
    network = resnet(14, n_classes=5, in_channels=shape[0], base_width=4)
    assert network(torch.zeros(2, *shape)).shape == (2, 5)


def test_a_seed_gives_the_same_weights():
    first, again, other = (resnet(8, generator_seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 2}, r"`depth` must be 6 n \+ 2 with n >= 1 \(8, 14, 20, \.\.\.\), got 2"),
        ({"depth": 18}, "`depth` must be 6 n"),
        ({"n_classes": 0}, "`n_classes` must be an integer of at least 1, got 0"),
        ({"in_channels": 0}, "`in_channels` must be an integer of at least 1, got 0"),
        ({"base_width": 0}, "`base_width` must be >= 1, got 0"),
        ({"shortcut": "A"}, "`shortcut` must be 'projection' or 'padding', got 'A'"),
    ],
)
def test_impossible_networks_are_rejected(arguments, message):
    with pytest.raises(ConfigError, match=message):
        resnet(**arguments)
