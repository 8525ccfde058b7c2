# SPDX-License-Identifier: Apache-2.0
"""SAME padding against its definition, and inverted residuals against plain functions."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitscout.errors import ConfigError
from bitscout.networks import ConvBnAct, InvertedResidual, same_padding
from bitscout.space import UnitSpec

KERNELS = (1, 2, 3, 4, 5, 6, 7)
STRIDES = (1, 2, 4)
SIZES = (1, 2, 3, 4, 5, 8, 9, 15, 16, 31, 32)
cases = list(product(SIZES, KERNELS, STRIDES))


def least_padding(size, kernel, stride):
    """Fewest added pixels with which ``ceil(size / stride)`` windows fit, by trying."""
    n_windows = len(range(0, size, stride))
    total = 0
    while len(range(0, size + total - kernel + 1, stride)) < n_windows:
        total += 1
    return total


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_same_padding_is_the_formula_of_tensorflow(kernel, stride):
    for size in SIZES:
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        assert same_padding(size, kernel, stride) == (total // 2, total - total // 2)


@pytest.mark.parametrize(("size", "kernel", "stride"), cases)
def test_same_padding_is_the_least_that_fits_with_the_odd_pixel_after(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert before + after == least_padding(size, kernel, stride)
    assert after - before in (0, 1)


def test_same_padding_of_tensorflow_by_hand():
    # (32, k=3, s=2): 16 windows need 33 pixels, the one extra comes after.
    assert same_padding(32, 3, 2) == (0, 1)
    assert same_padding(32, 2, 1) == (0, 1)
    assert same_padding(32, 6, 1) == (2, 3)
    assert same_padding(31, 4, 2) == (1, 2)
    assert same_padding(32, 2, 4) == (0, 0)


def convolve_by_definition(x, weight, stride):
    """``out[i, j] = sum_ab w[a, b] x[i s + a - top, j s + b - left]``, zero outside."""
    height, width = x.shape
    kernel = len(weight)
    top = least_padding(height, kernel, stride) // 2
    left = least_padding(width, kernel, stride) // 2
    out = torch.zeros(len(range(0, height, stride)), len(range(0, width, stride)))
    for i, j, a, b in product(range(len(out)), range(out.shape[1]), range(kernel), range(kernel)):
        row, column = i * stride + a - top, j * stride + b - left
        if 0 <= row < height and 0 <= column < width:
            out[i, j] += weight[a, b] * x[row, column]
    return out


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (1, 3)])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_conv_is_the_definition_of_a_same_padded_convolution(kernel, stride, size):
    # Small integers, so that float32 sums are exact.
    generator = torch.Generator().manual_seed(0)
    block = ConvBnAct(1, 1, kernel, stride=stride, input_size=size, is_linear=True)
    with torch.no_grad():
        block.conv.weight.copy_(torch.randint(-4, 5, block.conv.weight.shape, generator=generator))
    x = torch.randint(-4, 5, size, generator=generator).float()
    padded = block.pad(x[None, None]) if "pad" in dict(block.named_children()) else x[None, None]
    expected = convolve_by_definition(x, block.conv.weight[0, 0].detach(), stride)
    torch.testing.assert_close(block.conv(padded)[0, 0], expected, rtol=0, atol=0)


def test_padding_is_a_module_only_where_it_is_lopsided():
    odd = ConvBnAct(2, 2, 5, input_size=(8, 8))
    even = ConvBnAct(2, 2, 4, input_size=(8, 8))
    assert [name for name, _ in odd.named_children()] == ["conv", "norm", "act"]
    assert odd.conv.padding == (2, 2)
    assert [name for name, _ in even.named_children()] == ["pad", "conv", "norm", "act"]
    # nn.ZeroPad2d takes left, right, top, bottom.
    assert even.pad.padding == (1, 2, 1, 2)
    lopsided_height = ConvBnAct(2, 2, 3, stride=2, input_size=(8, 9))
    assert lopsided_height.pad.padding == (1, 1, 0, 1)


def test_linear_block_ends_in_the_batch_norm():
    assert [type(m) for m in ConvBnAct(2, 2, input_size=(1, 1), is_linear=True)] == [
        nn.Conv2d,
        nn.BatchNorm2d,
    ]


def inverted_residual(**changes):
    fields = {
        "name": "block2.0",
        "in_channels": 4,
        "hidden_channels": 8,
        "out_channels": 4,
        "kernel": 3,
        "stride": 1,
        "input_size": (6, 6),
        "output_size": (6, 6),
        "has_expand": True,
    }
    return InvertedResidual(UnitSpec(**(fields | changes))).eval()


@pytest.mark.parametrize(
    ("changes", "is_residual"),
    [
        ({}, True),
        ({"out_channels": 5}, False),
        ({"stride": 2, "output_size": (3, 3)}, False),
        ({"has_expand": False, "hidden_channels": 4}, True),
    ],
)
def test_inverted_residual_is_expand_depthwise_project_and_the_input(changes, is_residual):
    block = inverted_residual(**changes)
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = x
    if changes.get("has_expand", True):
        y = F.relu6(block.expand.norm(F.conv2d(y, block.expand.conv.weight)))
    stride, groups = changes.get("stride", 1), y.shape[1]
    padded = F.pad(y, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
    y = F.conv2d(padded, block.depthwise.conv.weight, stride=stride, groups=groups)
    y = F.relu6(block.depthwise.norm(y))
    y = block.project.norm(F.conv2d(y, block.project.conv.weight))
    torch.testing.assert_close(block(x), x + y if is_residual else y)


def test_a_stride_needs_the_size_of_the_image():
    with pytest.raises(ConfigError, match="stride 2 depends on the image: give `input_size`"):
        ConvBnAct(2, 2, 3, stride=2)
