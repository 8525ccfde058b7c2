# SPDX-License-Identifier: Apache-2.0
"""Observers against published optima, brute force and hand cases."""

import pytest
import torch

from bitscout import quantization
from bitscout.errors import ConfigError
from bitscout.quantization import (
    ByWidthActivationObserver,
    ByWidthObserver,
    LayerOutputObserver,
    MaxAbsObserver,
    MinMaxObserver,
    MseActivationObserver,
    MseObserver,
    PercentileObserver,
    PowerOfTwoObserver,
    PowerOfTwoPerTensorObserver,
    integer_range,
)

WEIGHT_OBSERVERS = [
    MaxAbsObserver(),
    MseObserver(),
    LayerOutputObserver(),
    PowerOfTwoObserver(),
    PowerOfTwoPerTensorObserver(),
    ByWidthObserver(MseObserver(), MaxAbsObserver()),
]
ACT_OBSERVERS = [
    MinMaxObserver(),
    PercentileObserver(),
    MseActivationObserver(),
    ByWidthActivationObserver(PercentileObserver(), MinMaxObserver()),
]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments_of(weight):
    return torch.eye(weight.shape[1])[None]


def test_no_observer_is_missing_from_the_suite():
    tested = {type(observer).__name__ for observer in (*WEIGHT_OBSERVERS, *ACT_OBSERVERS)}
    public = {name for name in quantization.__all__ if name.endswith("Observer")}
    assert tested == public - {"WeightObserver", "ActivationObserver"}


@pytest.mark.parametrize("observer", WEIGHT_OBSERVERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("bit_width", range(2, 9))
def test_weight_steps_are_positive_for_ordinary_zero_and_single_valued_rows(observer, bit_width):
    _, quant_max = integer_range(bit_width)
    weight = torch.stack([randn(9), torch.zeros(9), torch.full((9,), -0.3), 1e-30 * randn(9)])
    scales = observer.scales(weight, quant_max, moments_of(weight))
    assert scales.shape == (4,)
    assert (scales > 0).all()
    assert scales.isfinite().all()


PER_CHANNEL = [observer for observer in WEIGHT_OBSERVERS if not observer.is_per_tensor]


@pytest.mark.parametrize("observer", PER_CHANNEL, ids=lambda o: type(o).__name__)
def test_rows_do_not_influence_each_other(observer):
    weight = randn(5, 27)
    together = observer.scales(weight, 3, moments_of(weight))
    alone = [observer.scales(row[None], 3, moments_of(weight)) for row in weight]
    # Sums of 27 squares in another order may differ in the last digits, the argmin does not.
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=0)


@pytest.mark.parametrize("observer", ACT_OBSERVERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("bit_width", range(2, 9))
def test_activation_steps_are_positive_also_for_zeros(observer, bit_width):
    low, high = integer_range(bit_width, signed=False)
    for x in (torch.zeros(2, 3), randn(100).relu(), torch.tensor([2.0])):
        assert observer.scale(x, low, high) > 0


# Specification 5.6: optimal clip and squared error of N(0, 1), narrow range. Matches the 3-, 7-
# and 15-level uniform quantizers of Max (1960).
GAUSSIAN = [
    (2, 1.225, 0.1902),
    (3, 1.950, 0.04686),
    (4, 2.475, 0.01289),
    (5, 2.90, 0.00369),
    (6, 3.27, 0.00107),
    (8, 3.92, 8.8e-5),
]


def gaussian_grid(n=50_001):
    """Quantiles of N(0, 1): the distribution itself, without sampling noise."""
    probability = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.special.ndtri(probability).float()


@pytest.mark.parametrize(("bit_width", "clip", "mse"), GAUSSIAN)
def test_mse_observers_find_the_optimal_gaussian_quantizer_within_two_percent(
    bit_width, clip, mse
):
    # At 8 bits the optimum clips one value in 11,000: the tail needs its points.
    x = gaussian_grid(400_001 if bit_width == 8 else 50_001)
    low, high = integer_range(bit_width, narrow_range=True)
    scale = MseObserver().scales(x[None], high)
    error = (((x / scale).round().clamp(low, high) * scale) - x).square().mean()
    assert float(scale[0]) * high == pytest.approx(clip, rel=0.02)
    assert float(error) == pytest.approx(mse, rel=0.02)
    activation = MseActivationObserver().scale(x, low, high)
    # It looks at 2**16 of the values, so the tail is sampled more coarsely.
    assert activation * high == pytest.approx(clip, rel=0.05 if bit_width == 8 else 0.02)


@pytest.mark.parametrize(("bit_width", "mse"), [(2, 0.864), (3, 0.148), (4, 0.0272)])
def test_clipping_at_four_sigma_costs_what_the_specification_says(bit_width, mse):
    x = gaussian_grid().clamp(-4, 4)
    _, high = integer_range(bit_width)
    x = torch.cat([x, torch.tensor([4.0])])
    scale = MaxAbsObserver().scales(x[None], high)
    error = (((x / scale).round() * scale) - x).square().mean()
    assert float(error) == pytest.approx(mse, rel=0.02)


@pytest.mark.parametrize("bit_width", [2, 3, 4, 8])
def test_mse_is_never_worse_than_max_abs(bit_width):
    weight = randn(16, 9)
    _, high = integer_range(bit_width)

    def error(observer):
        scale = observer.scales(weight, high)[:, None]
        return ((weight / scale).round().clamp(-high, high) * scale - weight).square().sum(1)

    assert (error(MseObserver()) <= error(MaxAbsObserver())).all()


@pytest.mark.parametrize("bit_width", [2, 3, 4])
def test_layer_output_observer_is_never_worse_than_mse_on_the_outputs_themselves(bit_width):
    # Strongly correlated inputs, so that the two criteria differ.
    inputs = randn(200, 3, seed=1) @ randn(3, 12, seed=2) + 0.1 * randn(200, 12, seed=3)
    weight = randn(8, 12)
    _, high = integer_range(bit_width)
    moments = (inputs.T @ inputs / len(inputs))[None]

    def error(observer):
        scale = observer.scales(weight, high, moments)[:, None]
        w_hat = (weight / scale).round().clamp(-high, high) * scale
        return (inputs @ (w_hat - weight).T).square().mean(0)

    ours, theirs = error(LayerOutputObserver()), error(MseObserver())
    # The MSE optimum may lie between two points of our grid of 0.1 %.
    assert (ours <= theirs * 1.01).all()
    assert (ours < 0.9 * theirs).any()


def test_layer_output_observer_with_white_inputs_is_the_mse_observer():
    weight = randn(6, 20)
    white = LayerOutputObserver().scales(weight, 3, moments_of(weight))
    torch.testing.assert_close(white, MseObserver().scales(weight, 3))


def test_layer_output_observer_uses_the_moments_of_its_own_group():
    weight = randn(4, 6)
    moments = torch.stack([torch.eye(6), torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 0]))])
    scales = LayerOutputObserver().scales(weight, 1, moments)
    for group in range(2):
        rows = slice(2 * group, 2 * group + 2)
        alone = LayerOutputObserver().scales(weight[rows], 1, moments[group][None])
        torch.testing.assert_close(scales[rows], alone, rtol=0, atol=0)


def test_layer_output_observer_without_inputs_says_what_it_needs():
    with pytest.raises(ConfigError, match="needs the moments"):
        LayerOutputObserver().scales(randn(2, 3), 7)


def test_power_of_two_steps_are_powers_of_two_near_the_least_squares_fit():
    weight = randn(10, 50)
    scales = PowerOfTwoObserver().scales(weight, 7)
    exponents = scales.log2()
    torch.testing.assert_close(exponents, exponents.round(), rtol=0, atol=0)
    best = MseObserver().scales(weight, 7)
    assert ((scales / best).log2().abs() <= 1).all()


def test_by_width_observer_switches_at_its_threshold():
    narrow, wide = MseObserver(), MaxAbsObserver()
    observer = ByWidthObserver(narrow, wide, threshold=4)
    assert [observer.for_width(bits) for bits in (2, 3, 4, 8)] == [narrow, narrow, wide, wide]
    weight = randn(3, 40)
    torch.testing.assert_close(observer.scales(weight, 3), narrow.scales(weight, 3))
    torch.testing.assert_close(observer.scales(weight, 7), wide.scales(weight, 7))
    with pytest.raises(ConfigError, match=r"`threshold` must be in \[2, 9\], got 1"):
        ByWidthObserver(narrow, wide, threshold=1)


@pytest.mark.parametrize("signed", [True, False])
def test_by_width_activation_observer_switches_at_its_threshold(signed):
    narrow, wide = PercentileObserver(60), MinMaxObserver()
    observer = ByWidthActivationObserver(narrow, wide, threshold=6)
    x = torch.arange(-10.0 if signed else 0.0, 11.0)
    for bits in range(2, 9):
        code_range = integer_range(bits, signed=signed, narrow_range=signed)
        chosen = narrow if bits < 6 else wide
        assert observer.scale(x, *code_range) == chosen.scale(x, *code_range)
    with pytest.raises(ConfigError, match=r"`threshold` must be in \[2, 9\], got 10"):
        ByWidthActivationObserver(narrow, wide, threshold=10)


def test_min_max_looks_at_both_ends():
    assert MinMaxObserver().scale(torch.tensor([-3.0, 1.0]), -7, 7) == pytest.approx(3 / 7)
    assert MinMaxObserver().scale(torch.tensor([0.5, 3.0]), 0, 15) == pytest.approx(3 / 15)


def test_percentile_is_the_rank_it_says():
    x = torch.arange(1.0, 10001.0)
    assert PercentileObserver(99.99).scale(x, 0, 1) == 9999.0
    assert PercentileObserver(90.0).scale(-x, -1, 1) == 9000.0
    assert PercentileObserver(100.0).scale(x, 0, 1) == 10000.0
    assert PercentileObserver(99.0).scale(torch.tensor([2.0]), 0, 1) == 2.0
    with pytest.raises(ConfigError, match=r"`percentile` must be in \(50, 100\], got 3"):
        PercentileObserver(3)


@pytest.mark.parametrize("observer", [MaxAbsObserver(), MseObserver()])
def test_steps_are_equivariant_to_the_sign_and_size_of_a_channel(observer):
    weight = randn(6, 27)
    # Powers of two change no rounding, so equality is exact.
    factor = torch.tensor([-4.0, 0.5, -1.0, 2.0, -0.25, 8.0])
    scaled = observer.scales(weight * factor[:, None], 7)
    torch.testing.assert_close(scaled, observer.scales(weight, 7) * factor.abs(), rtol=0, atol=0)


@pytest.mark.parametrize("bit_width", range(2, 9))
def test_the_per_tensor_power_of_two_is_the_best_of_all_powers_of_two(bit_width):
    _, quant_max = integer_range(bit_width)
    weight = randn(6, 40, seed=bit_width) * 10.0 ** (bit_width - 5)

    def error(step):
        return (
            ((weight / step).round().clamp(-quant_max, quant_max) * step - weight).square().sum()
        )

    scales = PowerOfTwoPerTensorObserver().scales(weight, quant_max)
    assert scales.unique().numel() == 1
    powers = [torch.tensor(2.0**exponent) for exponent in range(-40, 12)]
    best = min(powers, key=error)
    assert scales[0] == best


def test_a_power_of_two_that_clips_nothing_is_kept():
    weight = torch.tensor([[1.75, -0.25], [0.5, 0.0]])
    assert PowerOfTwoPerTensorObserver().scales(weight, 7).tolist() == [0.25, 0.25]
