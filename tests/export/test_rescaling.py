"""The fast rescaling where floating point would not be enough."""

from dataclasses import replace

import numpy as np
import pytest

from bitscout.export.fixed_point import INT32_MAX, apply_rescale
from bitscout.export.graph import Grid, Rescale
from bitscout.export.rescaling import rescaling

SHIFT = 31


def next_to_ties(multiplier, offset):
    """An operand below 2**31 whose product lies `offset` / 2**31 beside a half."""
    return pow(multiplier, -1, 2**SHIFT) * (2 ** (SHIFT - 1) + offset) % 2**SHIFT


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("divisor", [1, 3])
def test_products_beyond_what_float64_holds_are_rounded_exactly(offset, divisor):
    multipliers = np.arange(2**30 + 1, 2**30 + 401, 2)
    operand = np.array([[next_to_ties(int(m), offset) for m in multipliers]])
    op = Rescale(
        "rescale",
        ("x",),
        (len(multipliers),),
        Grid.sums(np.array(1.0)),
        multipliers[None],
        np.full(len(multipliers), SHIFT),
        np.array(divisor),
    )
    bound = [np.full(len(multipliers), 2.0**SHIFT)]
    result = rescaling(op, [0], bound, np.dtype(np.float64))(operand.astype(np.float64))
    expected = apply_rescale(
        [operand],
        op.multiplier,
        op.shift,
        op.divisor,
        zero_point=0,
        quant_range=(-INT32_MAX, INT32_MAX),
    )
    np.testing.assert_array_equal(result, expected)


def simple_rescale(factors, divisor=1, bits=3):
    """Multipliers of few bits: `factors` times 2**26, divided by 2**(26 + bits)."""
    return Rescale(
        "rescale",
        ("x",) * len(factors),
        (1,),
        Grid.sums(np.array(1.0)),
        np.array([[factor << 26] for factor in factors]),
        np.array([26 + bits]),
        np.array(divisor),
    )


@pytest.mark.parametrize("factors", [(1,), (3,), (17,), (31,), (1, 31), (16, 3), (3, 16)])
@pytest.mark.parametrize("beyond", [0.99, 1.01, 4, 1000])
@pytest.mark.parametrize(("divisor", "bits"), [(1, 3), (3, 0), (49, 3)])
def test_multipliers_of_few_bits_are_exact_on_both_sides_of_what_float32_holds(
    factors, beyond, divisor, bits
):
    op, n_operands = simple_rescale(factors, divisor, bits), len(factors)
    # All products together at the limit, ties and their neighbours among them.
    largest = min(int(2**24 * beyond / sum(factors)), INT32_MAX)
    operands = [np.arange(largest - 4000, largest + 1)[:, None]] * n_operands
    bounds = [np.array([float(largest)])] * n_operands
    storage = np.dtype(np.float64)
    result = rescaling(op, [0] * n_operands, bounds, storage)(*map(as_sums, operands))
    expected = apply_rescale(
        operands,
        op.multiplier,
        op.shift,
        op.divisor,
        zero_point=0,
        quant_range=(-INT32_MAX, INT32_MAX),
    )
    np.testing.assert_array_equal(result, expected)


def as_sums(operand):
    """In the type that sums of this size travel in."""
    return operand.astype(np.float32 if np.abs(operand).max() < 2**24 else np.float64)


def test_zero_points_count_towards_what_float32_holds():
    # The codes alone would fit, but the product with the zero point is what is added.
    op = simple_rescale((31,))
    zero, codes = -(2**22) + 1, np.arange(2**19 - 4000, 2**19)[:, None]
    bound = [np.array([2.0**19 + 2**22])]
    result = rescaling(op, [zero], bound, np.dtype(np.float64))(codes.astype(np.float32))
    expected = apply_rescale(
        [codes - zero],
        op.multiplier,
        op.shift,
        op.divisor,
        zero_point=0,
        quant_range=(-INT32_MAX, INT32_MAX),
    )
    np.testing.assert_array_equal(result, expected)


def test_the_zero_point_is_added_to_results_beyond_16_bits():
    grid = Grid(np.array(1.0), 8, -127, 127, 3)
    op = replace(simple_rescale((1,), bits=1), grid=grid)
    operand = np.array([[-(2**20)], [-7], [-1], [0], [1], [3], [2**20]], dtype=np.float32)
    result = rescaling(op, [0], [np.array([2.0**20])], np.dtype(np.int8))(operand)
    assert result.reshape(-1).tolist() == [-127, -1, 3, 3, 3, 5, 127]
