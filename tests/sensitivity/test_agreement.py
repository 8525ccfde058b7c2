# SPDX-License-Identifier: Apache-2.0
"""Drops measured one layer at a time, and ranks compared."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from bitscout.errors import ConfigError
from bitscout.quantization import MaxAbsObserver, QuantConfig
from bitscout.sensitivity import CrossEntropy, measured_drops, rank_agreement
from bitscout.sensitivity.agreement import _replacements
from bitscout.sensitivity.subject import Subject

PLAIN = QuantConfig(weight_observer=MaxAbsObserver(), exact_steps=False, bias_correction=False)


def network():
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.3
    x = torch.randn((64, 3, 6, 6), generator=rng)
    return net, x, net(x).argmax(dim=1)


@torch.no_grad()
def test_drops_are_those_of_the_network_with_one_layer_replaced():
    net, x, y = network()
    found = measured_drops(net, x[:16], x, y, bits=2, config=PLAIN)
    assert [drop.name for drop in found] == ["0", "3"]
    weight = net[3].weight.data
    step = weight.abs().amax(dim=1, keepdim=True)  # Codes -1, 0 and 1.
    before = float(F.cross_entropy(net(x), y))
    net[3].weight.data = (weight / step).round() * step
    outputs = net(x)
    assert found[1].loss_increase == pytest.approx(float(F.cross_entropy(outputs, y)) - before)
    accuracy = float((outputs.argmax(dim=1) == y).double().mean())
    assert found[1].accuracy_drop == pytest.approx(1 - accuracy)


@torch.no_grad()
def test_bias_correction_keeps_the_mean_output_of_each_layer_on_the_calibration_images():
    net, x, y = network()
    corrected = QuantConfig(weight_observer=MaxAbsObserver(), exact_steps=False)
    subject = Subject.of(net, x, y, CrossEntropy())
    found = _replacements(subject, x, 2, corrected)
    hidden = net[:3](x)
    torch.testing.assert_close(F.linear(hidden, *found["3"]).mean(0), net[3](hidden).mean(0))
    means = F.conv2d(x, *found["0"]).mean(dim=(0, 2, 3))
    torch.testing.assert_close(means, net[0](x).mean(dim=(0, 2, 3)))
    assert not torch.allclose(found["3"][1], net[3].bias)


def test_eight_bits_cost_next_to_nothing_and_the_network_stays():
    net, x, y = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    steps = []
    found = measured_drops(net, x, x, y, bits=8, progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    assert max(abs(drop.loss_increase) for drop in found) < 0.02
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_rank_agreement_has_spearmans_coefficient_and_an_interval_around_it():
    first, second = [1, 2, 3, 4, 5, 6, 7, 8], [1, 3, 2, 4, 6, 5, 8, 7]
    found = rank_agreement(first, second)
    assert found.spearman == pytest.approx(spearmanr(first, second).statistic)
    half = 1.959964 * math.sqrt((1 + found.spearman**2 / 2) / 5)
    assert math.atanh(found.high) - math.atanh(found.spearman) == pytest.approx(half)
    assert math.atanh(found.spearman) - math.atanh(found.low) == pytest.approx(half)
    assert rank_agreement(first, [10 * x for x in first]).spearman == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], "at least 5 pairs, got 4 and 4"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], "got 5 and 4"),
        ([1, 2, 3, 4, 5], [1] * 5, "no order"),
    ],
)
def test_lists_without_an_order_are_refused(first, second, message):
    with pytest.raises(ConfigError, match=message):
        rank_agreement(first, second)
