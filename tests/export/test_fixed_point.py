"""Multipliers, shifts and rounding against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ExportError
from bitscout.export.fixed_point import (
    INT32_MAX,
    MAX_SHIFT,
    apply_rescale,
    fixed_point,
    half_even_divide,
)

SPECIAL_RATIOS = (1.0, 0.5, 2.0**-32, 2.0**-31, 1 - 2.0**-53, 1 + 2.0**-52, 2.0**30 - 0.5, 1e-300)
ratios = st.one_of(
    st.floats(2.0**-60, 2.0**29), st.floats(1e-3, 1.0), st.sampled_from(SPECIAL_RATIOS)
)


@given(ratios)
def test_the_multiplier_has_31_bits_and_the_ratio_is_kept_to_half_of_its_last(ratio):
    multiplier, shift = fixed_point(np.array([[ratio]]))
    m, s = int(multiplier[0, 0]), int(shift[0])
    assert 0 <= s <= MAX_SHIFT
    assert s == MAX_SHIFT or 2**30 <= m < 2**31
    assert m < 2**31
    assert abs(Fraction(ratio) - Fraction(m, 2**s)) <= Fraction(1, 2 ** (s + 1))


@given(st.lists(st.tuples(ratios, ratios, ratios), min_size=1, max_size=5))
def test_operands_share_the_shift_that_suits_the_largest_factor_of_the_channel(factors):
    table = np.array(factors).T
    multiplier, shift = fixed_point(table)
    assert multiplier.shape == table.shape
    assert shift.shape == (len(factors),)
    for channel in range(len(factors)):
        largest = int(multiplier[:, channel].max())
        assert shift[channel] == MAX_SHIFT or 2**30 <= largest < 2**31
        for ratio, m in zip(table[:, channel], multiplier[:, channel].tolist(), strict=True):
            s = int(shift[channel])
            assert abs(Fraction(float(ratio)) - Fraction(m, 2**s)) <= Fraction(1, 2 ** (s + 1))


@pytest.mark.parametrize("exponent", range(-40, 30))
def test_powers_of_two_are_exact(exponent):
    multiplier, shift = fixed_point(np.array([[2.0**exponent]]))
    assert Fraction(int(multiplier[0, 0]), 2 ** int(shift[0])) == Fraction(2) ** exponent


def test_a_ratio_that_rounds_up_to_32_bits_takes_a_smaller_shift():
    multiplier, shift = fixed_point(np.array([[1 - 2.0**-40]]))
    assert (multiplier.item(), shift.item()) == (2**30, 30)


@pytest.mark.parametrize("ratio", [2.0**-33, 2.0**-34, 2.0**-50, 2.0**-62, 1e-20, 1e-300, 5e-324])
def test_a_tiny_ratio_makes_zero_of_every_int32(ratio):
    multiplier, shift = fixed_point(np.array([[ratio]]))
    extremes = np.array([-INT32_MAX, INT32_MAX])
    result = apply_rescale(
        [extremes], multiplier, shift, np.array(1), zero_point=0, quant_range=(-9, 9)
    )
    assert result.tolist() == [0, 0]


@given(
    st.one_of(ratios, st.floats(2.0**-40, 2.0**-25)),
    st.one_of(st.integers(1, 2**31 - 1), st.integers(1, 64)),
)
def test_a_divisor_lowers_the_largest_shift_where_every_result_is_zero(ratio, divisor):
    multiplier, shift = fixed_point(np.array([[ratio]]), divisor)
    m, s = int(multiplier[0, 0]), int(shift[0])
    assert divisor << s < 2**63
    full, most = (int(x.item()) for x in fixed_point(np.array([[ratio]])))
    if s == most:
        assert m == full
        return
    for factor, power in ((m, s), (full, most)):
        assert round(Fraction(INT32_MAX * factor, divisor << power)) == 0


@pytest.mark.parametrize("bad", [0.0, -0.5, np.nan, np.inf, -np.inf, 2.0**30])
def test_ratios_that_no_integer_can_stand_for_are_refused(bad):
    with pytest.raises(ExportError, match=r"positive, finite and below 2\*\*30"):
        fixed_point(np.array([[0.5, bad], [0.5, 0.25]]))


@given(
    st.one_of(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(-20, 20)),
    st.one_of(
        st.integers(1, 2**63 - 1), st.integers(1, 20), st.sampled_from((2**61, 2**62, 2**63 - 1))
    ),
)
def test_division_rounds_half_to_even(numerator, denominator):
    expected = round(Fraction(numerator, denominator))
    assert half_even_divide(np.array([numerator]), denominator).tolist() == [expected]


@given(st.integers(0, 60), st.integers(-100, 100), st.sampled_from((-1, 0, 1)))
def test_division_at_and_next_to_ties(power, odd, offset):
    numerator = (2 * odd + 1) * 2**power + offset
    numerator = max(min(numerator, 2**62 - 1), -(2**62) + 1)
    expected = round(Fraction(numerator, 2 ** (power + 1)))
    assert half_even_divide(np.array([numerator]), 2 ** (power + 1)).tolist() == [expected]


# Operands as they come: a convolution's sums, a residual addition, an average pool.
CASES = [
    # (seed, number of operands, largest operand, divisor, zero point, range, power of two)
    (0, 1, 2**24, 1, 0, (0, 255), True),
    (1, 1, 2**31 - 1, 1, -3, (-127, 127), True),
    (2, 2, 255, 1, 3, (-127, 127), True),
    (3, 3, 127, 1, 0, (-7, 7), True),
    (4, 1, 255 * 49, 49, 0, (0, 255), True),
    (5, 2, 2**20, 6, 5, (0, 15), False),
    (6, 1, 2**22, 1, 0, (-INT32_MAX, INT32_MAX), False),
]
VALUES_EACH = 150_000


def test_a_million_values_agree_with_rational_arithmetic_and_many_are_ties():
    counts = [check_case(*case) for case in CASES]
    ties, odd_ties, values = np.sum(counts, axis=0).tolist()
    assert values >= 1_000_000
    # Half of the ties go up and half go down, so neither rounding up nor down would pass.
    assert ties > 50_000
    assert 0.3 * ties < odd_ties < 0.7 * ties


def check_case(seed, n_operands, largest, divisor, zero_point, quant_range, power_of_two):
    """Compare `VALUES_EACH` results; return ties, ties that round up in magnitude, and values."""
    rng = np.random.default_rng(seed)
    channels = 100
    operands = rng.integers(-largest, largest + 1, (n_operands, VALUES_EACH // channels, channels))
    # So that results fall into the range, and about as many quarters as results are possible.
    middle = (quant_range[1] - quant_range[0]) * divisor / 3 / (n_operands * largest)
    factors = rng.uniform(middle / 4, middle, (n_operands, channels))
    if power_of_two:
        factors = np.exp2(np.round(np.log2(np.minimum(factors, 0.5))))
        # Sums that are multiples of a quarter of the result's step: many lie on a half.
        quarter = np.maximum(np.round(0.25 / factors[:, None]), 1).astype(np.int64)
        operands = operands // quarter * quarter
    multiplier, shift = fixed_point(factors)
    result = apply_rescale(
        list(operands),
        multiplier,
        shift,
        np.array(divisor),
        zero_point=zero_point,
        quant_range=quant_range,
    )
    totals = sum(x.astype(object) * m.astype(object) for x, m in
                 zip(operands, multiplier, strict=True))  # fmt: skip
    denominators = np.array([int(divisor) << int(s) for s in shift], dtype=object)
    low, high = quant_range
    ties = up = 0
    for channel, denominator in enumerate(denominators):
        numerators = totals[:, channel].tolist()
        for numerator, actual in zip(numerators, result[:, channel].tolist(), strict=True):
            expected = round(Fraction(numerator, denominator))
            assert actual == min(max(expected + zero_point, low), high)
            if 2 * numerator % (2 * denominator) == denominator:
                ties += 1
                up += expected * denominator > numerator
    return ties, up, result.size


def test_parity_is_of_the_quotient_before_the_zero_point_is_added():
    half = fixed_point(np.array([[0.5]]))
    for zero_point in (0, 1):
        result = apply_rescale(
            [np.array([-3, -1, 1, 3, 5])],
            *half,
            np.array(1),
            zero_point=zero_point,
            quant_range=(-9, 9),
        )
        assert (result - zero_point).tolist() == [-2, 0, 0, 2, 2]


def test_the_divisor_takes_part_in_the_only_rounding():
    # 9 / 2 / 3 is 1.5 and goes to 2; 9 / 2 rounded to 4 first, 4 / 3 would go to 1.
    result = apply_rescale(
        [np.array([3, 9, 15])],
        *fixed_point(np.array([[0.5]])),
        np.array(3),
        zero_point=0,
        quant_range=(-9, 9),
    )
    assert result.tolist() == [0, 2, 2]


def test_results_are_clamped_to_the_range():
    result = apply_rescale(
        [np.array([-100, 0, 100])],
        *fixed_point(np.array([[1.0]])),
        np.array(1),
        zero_point=2,
        quant_range=(-3, 5),
    )
    assert result.tolist() == [-3, 2, 5]
