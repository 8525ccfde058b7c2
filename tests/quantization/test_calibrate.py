# SPDX-License-Identifier: Apache-2.0
"""Calibration: what bias correction promises, and what bad input says."""

import copy

import pytest
import torch
from torch import nn

from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError, DataError, TrainingError
from bitscout.quantization import (
    Add,
    MinMaxObserver,
    QuantConfig,
    QuantizedLayer,
    calibrate,
    layer_names,
    prepare,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.add = Add()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.act(self.first(x))
        return self.head(self.add(x, self.second(x)).mean((2, 3)))


def seeded(net):
    for index, parameter in enumerate(net.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=index) / 3)
    return net.eval()


def prepared(net, bits=2, **config):
    policy = QuantPolicy.uniform(layer_names(net), bits)
    return prepare(net, policy, randn(1, 3, 6, 6), QuantConfig(**config))


def channel_means(net, x):
    means = {}

    def keep(name, y):
        means[name] = y.detach().double().mean([d for d in range(y.dim()) if d != 1])

    handles = [
        child.register_forward_hook(lambda _m, _i, y, name=name: keep(name, y))
        for name, child in net.named_modules()
        if isinstance(child, nn.Conv2d | nn.Linear | QuantizedLayer)
    ]
    net(x)
    for handle in handles:
        handle.remove()
    return means


def test_bias_correction_matches_the_mean_of_every_channel_of_every_layer():
    net, x = seeded(Small()), randn(64, 3, 6, 6)
    quantized = prepared(net)
    calibrate(quantized, [x])
    wanted, got = channel_means(net, x), channel_means(quantized, x)
    assert wanted.keys() == got.keys()
    for name, mean in wanted.items():
        layer = quantized.get_submodule(name)
        # Half a step of the bias grid, and float32 sums of at most 72 products of size 1.
        tolerance = float(layer.bias_steps().max()) / 2 + 1e-5
        assert (got[name] - mean).abs().max() <= tolerance, name


def test_without_bias_correction_biases_stay():
    net, x = seeded(Small()), randn(16, 3, 6, 6)
    quantized = prepared(net)
    calibrate(quantized, [x], bias_correction=False)
    for name in layer_names(net):
        assert torch.equal(quantized.get_submodule(name).bias, net.get_submodule(name).bias)


def test_layer_without_bias_gets_none():
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 1)))
    quantized = prepared(net)
    calibrate(quantized, [randn(8, 3, 6, 6)])
    assert quantized[0].bias is None
    assert not torch.equal(quantized[1].bias, net[1].bias)


def test_batches_are_one_set_however_they_are_cut():
    net, x = seeded(Small()), randn(30, 3, 6, 6)
    once, cut = prepared(net), prepared(net)
    calibrate(once, [x])
    calibrate(cut, x.split(7))
    for key, value in once.state_dict().items():
        assert torch.equal(value, cut.state_dict()[key])


def test_later_layers_are_calibrated_on_what_earlier_ones_really_give():
    net, x = seeded(Small()), randn(32, 3, 6, 6)
    quantized = prepared(net, act_observer=MinMaxObserver(), exact_steps=False)
    calibrate(quantized, [x])
    seen = []
    quantized.second.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    quantized(x)
    top = float(seen[0].detach().clamp(min=0).max())
    assert quantized.second.input_quantizer.step * 255 == pytest.approx(top, rel=1e-5)


def test_calibration_needs_no_gradient_and_keeps_the_mode():
    quantized = prepared(seeded(Small())).train()
    calibrate(quantized, [randn(8, 3, 6, 6)])
    assert all(child.training for child in quantized.modules())
    assert all(p.grad is None for p in quantized.parameters())


@pytest.mark.parametrize("what", ["weight", "bias"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_parameters_are_refused_naming_the_layer(what, value):
    net = seeded(Small())
    getattr(net.second, what).data.flatten()[0] = value
    quantized = prepared(net)
    with pytest.raises(TrainingError, match=f"'second': its {what} holds NaN or infinite"):
        calibrate(quantized, [randn(8, 3, 6, 6)])
    assert all(
        m.current_pass is None for m in quantized.modules() if isinstance(m, QuantizedLayer)
    )


@pytest.mark.parametrize(
    "batches", [[], [torch.empty(0, 3, 6, 6)], [torch.full((1, 3, 6, 6), torch.nan)]]
)
def test_useless_images_are_refused(batches):
    with pytest.raises(DataError, match="at least one image and finite values"):
        calibrate(prepared(seeded(Small())), batches)


def test_activation_that_overflows_is_refused():
    net = seeded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)))
    net[0].weight.data.fill_(3e38)
    with pytest.raises(DataError, match="Calibration met activations from"):
        calibrate(prepared(net, 8), [10 * randn(4, 3, 6, 6)], bias_correction=False)


def test_network_that_was_not_prepared_is_refused():
    with pytest.raises(ConfigError, match="call `prepare` first"):
        calibrate(seeded(Small()), [randn(2, 3, 6, 6)])


def test_all_black_images_calibrate_to_a_network_that_runs():
    net = seeded(Small())
    quantized = prepared(net, 8)
    calibrate(quantized, [torch.zeros(4, 3, 6, 6)])
    x = torch.zeros(4, 3, 6, 6)
    assert (quantized(x) - net(x)).abs().max() < 0.1


def test_one_image_is_enough_and_a_single_pass_is_left_behind_clean():
    quantized = prepared(seeded(Small()), 8)
    calibrate(quantized, [randn(1, 3, 6, 6)])
    x = randn(2, 3, 6, 6)
    assert torch.equal(copy.deepcopy(quantized)(x), quantized(x))


@pytest.mark.parametrize("field", ["add_bits", "pool_bits"])
@pytest.mark.parametrize("bits", [1, 9])
def test_bits_of_adds_and_pools_are_checked(field, bits):
    with pytest.raises(ConfigError, match=rf"`{field}` must be in \[2, 8\], got {bits}"):
        QuantConfig(**{field: bits})
