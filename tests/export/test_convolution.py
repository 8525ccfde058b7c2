"""Convolutions of codes against PyTorch's in int64, where the other tests do not look."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.export.graphs import GraphBuilder
from torch.nn import functional as F

from bitscout.export import convolution as convolution_module
from bitscout.export.convolution import convolution, product_type
from bitscout.export.graph import Conv


def conv(channels, out_channels, groups, **changes):
    """A 3x2 kernel over 9x11 pixels with the attributes that are given."""
    b = GraphBuilder(0)
    op = b.ops[b.conv(b.input((channels, 9, 11)), out_channels, (3, 2), groups=groups)]
    op = replace(op, **{"pads": (1, 0, 2, 1), **changes})
    extents = [d * (k - 1) + 1 for d, k in zip(op.dilation, (3, 2), strict=True)]
    edges = [9 + op.pads[0] + op.pads[2], 11 + op.pads[1] + op.pads[3]]
    size = [(e - x) // s + 1 for e, x, s in zip(edges, extents, op.stride, strict=True)]
    return replace(op, shape=(out_channels, *size))


def assert_agrees_with_torch(op: Conv, zero_point=3):
    channels = op.weight.shape[1] * op.groups
    codes = np.random.default_rng(1).integers(0, 256, (5, channels, 9, 11))
    run = convolution(op, zero_point, np.array([1.0]))
    sums = run(np.moveaxis(codes, 1, -1).astype(np.uint8))
    top, left, bottom, right = op.pads
    expected = F.conv2d(
        F.pad(torch.from_numpy(codes - zero_point), (left, right, top, bottom)),
        torch.from_numpy(op.weight.astype(np.int64)),
        torch.from_numpy(op.bias),
        op.stride,
        dilation=op.dilation,
        groups=op.groups,
    )
    np.testing.assert_array_equal(np.moveaxis(sums, -1, 1), expected)


GROUPS = {"dense": (4, 6, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4), "twice": (4, 8, 4)}


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2), (2, 1)])
def test_stride_and_dilation_differ_by_axis(groups, stride, dilation):
    assert_agrees_with_torch(conv(*GROUPS[groups], stride=stride, dilation=dilation))


@pytest.mark.parametrize("limit", [1, 100, 200, 1000, 2**18])
@pytest.mark.parametrize("groups", ["dense", "grouped"])
def test_blocks_of_any_number_of_pixels_give_the_same(limit, groups, monkeypatch):
    monkeypatch.setattr(convolution_module, "UNTHREADED_PRODUCTS", limit)
    assert_agrees_with_torch(conv(*GROUPS[groups]))


def test_the_type_is_the_narrowest_that_is_exact():
    limits = (2**24 - 1, 2**24, 2**53 - 1, 2**53)
    types = [product_type(np.array([0.0, float(limit)])).name for limit in limits]
    assert types == ["float32", "float64", "float64", "int64"]
