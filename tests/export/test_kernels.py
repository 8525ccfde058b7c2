"""Operations by themselves, where whole networks do not tell right from wrong."""

import numpy as np
import pytest
from tests.export.graphs import GraphBuilder

from bitscout.export.fixed_point import INT32_MAX, apply_rescale
from bitscout.export.graph import Conv, Grid, Input, IntegerGraph, Rescale
from bitscout.export.kernels import storage_type
from bitscout.export.reference import Reference


def test_codes_are_rectified_at_their_zero_point():
    b = GraphBuilder(0)
    graph = b.build(b.relu(b.input((1, 1, 5), signed=True, zero_point=3)), one_step=False)
    codes = {"image": np.array([[[[-9, 0, 2, 3, 8]]]])}
    assert Reference(graph).run_codes(codes).reshape(-1).tolist() == [3, 3, 3, 3, 8]


def test_sums_are_rescaled_by_what_they_can_be_and_not_what_they_mostly_are():
    channels = 600
    image = Input("image", (channels, 3, 3), Grid(np.array(1.0), 8, 0, 255))
    weight = np.full((1, channels, 3, 3), 127, dtype=np.int8)
    conv = Conv("conv", ("image",), (1, 1, 1), Grid.sums(np.array([1.0])), weight, 8,
                np.ones(1), None)  # fmt: skip
    # Three quarters of the sums: float32 would hold the sums' product only below 2**24.
    half = Rescale("half", ("conv",), (1, 1, 1), Grid.sums(np.array(4 / 3)),
                   np.array([[3 << 29]]), np.array([31]))  # fmt: skip
    codes = np.full((8, channels, 3, 3), 255)
    codes[:, 0, 0, 0] = np.arange(8)
    result = Reference(IntegerGraph((image, conv, half), "half")).run_codes({"image": codes})
    sums = 127 * codes.sum(axis=(1, 2, 3))
    assert sums.min() > 2**27
    expected = apply_rescale(
        [sums[:, None]],
        half.multiplier,
        half.shift,
        half.divisor,
        zero_point=0,
        quant_range=(-INT32_MAX, INT32_MAX),
    )
    np.testing.assert_array_equal(result.reshape(-1, 1), expected)


@pytest.mark.parametrize(
    ("grid", "largest", "expected"),
    [
        (Grid(np.array(1.0), 8, 0, 255), 255, "uint8"),
        (Grid(np.array(1.0), 8, -128, 127), 128, "int8"),
        (Grid.sums(np.array(1.0)), 2**24 - 1, "float32"),
        (Grid.sums(np.array(1.0)), 2**24, "float64"),
    ],
)
def test_tensors_travel_in_the_narrowest_type(grid, largest, expected):
    assert storage_type(grid, np.array([float(largest)])) == expected
