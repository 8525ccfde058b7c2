# SPDX-License-Identifier: Apache-2.0
"""Computed weights, norms without a layer in front, shared layers: as layers of their own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bitscout.core import QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.quantization import (
    QuantConv2d,
    QuantizedLayer,
    calibrate,
    layer_names,
    layer_sites,
    post_training_quantize,
    prepare,
)
from bitscout.quantization.convert import convert


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def quantized(net, x, bits=8):
    return post_training_quantize(net, QuantPolicy.uniform(layer_names(net, x), bits), x)


class Masked(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("kept", (randn(*self.weight.shape, seed=7) > 0).float())

    def forward(self, x):
        weight = self.weight * self.kept
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)


class SamePadded(nn.Conv2d):
    """As TensorFlow pads: one pixel more behind than in front."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        y = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps
        )
        return F.relu(y)


class ConvAndActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return F.relu(F.conv2d(x, self.weight, self.bias, padding=1))


def standardized(weight):
    return (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, standardized(self.weight), self.bias)


def old_weight_norm():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv2d(3, 4, 3))


LAYERS = {
    "masked": lambda: Masked(3, 4, 3, 2, 1),
    "same padding": lambda: SamePadded(3, 4, 2, 2),
    "with an activation": ConvAndActivation,
    "standardized": lambda: Standardized(3, 4, 3),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
    "old weight norm": old_weight_norm,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
    "norm of its own": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), NormAndActivation(4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_computed_weights_become_weights(name):
    net = seeded(nn.Sequential(LAYERS[name](), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)))
    x = randn(8, 3, 8, 8)
    real = net(x)
    converted = convert(net, x)
    torch.testing.assert_close(converted.root(x), real, rtol=1e-5, atol=1e-5)
    result = quantized(net, x)
    # Two quantizers, each with an error of some 0.3 % of its range, which is 3 deviations wide.
    assert (result(x) - real).norm() < 0.03 * real.norm()
    names = {m.name for m in result.modules() if isinstance(m, QuantizedLayer)}
    assert {*layer_names(net, x)} <= names


def test_zeros_of_a_mask_stay_zeros_through_fine_tuning():
    net, x = seeded(nn.Sequential(Masked(3, 4, 3), nn.BatchNorm2d(4))), randn(8, 3, 8, 8)
    is_zero = net[0].kept == 0
    result = quantized(net, x, 4).train()
    optimizer = torch.optim.Adam(result.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        result(x).square().mean().backward()
        optimizer.step()
    codes = result[0].weight_codes()
    assert (codes[is_zero] == 0).all()
    assert (codes[~is_zero] != 0).float().mean() > 0.5
    assert (result[0].weight[~is_zero] != net[0].weight[~is_zero]).all()


@pytest.mark.parametrize("kind", [nn.Conv2d, SamePadded])
def test_zeros_of_a_plain_weight_may_grow(kind):
    net, x = seeded(nn.Sequential(kind(3, 4, 3))), randn(8, 3, 8, 8)
    net[0].weight.data[:, 0] = 0
    layers = [m for m in quantized(net, x).modules() if isinstance(m, QuantizedLayer)]
    assert [layer.mask for layer in layers] == [None]


class Generated(nn.Module):
    """A bias that a function makes of parameters alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.code, self.weight = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(4, 2))

    def forward(self, x):
        return self.conv(x) + F.linear(self.code, self.weight)[:, None, None]


def test_a_function_of_parameters_alone_is_no_layer():
    assert [*layer_sites(seeded(Generated()), randn(2, 3, 4, 4))] == ["conv"]


class Late(nn.Module):
    """A norm in every place where no layer in front can absorb it."""

    def __init__(self):
        super().__init__()
        self.first, self.after_cat, self.after_add = (nn.BatchNorm2d(c) for c in (3, 7, 4))
        self.conv, self.fuse = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 4, 1)
        self.after_pool, self.vector = nn.BatchNorm2d(4, affine=False), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        x = self.first(x)
        y = self.conv(x)
        z = self.fuse(F.relu(self.after_cat(torch.cat([x, y], 1))))
        z = F.relu(self.after_add(z + y))
        z = self.after_pool(F.avg_pool2d(z, 2)).mean((2, 3))
        return self.head(self.vector(z))


def test_norms_that_no_layer_absorbs_are_exact_in_floating_point_and_close_in_eight_bits():
    net, x = seeded(Late()), randn(32, 3, 6, 6)
    real, converted = net(x), convert(net, x)
    torch.testing.assert_close(converted.root(x), real, rtol=1e-5, atol=1e-5)
    assert set(converted.scales) == {"first", "after_cat", "after_add", "after_pool"}
    assert isinstance(converted.root.vector, nn.Identity)  # Folded into the head.
    result = quantized(net, x)
    assert result.after_cat.weight_quantizer.bit_width == 8
    assert isinstance(result.after_cat, QuantConv2d)
    assert (result(x) - real).abs().max() < 0.06 * real.abs().max()


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.conv(self.act(self.conv(10 * x)) - 1)


def test_a_layer_that_runs_twice_has_steps_for_all_of_its_uses():
    net, x = seeded(Reused()), randn(8, 3, 6, 6)
    assert layer_sites(net, x)["conv"].uses == 2
    result = prepare(net, QuantPolicy.uniform(["conv"], 8), x)
    calibrate(result, [x])
    quantizer = result.conv.input_quantizer
    assert quantizer.is_signed
    reach = quantizer.step * quantizer.code_range[1]
    largest = max((10 * x).abs().max(), (F.relu(net.conv(10 * x)) - 1).abs().max())
    # A power of two for the step: at most a factor of two away from what is needed.
    assert largest / 2 < reach < 2 * largest
    assert (result(x) - net(x)).abs().max() < 0.05 * net(x).abs().max()


def test_a_rectifier_in_front_of_one_of_two_uses_is_not_merged():
    class Rectified(Reused):
        def forward(self, x):
            return self.conv(self.act(self.conv(x)))

    net, x = seeded(Rectified()), randn(8, 3, 6, 6)
    result = quantized(net, x)
    assert isinstance(result.act, nn.ReLU)
    assert (result(x) - net(x)).abs().max() < 0.05 * net(x).abs().max()


def test_layers_that_share_a_parameter_are_trained_apart():
    net = seeded(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)))
    net[2].weight = net[0].weight
    result = quantized(net, randn(8, 3, 4, 4))
    result[0].weight.data.zero_()
    assert result[2].weight.abs().min() > 0


class Depending(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight * x.mean())


class TwoFunctions(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight) + F.conv2d(x, self.weight + 1)


class NoFunction(nn.Conv2d):
    def forward(self, x):
        return torch.einsum("nchw,dc->ndhw", x, self.weight[:, :, 0, 0])


class Transposed(nn.Conv2d):
    def forward(self, x):
        return F.conv_transpose2d(x, self.weight)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Depending, r"Module '0' \(Depending, .*:\d+\) .*depends on the network's input. Use"),
        (TwoFunctions, r"Module '0' \(TwoFunctions, .*:\d+\) calls 2 convolution .* Give each"),
        (NoFunction, "'0' is a NoFunction whose forward calls neither conv2d nor linear.*Use"),
        (Transposed, r"Module '0' \(Transposed, .*:\d+\) calls conv_transpose2d.*upsampling"),
    ],
)
def test_what_is_no_layer_is_refused_with_place_and_remedy(kind, message):
    net, x = seeded(nn.Sequential(kind(3, 3, 1))), randn(2, 3, 4, 4)
    site = layer_sites(net, x)["0"]
    with pytest.raises(UnsupportedError, match=message) as caught:
        prepare(net, QuantPolicy({}), x)
    assert str(caught.value) == site.reason
    assert not site.stays_real
