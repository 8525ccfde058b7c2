# SPDX-License-Identifier: Apache-2.0
"""Convolutions and matrix products of codes, exact in floating point; channels last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import Conv, Linear

__all__ = ["convolution", "product_type"]

Values = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
EXACT_FLOAT32 = 2**24
EXACT_FLOAT64 = 2**53
# OpenBLAS gives larger products to threads of its own. `Reference` runs in threads already, and
# these would wait for each other: ten times slower on a busy machine.
UNTHREADED_PRODUCTS = 2**18


def product_type(magnitude: FloatArray) -> np.dtype[Any]:
    """Return the fastest type whose arithmetic is exact for sums up to a bound.

    Args:
        magnitude: Bound of every partial sum, by channel.
    """
    largest = magnitude.max(initial=0)
    if largest < EXACT_FLOAT32:
        return np.dtype(np.float32)
    return np.dtype(np.float64 if largest < EXACT_FLOAT64 else np.int64)


def convolution(
    op: Conv | Linear, zero_point: int, magnitude: FloatArray
) -> Callable[[Values], Values]:
    """Return the function from codes to sums.

    Args:
        op: The layer.
        zero_point: Of the codes.
        magnitude: Bound of every partial sum, by output channel.
    """
    sum_type = product_type(magnitude)
    bias = None if op.bias is None else op.bias.astype(sum_type)
    if isinstance(op, Linear):
        return partial(_linear, op.weight.T.astype(sum_type), bias, zero_point)
    padded = partial(_padded, op.pads, zero_point, sum_type)
    out_channels, _, width = op.shape
    if op.weight.shape[1] == 1 and op.groups > 1:
        # Every tap is a row of factors, the channels' repeated along the width.
        taps = np.tile(op.weight[:, 0].transpose(1, 2, 0), (1, 1, width)).astype(sum_type)
        row = None if bias is None else np.tile(bias, width)
        return partial(_depthwise, op, taps, row, padded)
    # (groups, kernel height * kernel width * channels of a group, output channels of a group)
    weight = op.weight.reshape(op.groups, out_channels // op.groups, *op.weight.shape[1:])
    weight = weight.transpose(0, 3, 4, 2, 1).astype(sum_type)
    factors = np.ascontiguousarray(weight.reshape(op.groups, -1, weight.shape[-1]))
    return partial(_grouped, op, factors, bias, padded)


def _linear(weight: Values, bias: Values | None, zero_point: int, codes: Values) -> Values:
    sums: Values = np.subtract(codes, zero_point, dtype=weight.dtype) @ weight
    return _plus(sums, bias)


def _plus(sums: Values, bias: Values | None) -> Values:
    if bias is not None:
        sums += bias
    return sums


def _padded(
    pads: tuple[int, int, int, int], zero_point: int, sum_type: np.dtype[Any], codes: Values
) -> Values:
    """Return ``codes - zero_point`` with zeros around."""
    top, left, bottom, right = pads
    n, height, width, channels = codes.shape
    shape = (n, top + height + bottom, left + width + right, channels)
    result = np.empty(shape, dtype=sum_type)
    result[:, :top] = 0
    result[:, top + height :] = 0
    result[:, top : top + height, :left] = 0
    result[:, top : top + height, left + width :] = 0
    inside = result[:, top : top + height, left : left + width]
    if zero_point:
        np.subtract(codes, zero_point, out=inside, dtype=sum_type)
    else:
        inside[...] = codes
    return result


def _windows(op: Conv, padded: Values) -> list[Values]:
    """Return what every tap of the kernel sees, each ``(n, H_out, W_out, C)``."""
    _, height, width = op.shape
    (stride_h, stride_w), (dilation_h, dilation_w) = op.stride, op.dilation
    kernel_h, kernel_w = op.weight.shape[2:]
    return [
        padded[
            :,
            row * dilation_h : row * dilation_h + (height - 1) * stride_h + 1 : stride_h,
            column * dilation_w : column * dilation_w + (width - 1) * stride_w + 1 : stride_w,
        ]
        for row in range(kernel_h)
        for column in range(kernel_w)
    ]


def _depthwise(
    op: Conv, taps: Values, bias: Values | None, pad: Callable[[Values], Values], codes: Values
) -> Values:
    """Multiply rows, all columns and channels at once, and add them up tap by tap.

    `numpy.einsum` does both in one pass with the sums of a row in the first-level cache: five
    times as fast as products and sums of whole tensors.
    """
    multiplier = op.shape[0] // op.groups
    if multiplier > 1:
        codes = np.repeat(codes, multiplier, axis=-1)
    out_channels, height, width = op.shape
    padded = pad(codes)
    if op.stride[1] == 1:
        sums: Values = np.einsum("nhijx,ijx->nhx", _rows(op, padded, op.weight.shape[3]), taps)
    else:
        # Every column of the kernel sees other pixels, which are put next to each other.
        step, kernel_w = op.stride[1], op.weight.shape[3]
        starts = [index * op.dilation[1] for index in range(kernel_w)]
        columns = [padded[:, :, s : s + (width - 1) * step + 1 : step].copy() for s in starts]
        sums = np.einsum("nhijx,ijx->nhx", _rows(op, columns[0], 1), taps[:, :1])
        for index in range(1, kernel_w):
            part = taps[:, index : index + 1]
            sums += np.einsum("nhijx,ijx->nhx", _rows(op, columns[index], 1), part)
    return _plus(sums, bias).reshape(len(codes), height, width, out_channels)


def _rows(op: Conv, padded: Values, kernel_w: int) -> Values:
    """Return a view of rows by tap, ``(n, H_out, kernel_h, kernel_w, W_out * C)``."""
    channels, height, width = op.shape
    image, row, pixel, item = padded.strides
    return np.lib.stride_tricks.as_strided(
        padded,
        (len(padded), height, op.weight.shape[2], kernel_w, width * channels),
        (image, row * op.stride[0], row * op.dilation[0], pixel * op.dilation[1], item),
        writeable=False,
    )


def _grouped(
    op: Conv, weight: Values, bias: Values | None, pad: Callable[[Values], Values], codes: Values
) -> Values:
    out_channels, height, width = op.shape
    windows = _windows(op, pad(codes))
    n, per_group = len(codes), op.weight.shape[1]
    if len(windows) == 1:
        columns = windows[0][:, :, :, None]
    else:
        columns = np.empty((n, height, width, len(windows), codes.shape[-1]), dtype=weight.dtype)
        for index, window in enumerate(windows):
            columns[:, :, :, index] = window
    if op.groups == 1:
        sums: Values = _product(columns.reshape(n, height * width, -1), weight[0])
    else:
        sums = np.empty((n * height * width, out_channels), dtype=weight.dtype)
        step = out_channels // op.groups
        for group in range(op.groups):
            part = columns[..., group * per_group : (group + 1) * per_group]
            product = _product(part.reshape(n, height * width, -1), weight[group])
            sums[:, group * step : (group + 1) * step] = product
    return _plus(sums, bias).reshape(n, height, width, out_channels)


def _product(columns: Values, weight: Values) -> Values:
    """Return the matrix product, ``(n * pixels, outputs)``, in blocks of pixels."""
    n, pixels, inputs = columns.shape
    limit = max(1, UNTHREADED_PRODUCTS // weight.size)
    block = next(size for size in range(min(limit, pixels), 0, -1) if pixels % size == 0)
    blocks: Values = columns.reshape(n * pixels // block, block, inputs) @ weight
    return blocks.reshape(n * pixels, -1)
