# SPDX-License-Identifier: Apache-2.0
"""Squared errors against fake quantization by hand, and the losses expected of them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitscout.errors import ConfigError
from bitscout.networks import resnet
from bitscout.quantization import MaxAbsObserver, MinMaxObserver, QuantConfig
from bitscout.sensitivity import (
    GaussNewton,
    LossTable,
    QuantizationErrors,
    measure_sensitivity,
    quantization_errors,
)

PLAIN = QuantConfig(
    weight_observer=MaxAbsObserver(), act_observer=MinMaxObserver(), exact_steps=False
)


def network(seed=0):
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 3),
    )  # fmt: skip
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.3
    net[1].running_var.copy_(torch.rand(4, generator=rng) + 0.5)
    return net.eval(), torch.randn((16, 3, 6, 6), generator=rng)


def test_errors_are_those_of_the_folded_weights_and_of_the_inputs():
    net, x = network()
    found = quantization_errors(net, x, [4, 8], config=PLAIN)
    assert found.names == ("0", "4")
    assert found.bits == (4, 8)
    factor = net[1].weight / torch.sqrt(net[1].running_var + net[1].eps)
    folded = (net[0].weight * factor[:, None, None, None]).detach()
    for column, (largest, unsigned) in enumerate([(7, 15), (127, 255)]):
        step = folded.abs().flatten(1).amax(dim=1)[:, None, None, None] / largest
        error = ((folded / step).round() * step - folded).square().sum()
        assert found.weights[0, column] == pytest.approx(float(error), rel=1e-4)
        hidden = net[:4](x).detach()
        step = hidden.max() / unsigned
        error = ((hidden / step).round() * step - hidden).square().sum() / 16
        assert found.inputs[1, column] == pytest.approx(float(error), rel=1e-4)


def test_more_bits_have_smaller_errors_in_every_layer_of_a_network():
    x = torch.randn((16, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    found = quantization_errors(resnet(8, base_width=4), x, [2, 3, 4, 6, 8])
    assert found.weights.shape == found.inputs.shape == (len(found.names), 5)
    assert (np.diff(found.weights, axis=1) < 0).all()
    assert (np.diff(found.inputs, axis=1) < 0).all()


def test_the_network_stays_as_it_is():
    net, x = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    quantization_errors(net.train(), x, [2, 3])
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(not child._forward_pre_hooks for child in net.modules())


def test_expected_loss_is_half_the_curvature_times_the_error():
    net, x = network()
    measured = measure_sensitivity(net, x, torch.arange(16) % 3)
    errors = quantization_errors(net, x, [2, 4, 8])
    table = LossTable.of(measured, errors)
    layer = measured["4"]
    weight = 0.5 * layer.trace / 192 * errors.weights[1, 0]
    inputs = 0.5 * layer.input_trace / 64 * errors.inputs[1, 2]
    assert table.at([8, 2], [4, 8])[1] == pytest.approx(weight + inputs)
    many = table.at([[8, 2], [2, 2]], [[4, 8], [8, 8]])
    assert many.shape == (2, 2)
    assert many[0].tolist() == table.at([8, 2], [4, 8]).tolist()


def test_expected_loss_is_the_measured_one_for_isotropic_errors_of_a_linear_classifier():
    # At its optimum the gradient is nil, so that the loss grows by the second-order term.
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 3, bias=False)).double()
    x = torch.randn((256, 8), generator=rng).double()
    y = (x[:, :3] + 2 * torch.randn((256, 3), generator=rng)).argmax(dim=1)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    measured = measure_sensitivity(net, x, y, estimator=GaussNewton(draws=3))
    with torch.no_grad():
        before = float(F.cross_entropy(net(x), y))
        weight, rises = net[0].weight.clone(), []
        for _ in range(300):
            error = 0.02 * torch.randn(weight.shape, generator=rng).double()
            net[0].weight.copy_(weight + error)
            rises.append(float(F.cross_entropy(net(x), y)) - before)
    errors = QuantizationErrors(("0",), (4,), np.array([[0.02**2 * 24]]), np.zeros((1, 1)))
    expected = LossTable.of(measured, errors).at([4], [4])[0]
    spread = np.std(rises) / np.sqrt(len(rises))
    assert abs(np.mean(rises) - expected) <= 4 * spread


def test_bits_that_are_not_in_the_table_are_refused():
    net, x = network()
    table = LossTable.of(
        measure_sensitivity(net, x, torch.arange(16) % 3), quantization_errors(net, x, [2, 4])
    )
    for bits in ([2, 3], [2, 8], [2]):
        with pytest.raises(ConfigError, match=r"Expected one of \(2, 4\) bits for each of 2"):
            table.at(bits, bits)


def test_a_layer_whose_sensitivity_is_missing_is_named():
    net, x = network()
    some = measure_sensitivity(net, x, torch.arange(16) % 3, layers=["0"])
    with pytest.raises(ConfigError, match="sensitivity of 4 was not measured"):
        LossTable.of(some, quantization_errors(net, x, [2]))
