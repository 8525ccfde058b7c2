# SPDX-License-Identifier: Apache-2.0
"""The operations of an integer graph on NumPy arrays: exact, channels last, fast.

Integers travel in the narrowest type that is proven to hold them and every partial sum: codes in
int8 or uint8, sums in float32 below 2**24, else in float64 below 2**53, else in int64. Inside
these limits floating-point arithmetic is integer arithmetic, whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.convolution import convolution, product_type
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.rescaling import rescaling
from bitscout.export.windows import Windows

__all__ = ["Kernel", "kernel_of", "storage_type"]

Values = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Kernel = Callable[..., Values]


def storage_type(grid: Grid, magnitude: FloatArray) -> np.dtype[Any]:
    """Return the type that a tensor travels in.

    Args:
        grid: Of the tensor.
        magnitude: Bound of its values, by channel.
    """
    if grid.is_sums:
        return product_type(magnitude)
    return np.dtype(np.int8 if grid.is_signed else np.uint8)


def kernel_of(op: Op, graph: IntegerGraph, magnitudes: Mapping[str, FloatArray]) -> Kernel:
    """Return the function that makes the tensor of `op` from those it reads, channels last.

    Args:
        op: Any operation but an input.
        graph: It is part of.
        magnitudes: Bounds of all tensors, by channel.
    """
    sources = [graph[name] for name in op.inputs]
    zeros = [source.grid.zero_point for source in sources]
    match op:
        case Conv() | Linear():
            return convolution(op, zeros[0], magnitudes[op.name])
        case Rescale():
            bounds = [magnitudes[source.name] + abs(source.grid.zero_point) for source in sources]
            return rescaling(op, zeros, bounds, storage_type(op.grid, magnitudes[op.name]))
        case SumPool():
            sum_type = product_type(magnitudes[op.name])
            return partial(_sum_pool, op.windows, zeros[0], sum_type)
        case MaxPool():
            return partial(_pool, np.maximum, op.windows)
        case Relu():
            return partial(_relu, zeros[0])
        case Concat():
            return _concat
        case PadChannels():
            after = op.shape[0] - op.before - sources[0].shape[0]
            return partial(_pad_channels, (op.before, after), zeros[0])
        case Flatten():
            return _flatten
        case Input():
            raise AssertionError(op.name)


def _relu(zero_point: int, values: Values) -> Values:
    result: Values = np.maximum(values, values.dtype.type(zero_point))
    return result


def _sum_pool(
    windows: Windows, zero_point: int, sum_type: np.dtype[Any], values: Values
) -> Values:
    return _pool(np.add, windows, np.subtract(values, zero_point, dtype=sum_type))


def _pool(reduce: np.ufunc, windows: Windows, values: Values) -> Values:
    """Along the rows, then along the columns: both sum and maximum are separable."""
    n, height, width, channels = values.shape
    if windows.is_global:
        pooled: Values = reduce.reduce(values.reshape(n, height * width, channels), axis=1)
        return pooled[:, None, None]
    shape = (n, len(windows.rows), width, channels)
    rows = np.empty(shape, dtype=values.dtype)
    for index, (start, stop) in enumerate(windows.rows):
        reduce.reduce(values[:, start:stop], axis=1, out=rows[:, index])
    result = np.empty((n, *windows.output_size, channels), dtype=values.dtype)
    for index, (start, stop) in enumerate(windows.columns):
        reduce.reduce(rows[:, :, start:stop], axis=2, out=result[:, :, index])
    return result


def _concat(*operands: Values) -> Values:
    return np.concatenate(operands, axis=-1)


def _pad_channels(counts: tuple[int, int], zero_point: int, values: Values) -> Values:
    widths = [(0, 0)] * (values.ndim - 1) + [counts]
    return np.pad(values, widths, constant_values=zero_point)


def _flatten(values: Values) -> Values:
    return np.moveaxis(values, -1, 1).reshape(len(values), -1)
