# SPDX-License-Identifier: Apache-2.0
"""Batch norms that come back for a training of the quantized network."""

import pytest
import torch
from torch import nn

from bitscout.core import QuantPolicy
from bitscout.quantization import (
    PowerOfTwoPerTensorObserver,
    QuantConfig,
    QuantizedLayer,
    fold_norms,
    layer_names,
    post_training_quantize,
    revive_norms,
)

FREE = QuantConfig(exact_steps=False, learn_weight_steps=True)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def normed(*layers, seed=1):
    """A network whose batch norms have seen other data than the default's."""
    net = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.5, generator=generator)
                part.running_var.uniform_(0.1, 3, generator=generator)
                part.weight.uniform_(-2, 2, generator=generator)
                part.bias.normal_(generator=generator)
            elif isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.normal_(0, 0.3, generator=generator)
    return net.eval()


def quantized(net, x, bits=3, config=FREE):
    return post_training_quantize(net, QuantPolicy.uniform(layer_names(net), bits), x, config)


def conv_net():
    return normed(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6))


def layers_of(module):
    return [part for part in module.modules() if isinstance(part, QuantizedLayer)]


@pytest.mark.parametrize("config", [FREE, QuantConfig(), QuantConfig(learn_weight_steps=True)])
@pytest.mark.parametrize("bits", [2, 8])
def test_nothing_changes_in_evaluation_mode(config, bits):
    x = randn(16, 2, 7, 7)
    net = quantized(conv_net(), x, bits, config)
    before = net(x)
    assert revive_norms(net, x) == 1
    # One multiplication and one addition per value are rounded in another order.
    torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [FREE, QuantConfig(), QuantConfig(learn_weight_steps=True)])
def test_codes_and_outputs_survive_reviving_and_folding(config):
    x = randn(16, 2, 7, 7)
    net = quantized(conv_net(), x, 3, config)
    before, codes = net(x), layers_of(net)[0].weight_codes()
    revive_norms(net, x)
    assert torch.equal(layers_of(net)[0].weight_codes(), codes)
    fold_norms(net)
    assert layers_of(net)[0].norm is None
    assert torch.equal(layers_of(net)[0].weight_codes(), codes)
    torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_folding_computes_what_the_trained_norm_did(sign):
    x = randn(16, 2, 7, 7)
    net = quantized(conv_net(), x)
    revive_norms(net, x)
    (layer,) = layers_of(net)
    net.train()
    net(randn(64, 2, 7, 7, seed=2) * 3 + 1)  # Moves the statistics.
    with torch.no_grad():
        layer.norm.weight.copy_(sign * randn(6, seed=3).abs() - 0.1)
        layer.norm.bias.copy_(randn(6, seed=4))
        layer.weight_quantizer.scale[0] *= -1  # Learned steps may cross zero.
    net.eval()
    wanted = net(x)
    fold_norms(net)
    # The bias is rounded to its grid, by half a step at most.
    allowed = layer.bias_steps().reshape(-1, 1, 1) / 2 + 1e-5 * wanted.abs() + 1e-6
    assert ((net(x) - wanted).abs() <= allowed).all()


def test_no_code_changes_however_the_steps_are_rounded():
    x = randn(16, 2, 7, 7)
    net = quantized(conv_net(), x, 2, QuantConfig(learn_weight_steps=True))
    revive_norms(net, x)
    (layer,) = layers_of(net)
    with torch.no_grad():
        # As trained ones are: next to where the code changes.
        halves = layer.weight_quantizer.steps().reshape(-1, 1, 1, 1) / 2
        layer.weight.copy_(halves * torch.where(randn(*layer.weight.shape) > 0, 1.001, -0.999))
        layer.norm.weight.copy_(randn(6, seed=3))
    codes = layer.weight_codes() * layer.norm.weight.sign().reshape(-1, 1, 1, 1)
    fold_norms(net)
    assert torch.equal(layer.weight_codes(), codes.to(torch.int8))


def test_folded_steps_have_few_mantissa_bits_where_steps_are_exact():
    x = randn(16, 2, 7, 7)
    net = quantized(conv_net(), x, 3, QuantConfig())
    revive_norms(net, x)
    (layer,) = layers_of(net)
    net.train()
    net(x * 1.7)
    fold_norms(net)
    n_bits = layer.weight_quantizer.mantissa_bits
    mantissa = torch.frexp(layer.weight_quantizer.scale).mantissa * 2 ** (n_bits + 1)
    assert torch.equal(mantissa, mantissa.round())


def test_the_first_statistics_are_those_of_the_layer():
    x = randn(64, 2, 7, 7)
    net = quantized(conv_net(), x)
    revive_norms(net, x)
    (layer,) = layers_of(net)
    mean, variance = layer.norm.running_mean.clone(), layer.norm.running_var.clone()
    layer.norm.momentum = 1.0
    net.train()(x)
    torch.testing.assert_close(layer.norm.running_mean, mean, rtol=1e-5, atol=1e-5)
    # PyTorch divides by n - 1 there, n = 64 * 25.
    torch.testing.assert_close(layer.norm.running_var * (1599 / 1600), variance)


def test_training_mode_normalizes_with_the_batch():
    x = randn(64, 2, 7, 7)
    net = quantized(conv_net(), x)
    revive_norms(net, x)
    (layer,) = layers_of(net)
    net.train()
    y = net(5 * randn(64, 2, 7, 7, seed=5) + 2)
    torch.testing.assert_close(y.mean((0, 2, 3)), layer.norm.bias, rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std((0, 2, 3)), layer.norm.weight.abs(), rtol=1e-3, atol=1e-3)


def test_revived_weights_have_the_size_of_fresh_ones():
    x = randn(16, 2, 7, 7)
    source = conv_net()
    with torch.no_grad():
        source[0].weight.mul_(torch.logspace(-3, 3, 6).reshape(-1, 1, 1, 1))
    net = quantized(source, x)
    revive_norms(net, x)
    size = layers_of(net)[0].weight.flatten(1).square().mean(1).sqrt()
    # To the nearest power of two: a factor of the root of two either way.
    assert ((size / (2 / 18) ** 0.5).log2().abs() <= 0.5 + 1e-6).all()


def test_a_channel_of_zeros_stays_finite():
    x = randn(16, 2, 7, 7)
    source = conv_net()
    with torch.no_grad():
        source[0].weight[2] = 0
    net = quantized(source, x)
    before = net(x)
    revive_norms(net, x)
    net.train()
    assert net(x).isfinite().all()
    fold_norms(net.eval())
    torch.testing.assert_close(net(x)[:, 2], before[:, 2])


def test_linear_layers_have_norms_too():
    x = randn(32, 5)
    net = quantized(normed(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), x)
    before = net(x)
    assert revive_norms(net, x) == 1  # Nothing was folded into the second.
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)


class Twice(nn.Module):
    """Runs a convolution twice, each time with a batch norm of its own behind it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.first, self.second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


@pytest.mark.parametrize(
    ("net", "config"),
    [
        (normed(nn.Conv2d(2, 6, 3)), FREE),
        (conv_net(), QuantConfig(weight_observer=PowerOfTwoPerTensorObserver())),
        (Twice().eval(), FREE),
    ],
    ids=["no batch norm", "one step for all channels", "runs twice"],
)
def test_other_layers_are_left_alone(net, config):
    x = randn(8, 2, 7, 7)
    net = quantized(net, x, 4, config)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert revive_norms(net, x) == 0
    fold_norms(net)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
