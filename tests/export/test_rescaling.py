"""The fast rescaling where floating point would not be enough."""

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
