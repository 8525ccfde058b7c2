# SPDX-License-Identifier: Apache-2.0
"""Properties every affine quantizer must satisfy, plus agreement with torch's own kernel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.quantization import fake_quantize, fixed_step, integer_range, learned_step
from bitscout.quantization.numerics import straight_through_bounds

settings.register_profile("quantization", deadline=None, derandomize=True)
settings.load_profile("quantization")

bit_widths = st.integers(2, 8)
scales = st.floats(2.0**-10, 2.0**4, width=32).map(torch.tensor)
values = st.one_of(st.floats(-64, 64, width=32), st.sampled_from([0.0, -0.0, 0.5, 1.5, 2.5]))
tensors = st.lists(values, min_size=1, max_size=32).map(torch.tensor)


def quantize(x, scale, bit_width):
    low, high = integer_range(bit_width)
    return fake_quantize(x, scale, torch.tensor(0.0), quant_min=low, quant_max=high)


@given(x=tensors, scale=scales, bit_width=bit_widths)
def test_idempotent(x, scale, bit_width):
    once = quantize(x, scale, bit_width)
    torch.testing.assert_close(quantize(once, scale, bit_width), once, rtol=0, atol=0)


@given(x=tensors, scale=scales, bit_width=bit_widths)
def test_error_is_at_most_half_a_step_inside_the_range(x, scale, bit_width):
    low, high = integer_range(bit_width)
    x = x.clamp(low * scale, high * scale)
    error = (quantize(x, scale, bit_width) - x).abs().max()
    # x / scale, round and * scale each cost at most one float32 ulp of |x| <= 64.
    assert error <= scale / 2 + 3 * 64 * torch.finfo(torch.float32).eps


@given(x=tensors, scale=scales, bit_width=bit_widths)
def test_gradient_is_one_inside_and_zero_where_clamped(x, scale, bit_width):
    low, high = integer_range(bit_width)
    code = torch.round(x / scale)
    x.requires_grad_(True)
    quantize(x, scale, bit_width).sum().backward()
    expected = ((code >= low) & (code <= high)).float()
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=0)


def test_infinities_saturate_and_nan_propagates_without_gradient():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan], requires_grad=True)
    y = quantize(x, torch.tensor(0.5), bit_width=4)
    torch.testing.assert_close(y, torch.tensor([3.5, -4.0, torch.nan]), equal_nan=True)
    y.nansum().backward()
    torch.testing.assert_close(x.grad, torch.zeros(3), rtol=0, atol=0)


@pytest.mark.parametrize("bit_width", [2, 3, 4, 8])
@pytest.mark.parametrize(("signed", "zero_point"), [(True, 0), (True, -2), (False, 3)])
def test_agrees_with_torch_kernel(bit_width, signed, zero_point):
    low, high = integer_range(bit_width, signed=signed)
    scale = 0.125  # A power of two, so x / scale and x * (1 / scale) round identically.
    x = torch.linspace(-40, 40, 4001)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
    actual = fake_quantize(
        x, torch.tensor(scale), torch.tensor(float(zero_point)), quant_min=low, quant_max=high
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("bit_width", [2, 5, 8])
def test_per_channel_agrees_with_torch_kernel(bit_width):
    low, high = integer_range(bit_width, narrow_range=True)
    x = torch.linspace(-4, 4, 600).reshape(3, 200)
    scale = torch.tensor([0.125, 0.5, 2.0**-6])
    zeros = torch.zeros(3, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, low, high)
    actual = fixed_step(x, scale[:, None], quant_min=low, quant_max=high)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(bit_width=1), r"`bit_width` must be in \[2, 16\], got 1\."),
        (dict(bit_width=17), r"got 17\."),
        (dict(bit_width=8, signed=False, narrow_range=True), "needs signed codes"),
    ],
)
def test_invalid_range_is_rejected_with_a_useful_message(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        integer_range(**kwargs)


@pytest.mark.parametrize("bit_width", range(2, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_ranges_have_the_number_of_levels_of_the_specification(bit_width, signed):
    low, high = integer_range(bit_width, signed=signed, narrow_range=signed)
    assert high - low + 1 == (2**bit_width - 1 if signed else 2**bit_width)


@given(x=tensors, scale=scales, bit_width=bit_widths, signed=st.booleans())
def test_fixed_step_equals_fake_quantize_in_value_and_gradient(x, scale, bit_width, signed):
    low, high = integer_range(bit_width, signed=signed, narrow_range=signed)
    # Off the half steps, where the two conventions for the boundary point may differ.
    ratio = (x / scale).double()
    x = x[((ratio - ratio.floor()) - 0.5).abs() > 1e-5]
    bounds = straight_through_bounds(float(scale), low, high)
    ours, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = fixed_step(ours, float(scale), quant_min=low, quant_max=high, bounds=bounds)
    z = fake_quantize(reference, scale, torch.tensor(0.0), quant_min=low, quant_max=high)
    (y * torch.arange(len(x))).sum().backward()
    (z * torch.arange(len(x))).sum().backward()
    torch.testing.assert_close(y, z, rtol=0, atol=0)
    torch.testing.assert_close(ours.grad, reference.grad, rtol=0, atol=0)


def test_fixed_step_without_bounds_passes_every_gradient():
    x = torch.tensor([-9.0, 0.1, 9.0], requires_grad=True)
    fixed_step(x, 0.5, quant_min=-1, quant_max=1, bounds=None).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(3), rtol=0, atol=0)


def test_empty_tensors_pass_through():
    x = torch.empty(0, requires_grad=True)
    fixed_step(x, 0.5, quant_min=-1, quant_max=1).sum().backward()
    assert x.grad.shape == (0,)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-7, 7), (0, 15)])
def test_learned_step_gradient_equals_finite_differences_of_the_surrogate(low, high):
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(5, 40, dtype=torch.float64, generator=generator)
    scale = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)[:, None].requires_grad_()
    weight = torch.randn(5, 40, dtype=torch.float64, generator=generator)
    (weight * learned_step(x, scale, quant_min=low, quant_max=high)).sum().backward()
    code, base, h = (x / scale.detach()).round(), scale.detach(), 1e-6
    # Inside, x_hat(s) = (x / s + offset) * s, with the offset of the base point.
    offset = code - x / base
    inside = (code >= low) & (code <= high)

    def value(s):
        inner = (x / s + offset) * s
        return (weight * torch.where(inside, inner, code.clamp(low, high) * s)).sum(dim=1)

    slope = (value(base + h) - value(base - h)) / (2 * h)
    expected = slope / math.sqrt(40 * high)
    torch.testing.assert_close(scale.grad[:, 0], expected, rtol=1e-6, atol=1e-8)


def test_learned_step_input_gradient_is_clipped_straight_through():
    x = torch.tensor([[-3.0, -0.2, 0.4, 3.0]], requires_grad=True)
    learned_step(x, torch.tensor(1.0), quant_min=-1, quant_max=1).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 1.0, 1.0, 0.0]]), rtol=0, atol=0)


def test_learned_step_equals_the_public_composition():
    # The reference of the LSQ paper's appendix: detach tricks around round and clamp.
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(2), requires_grad=True)
    scale = torch.tensor(0.3, requires_grad=True)
    learned_step(x, scale, quant_min=-3, quant_max=3).square().sum().backward()
    ours = x.grad.clone(), scale.grad.clone()
    x.grad = scale.grad = None
    gradient_scale = 1 / math.sqrt(30 * 3)
    step = scale * gradient_scale + (scale - scale * gradient_scale).detach()
    ratio = (x / step).clamp(-3, 3)
    code = ratio + (ratio.round() - ratio).detach()
    (code * step).square().sum().backward()
    # The composition clips at quant_max, ours half a step further out, where the code changes;
    # both agree off that half step.
    inner = (x.detach() / 0.3).abs() < 3
    outer = (x.detach() / 0.3).abs() > 3.5
    same = inner | outer
    torch.testing.assert_close(ours[0][same], x.grad[same])
    between = ~same
    # Between, the public code has slope quant_max and ours round(v/s) - v/s.
    v = x.detach() / 0.3
    x_hat = v.round().clamp(-3, 3) * 0.3
    difference = (2 * x_hat * (v.round() - v - 3 * v.sign()) * between).sum() * gradient_scale
    torch.testing.assert_close(ours[1], scale.grad + difference)
