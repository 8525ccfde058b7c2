# SPDX-License-Identifier: Apache-2.0
"""Quantized modules against exact integer arithmetic and against plain autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitscout.core import LayerBits
from bitscout.quantization import (
    LayerOutputObserver,
    MaxAbsObserver,
    QuantAdd,
    QuantAvgPool,
    QuantConfig,
    QuantConv2d,
    QuantLinear,
    fake_quantize,
)

FIXED = QuantConfig(learn_weight_steps=False)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(source):
    for index, parameter in enumerate(source.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=index) / 3)
    return source


def quantize_input(quantizer, x):
    """Codes as int64 from float64 arithmetic."""
    step = quantizer.current_step().detach().double()
    return (x.double() / step).round().clamp(*quantizer.code_range).long(), step


CONVOLUTIONS = [
    dict(in_channels=3, out_channels=6, kernel_size=3),
    dict(in_channels=4, out_channels=4, kernel_size=5, stride=2, padding=2, groups=4),
    dict(in_channels=4, out_channels=6, kernel_size=(1, 3), padding=(0, 1), groups=2),
    dict(in_channels=3, out_channels=5, kernel_size=3, dilation=2, padding=2, bias=False),
    dict(in_channels=3, out_channels=4, kernel_size=(2, 4), padding="same"),
    dict(in_channels=3, out_channels=4, kernel_size=2, padding="valid"),
    dict(in_channels=3, out_channels=4, kernel_size=3, padding=1, padding_mode="reflect"),
    dict(
        in_channels=3, out_channels=4, kernel_size=(3, 5), padding=(1, 2), padding_mode="circular"
    ),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_convolution_equals_integer_arithmetic(arguments, signed, learned):
    source = seeded(nn.Conv2d(**arguments))
    x = randn(5, source.in_channels, 9, 8, seed=7)
    x = x if signed else x.abs()
    config = QuantConfig(learn_weight_steps=learned, learn_act_steps=learned)
    layer = QuantConv2d("conv", source, LayerBits(3, 6), config)
    layer.observe(x)
    assert layer.input_quantizer.is_signed == signed
    codes, _ = quantize_input(layer.input_quantizer, x)
    # torch's own Conv2d on int64 codes, with its own reading of the padding.
    exact = nn.Conv2d(**arguments | {"bias": False}, dtype=torch.float64).requires_grad_(False)
    exact.weight.data.copy_(layer.weight_codes())
    accumulator = exact(codes.double())
    assert torch.equal(accumulator, accumulator.round())
    bias = layer.bias_codes()
    if bias is not None:
        accumulator = accumulator + bias[:, None, None]
    expected = accumulator * layer.bias_steps()[:, None, None]
    # Per product one rounding in float32, at most 75 products, each at most the largest output.
    tolerance = 75 * 2.0**-24 * float(expected.abs().max()) * 4
    assert (layer.quantized(x).double() - expected).abs().max() <= tolerance


@pytest.mark.parametrize("learned", [False, True])
def test_linear_equals_integer_arithmetic(learned):
    x = randn(5, 7, 12, seed=7)
    config = QuantConfig(learn_weight_steps=learned, learn_act_steps=learned)
    layer = QuantLinear("fc", seeded(nn.Linear(12, 4)), LayerBits(4, 5), config)
    layer.observe(x)
    codes, _ = quantize_input(layer.input_quantizer, x)
    accumulator = codes @ layer.weight_codes().long().T + layer.bias_codes()
    expected = accumulator.double() * layer.bias_steps()
    tolerance = 12 * 2.0**-24 * float(expected.abs().max()) * 4
    assert (layer.quantized(x).double() - expected).abs().max() <= tolerance


def test_add_equals_integer_arithmetic():
    a, b = randn(3, 4, 5, 5), randn(3, 4, 5, 5, seed=1).relu()
    module = QuantAdd("add", FIXED)
    module.observe(a, b)
    (codes_a, step_a), (codes_b, step_b) = (
        quantize_input(quantizer, x)
        for quantizer, x in zip(module.input_quantizers(), (a, b), strict=True)
    )
    expected = codes_a * step_a + codes_b * step_b
    torch.testing.assert_close(module(a, b).double(), expected, rtol=2.0**-22, atol=2.0**-22)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(2)])
def test_average_pool_equals_integer_arithmetic(pool):
    x = randn(3, 4, 6, 6).relu()
    module = QuantAvgPool("pool", pool, FIXED)
    module.observe(x)
    codes, step = quantize_input(module.input_quantizer, x)
    expected = pool(codes.double()) * step
    torch.testing.assert_close(module(x).double(), expected, rtol=2.0**-20, atol=2.0**-20)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_fused_convolution_has_the_gradients_of_the_plain_composition(arguments):
    source = seeded(nn.Conv2d(**arguments))
    layer = QuantConv2d("conv", source, LayerBits(4, 3), FIXED)
    x = 2 * randn(5, source.in_channels, 9, 8, seed=7)
    layer.observe(x / 2)  # Half of the range: some inputs are clamped.
    x.requires_grad_()
    y = layer.quantized(x)
    weighting = randn(*y.shape, seed=8)
    inputs = [x, layer.weight] + ([] if layer.bias is None else [layer.bias])
    ours = torch.autograd.grad((y * weighting).sum(), inputs)
    low, high = layer.input_quantizer.code_range
    step = layer.input_quantizer.scale
    x_hat = fake_quantize(x, step, torch.tensor(0.0), quant_min=low, quant_max=high)
    w_hat = layer.weight + (layer.weight_quantizer(layer.weight) - layer.weight).detach()
    plain = nn.Conv2d(**arguments)
    parameters = {"weight": w_hat} | ({} if layer.bias is None else {"bias": layer.bias})
    z = torch.func.functional_call(plain, parameters, (x_hat,))
    theirs = torch.autograd.grad((z * weighting).sum(), inputs)
    assert (ours[0] == 0).any()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_first_layer_needs_no_gradient_of_its_input():
    layer = QuantConv2d("conv", seeded(nn.Conv2d(3, 4, 3)), LayerBits(8, 8), FIXED)
    x = randn(2, 3, 5, 5)
    layer.observe(x)
    layer(x).sum().backward()
    assert layer.weight.grad.abs().max() > 0


def test_single_image_without_batch_dimension_is_accepted():
    layer = QuantConv2d("conv", seeded(nn.Conv2d(3, 4, 3)), LayerBits(8, 8), FIXED)
    x = randn(2, 3, 5, 5)
    layer.observe(x)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_channels_last_stays_and_changes_nothing():
    layer = QuantConv2d("conv", seeded(nn.Conv2d(8, 16, 3)), LayerBits(8, 8), FIXED)
    x = randn(2, 8, 6, 6)
    layer.observe(x)
    last = layer(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, layer(x), rtol=1e-5, atol=1e-5)


def test_dead_channel_and_dead_input_keep_positive_steps_and_their_bias():
    source = seeded(nn.Conv2d(3, 4, 3))
    source.weight.data[1] = 0
    source.weight.data[2] *= 1e-20
    layer = QuantConv2d("conv", source, LayerBits(4, 8), FIXED)
    for x in (randn(2, 3, 5, 5), torch.zeros(2, 3, 5, 5)):
        layer.observe(x)
        assert (layer.weight_quantizer.scale > 0).all()
        assert layer.input_quantizer.step > 0
        y = layer(x)
        assert y.isfinite().all()
        half_a_step = layer.bias_steps().max() / 2
        assert (y[:, 1:3] - source.bias[1:3, None, None]).abs().max() <= half_a_step * 1.001


def test_bias_of_nearly_dead_channel_stays_inside_int32():
    source = seeded(nn.Conv2d(3, 2, 3))
    source.weight.data[0] *= 1e-10  # Folding a batch norm with a weight near 0.
    source.bias.data[0] = 5.0
    layer = QuantConv2d("conv", source, LayerBits(8, 8), FIXED)
    x = randn(2, 3, 5, 5)
    layer.observe(x)
    assert layer.bias_codes().abs().max() <= 2**29 * (1 + 2**-20)  # float32 steps
    torch.testing.assert_close(layer.quantized_bias()[0], torch.tensor(5.0))


def test_bias_gradient_passes_its_grid():
    layer = QuantLinear("fc", seeded(nn.Linear(4, 3)), LayerBits(2, 2), FIXED)
    layer.observe(randn(5, 4))
    layer(randn(5, 4)).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 5.0))


def test_learned_weight_step_that_crosses_zero_still_gives_a_positive_one():
    config = QuantConfig(learn_weight_steps=True)
    layer = QuantLinear("fc", seeded(nn.Linear(4, 3)), LayerBits(4, 8), config)
    x = randn(5, 4)
    layer.observe(x)
    before = layer(x)
    layer.weight_quantizer.scale.data.neg_()
    torch.testing.assert_close(layer(x), before)
    layer.weight_quantizer.scale.data.zero_()
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_convolution_moments_are_those_of_its_patches(groups, padding):
    source = seeded(nn.Conv2d(4, 8, 3, padding=padding, groups=groups, bias=False))
    config = QuantConfig(weight_observer=LayerOutputObserver())
    layer = QuantConv2d("conv", source, LayerBits(4, 8), config)
    x = randn(3, 4, 6, 6)
    moments = layer.moments(x)
    # The mean squared output of a row w is w G w^T, whatever w.
    rows = source.weight.flatten(1).unflatten(0, (groups, -1))
    expected = ((rows @ moments) * rows).sum(2).flatten()
    actual = layer._convolve(layer._pad(x), source.weight, None).square().mean((0, 2, 3))
    torch.testing.assert_close(expected, actual, rtol=1e-4, atol=1e-5)


def test_linear_moments_are_those_of_its_inputs():
    layer = QuantLinear("fc", seeded(nn.Linear(6, 4, bias=False)), LayerBits(4, 8), FIXED)
    x = randn(50, 6)
    moments = layer.moments(x)
    expected = F.linear(x, layer.weight).square().mean(0)
    torch.testing.assert_close(
        ((layer.weight @ moments[0]) * layer.weight).sum(1), expected, rtol=1e-4, atol=1e-5
    )


def test_weight_codes_times_steps_are_the_fake_quantized_weight():
    layer = QuantConv2d(
        "conv",
        seeded(nn.Conv2d(3, 4, 3)),
        LayerBits(3, 8),
        QuantConfig(weight_observer=MaxAbsObserver()),
    )
    layer.observe(randn(2, 3, 5, 5))
    steps = layer.weight_quantizer.steps()[:, None, None, None]
    torch.testing.assert_close(
        layer.weight_codes() * steps, layer.weight_quantizer(layer.weight), rtol=0, atol=0
    )
    assert layer.weight_codes().abs().amax() == 3
