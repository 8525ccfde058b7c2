# SPDX-License-Identifier: Apache-2.0
"""Exact steps: bounds by hand, rounding to few bits, and float32 against float64 bit for bit."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.quantization import (
    Add,
    LayerOutputObserver,
    PowerOfTwoObserver,
    QuantAvgPool,
    QuantConfig,
    QuantConv2d,
    QuantizedLayer,
    QuantLinear,
    layer_names,
    post_training_quantize,
)
from bitscout.quantization.exact_steps import (
    largest_bias_code,
    mantissa_bits,
    nearest_steps,
    snap_act_step,
    snap_weight_steps,
    steps_at_least,
)
from bitscout.quantization.observers import weight_error

n_bits = st.integers(0, 8)
steps = st.lists(st.floats(2.0**-30, 2.0**10, width=32), min_size=1, max_size=8).map(torch.tensor)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def has_bits(scales, n):
    """Whether every step is an integer below 2**(n+1) times a power of two."""
    mantissa, _ = torch.frexp(scales)
    return bool((mantissa * 2 ** (n + 1) == (mantissa * 2 ** (n + 1)).round()).all())


@pytest.mark.parametrize(
    ("fan_in", "weight_max", "act_max", "expected"),
    [
        # The largest m of n bits behind the leading one is 2**(n+1) - 1, and the bias takes a
        # quarter of the sums at least: 1.25 K q_w q_x <= 2**24 / 63, 31, 15, 7, 3, 1.
        (9, 1, 3, 8),
        (6, 127, 255, 5),  # 242,887 <= 266,305
        (7, 127, 255, 4),
        (13, 127, 255, 4),  # 526,256 <= 541,200
        (14, 127, 255, 3),  # 566,737
        (27, 127, 255, 3),  # 1,092,993 <= 1,118,481: the first layer of an RGB network
        (28, 127, 255, 2),  # 1,133,475
        (59, 127, 255, 2),  # 2,388,393 <= 2,396,745
        (60, 127, 255, 1),  # 2,428,875
        (138, 127, 255, 1),  # 5,586,412 <= 5,592,405
        (139, 127, 255, 0),
        (100_000, 127, 255, 0),  # Proved by nothing but the weights.
    ],
)
def test_mantissa_bits_by_hand(fan_in, weight_max, act_max, expected):
    assert mantissa_bits(fan_in, weight_max, act_max) == expected


@given(fan_in=st.integers(1, 414), weight_bits=st.integers(2, 8), act_bits=st.integers(2, 8))
def test_sums_and_bias_together_fit_in_24_bits(fan_in, weight_bits, act_bits):
    weight_max, act_max = 2 ** (weight_bits - 1) - 1, 2**act_bits - 1
    m = 2 ** (mantissa_bits(fan_in, weight_max, act_max) + 1) - 1
    bias = largest_bias_code(fan_in, weight_max, act_max)
    sums = fan_in * weight_max * act_max
    assert (sums + bias) * m <= 2**24
    assert (sums + bias + 1) * m > 2**24
    assert bias >= sums // 4


def test_layers_too_large_for_a_proof_keep_a_fifth_for_the_bias():
    assert largest_bias_code(4096, 127, 255) == 2**24 // 5


@given(scales=steps, n=n_bits)
def test_smallest_step_above_is_one_of_few_bits_and_none_lies_between(scales, n):
    above = steps_at_least(scales, n)
    assert has_bits(above, n)
    assert (above >= scales).all()
    assert (above.double() < scales.double() * (1 + 2.0**-n)).all()
    assert torch.equal(steps_at_least(above, n), above)


@given(n=n_bits, seed=st.integers(0, 50), with_moments=st.booleans())
def test_weight_step_is_the_neighbour_with_the_smaller_error(n, seed, with_moments):
    rows = randn(6, 9, seed=seed)
    patches = randn(50, 9, seed=seed + 1).abs() + 1
    moments = (patches.T @ patches)[None] if with_moments else None
    scales = rows.abs().amax(dim=1) / 7
    snapped = snap_weight_steps(rows, scales, 7, n, moments)
    assert has_bits(snapped, n)
    neighbours = [
        torch.tensor([_next(float(s), n, side) for s in scales])
        for side in (math.floor, math.ceil)
    ]
    errors = [weight_error(rows, s, 7, moments) for s in neighbours]
    assert ((snapped == neighbours[0]) | (snapped == neighbours[1])).all()
    assert torch.equal(weight_error(rows, snapped, 7, moments), torch.minimum(*errors))
    assert torch.equal(snap_weight_steps(rows, snapped, 7, n, moments), snapped)


def _next(step, n, side):
    unit = 2.0 ** (math.floor(math.log2(step)) - n)
    return side(step / unit) * unit


@pytest.mark.parametrize("scale", [0.011, 0.02, 1.0, 3.7])
@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_activation_step_is_the_better_power_of_two(scale, spread):
    x = randn(4000).abs() * spread * 255 * scale / 4
    lower, upper = 2.0 ** math.floor(math.log2(scale)), 2.0 ** math.ceil(math.log2(scale))
    errors = [
        float(((x / s).round().clamp(0, 255) * s - x).double().square().sum())
        for s in (lower, upper)
    ]
    better = lower if errors[0] < errors[1] else upper
    assert snap_act_step(x, scale, 0, 255) == better
    assert snap_act_step(x, better, 0, 255) == better


def test_activation_step_depends_on_all_of_a_large_tensor():
    x = torch.zeros(2**20)
    x[2**19 :] = 100.0  # Codes up to 127 of step 1, which step 0.5 would clip.
    assert snap_act_step(x, 0.8, 0, 127) == 1.0


def test_powers_of_two_stay_what_they_are():
    rows = randn(8, 20)
    scales = PowerOfTwoObserver().scales(rows, 7)
    assert torch.equal(snap_weight_steps(rows, scales, 7, 3), scales)


class Everything(nn.Module):
    """Strided, depthwise and pointwise convolutions, a residual, both pools, a linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.add = Add()
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.mixer = nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False)
        self.tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten())
        self.head = nn.Linear(72, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(self.add(x, self.body(x)))
        return self.head(self.tail(self.mixer(x)))


def make_quantized(seed=0, config=None, weight_bits=None, act_bits=None):
    rng = torch.Generator().manual_seed(seed)
    net = Everything().eval()
    for parameter in net.parameters():
        parameter.data.copy_(
            torch.randn(parameter.shape, generator=rng) / parameter[0].numel() ** 0.5
        )
    drawn = torch.randint(2, 9, (20, 2), generator=rng).tolist()
    policy = {
        name: LayerBits(weight_bits or w, act_bits or a)
        for name, (w, a) in zip(layer_names(net), drawn, strict=False)
    }
    images = 2 * torch.randn(24, 3, 19, 19, generator=rng)
    quantized = post_training_quantize(net, QuantPolicy(policy), images, config)
    return quantized, images


def exact_copy(quantized):
    """The same network on float64: every operation has 29 bits to spare."""
    copy = deepcopy(quantized).double()
    for module in copy.modules():
        if isinstance(module, QuantizedLayer):
            # Fake-quantized before the change of type, which a step of its own may not survive.
            source = quantized.get_submodule(module.name)
            module.weight.data = source.weight_quantizer(source.weight).detach().double()
    return copy


def captured_inputs(net, images):
    """What every quantized module reads, and the output."""
    found = {}
    kinds = (QuantConv2d, QuantLinear, QuantAvgPool)
    handles = [
        module.register_forward_pre_hook(
            lambda _m, inputs, name=name: found.__setitem__(name, inputs[0].detach())
        )
        for name, module in net.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        found["output"] = net(images)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("seed", range(6))
def test_float32_gives_the_codes_of_float64(seed):
    quantized, images = make_quantized(seed)
    single = captured_inputs(quantized, images)
    double = captured_inputs(exact_copy(quantized), images.double())
    for name, values in single.items():
        if name in ("mixer", "head"):  # Behind average pools, so rounded: the codes count.
            quantizer = quantized.get_submodule(name).input_quantizer
            step, low, high = quantizer.grid()
            codes = [(v.double() / step).round().clamp(low, high) for v in (values, double[name])]
            assert torch.equal(*codes), name
        else:
            assert torch.equal(values.double(), double[name]), name
    assert len(single["output"].unique()) > 20


@pytest.mark.parametrize("bits", range(2, 9))
def test_float32_is_exact_at_every_width(bits):
    quantized, images = make_quantized(bits, weight_bits=bits, act_bits=bits)
    single = captured_inputs(quantized, images)["output"]
    double = captured_inputs(exact_copy(quantized), images.double())["output"]
    assert torch.equal(single.double(), double)


def test_free_steps_are_not_exact():
    config = QuantConfig(exact_steps=False)
    quantized, images = make_quantized(0, config, weight_bits=8, act_bits=8)
    single = captured_inputs(quantized, images)["output"]
    double = captured_inputs(exact_copy(quantized), images.double())["output"]
    assert not torch.equal(single.double(), double)


@pytest.mark.parametrize("kernel", [2, 3, 5, 6, 7, (3, 5), (7, 6), 8, 12])
@pytest.mark.parametrize("is_adaptive", [False, True])
@pytest.mark.parametrize("ratio", [-2, -1, 0, 1, 3])
def test_averages_round_to_the_code_of_the_fraction(kernel, is_adaptive, ratio):
    """All sums up to 2**11, ties among them, read on coarser and on finer grids."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    count = height * width
    sums = torch.arange(min(255 * count, 2048))
    x = torch.zeros(len(sums), count)
    for row, total in zip(x, sums.tolist(), strict=True):
        row[: total // 255] = 255
        row[total // 255] = total % 255
    x = (x.reshape(-1, 1, height, width) * 2.0**-5).expand(-1, 16, -1, -1)
    pool = nn.AdaptiveAvgPool2d(1) if is_adaptive else nn.AvgPool2d((height, width))
    codes = (pool(x) / 2.0 ** (-5 - ratio)).round().long()
    # Half to even, in integers: sums 2**ratio / count.
    numerator, denominator = sums * 2 ** max(ratio, 0), count * 2 ** max(-ratio, 0)
    twice = 2 * numerator + denominator
    expected = twice // (2 * denominator)
    is_tie = (twice % (2 * denominator) == 0) & (expected % 2 == 1)
    assert torch.equal(codes, (expected - is_tie.long())[:, None, None, None].expand_as(codes))


def test_steps_of_a_calibrated_network_are_of_the_promised_kind():
    quantized, _ = make_quantized()
    for module in quantized.modules():
        if isinstance(module, QuantizedLayer):
            quantizer = module.weight_quantizer
            fan_in = module.weight[0].numel()
            act_max = 2**module.input_quantizer.bit_width - 1
            n = mantissa_bits(fan_in, quantizer.quant_max, act_max)
            assert quantizer.mantissa_bits == n
            assert has_bits(quantizer.scale, n)
            assert module.max_bias_code == largest_bias_code(fan_in, quantizer.quant_max, act_max)
            assert math.log2(module.input_quantizer.step).is_integer()


@pytest.mark.parametrize("n_bits", [0, 3, 8])
def test_learned_steps_are_rounded_to_few_bits_and_get_the_whole_gradient(n_bits):
    steps = torch.tensor([0.3, 1.0, 5.7e-3, 2.0**-40], requires_grad=True)
    rounded = nearest_steps(steps, n_bits)
    assert has_bits(rounded.detach(), n_bits)
    assert ((rounded / steps).detach() - 1).abs().max() <= 2.0 ** -(n_bits + 1) / (1 - 2.0**-2)
    rounded.sum().backward()
    torch.testing.assert_close(steps.grad, (rounded / steps).detach(), rtol=1e-6, atol=0)


def test_a_network_with_learned_steps_is_exact_after_training_too():
    config = QuantConfig(learn_weight_steps=True, learn_act_steps=True)
    quantized, images = make_quantized(0, config)
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        quantized(images).square().mean().backward()
        optimizer.step()
    for module in quantized.modules():
        if isinstance(module, QuantizedLayer):
            assert has_bits(module.weight_quantizer.steps().detach(), 8)
            assert has_bits(module.input_quantizer.current_step().detach(), 0)
    with torch.no_grad():
        expected = quantized(images)
        actual = deepcopy(quantized).double()(images.double())
    assert torch.equal(actual, expected.double())


def test_raised_steps_have_few_bits_and_hold_twice_the_bias():
    quantized, _ = make_quantized(weight_bits=8, act_bits=8)
    layer = quantized.mixer if quantized.mixer.bias is not None else quantized.head
    before = layer.weight_quantizer.scale.clone()
    layer.bias.data[1] = 1e4 * layer.max_bias_code * float(layer.bias_steps()[1])
    assert layer.fit_bias()
    after = layer.weight_quantizer.scale
    assert has_bits(after, layer.weight_quantizer.mantissa_bits)
    others = [0, 2, 3, 4]
    assert torch.equal(after[others], before[others])
    codes = layer.bias_codes().abs()
    assert layer.max_bias_code / 2 / 2 < codes[1] <= layer.max_bias_code / 2
    assert not layer.fit_bias()


@pytest.mark.parametrize("sign", [-1, 1])
def test_bias_that_outgrows_its_range_in_training_is_cut(sign):
    quantized, images = make_quantized(weight_bits=4, act_bits=8)
    layer = quantized.head
    layer.bias.data[0] = sign * 3 * layer.max_bias_code * float(layer.bias_steps()[0])
    assert layer.bias_codes()[0] == sign * layer.max_bias_code
    real = layer.quantized_bias().double()
    assert torch.equal(real, layer.bias_codes() * layer.bias_steps())
    single = captured_inputs(quantized, images)["output"]
    double = captured_inputs(exact_copy(quantized), images.double())["output"]
    assert torch.equal(single.double(), double)


def test_channel_of_zeros_and_layer_of_zeros_are_exact():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Flatten()).eval()
    net[0].weight.data[1] = 0.0
    net[2].weight.data.zero_()
    net[2].bias.data.copy_(torch.tensor([1.0 / 3, 0.0]))
    x = randn(4, 2, 3, 3)
    policy = QuantPolicy.uniform(layer_names(net), 4)
    quantized = post_training_quantize(net, policy, x)
    for layer in (quantized[0], quantized[2]):
        assert has_bits(layer.weight_quantizer.scale, layer.weight_quantizer.mantissa_bits)
    y = quantized(x).detach()
    assert torch.equal(y, y[:1].expand_as(y))
    assert abs(float(y[0, 0]) - 1.0 / 3) <= float(quantized[2].bias_steps()[0]) / 2
    assert y[0, 1] == 0.0


def test_layer_output_decides_where_it_is_known():
    """The first input alone is ever on: the error of its weight is the output's."""
    rows = torch.tensor([[1.0, 0.62, 0.62, 0.62, 0.62]])
    moments = torch.zeros(1, 5, 5)
    moments[0, 0, 0] = 1.0
    scales = torch.tensor([1.0 - 2.0**-12])
    by_output = snap_weight_steps(rows, scales, 1, 1, moments)
    by_weights = snap_weight_steps(rows, scales, 1, 1)
    assert (by_output.item(), by_weights.item()) == (1.0, 0.75)
    assert LayerOutputObserver().needs_inputs
