# SPDX-License-Identifier: Apache-2.0
"""The operations of an integer graph on NumPy arrays, channels last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.fixed_point import apply_rescale
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.windows import Windows

__all__ = ["Kernel", "kernel_of"]

Values = npt.NDArray[Any]
Kernel = Callable[..., Values]


def kernel_of(op: Op, graph: IntegerGraph) -> Kernel:
    """Return the function that makes the tensor of `op` from those it reads."""
    grids = [graph[name].grid for name in op.inputs]
    zeros = [grid.zero_point for grid in grids]
    match op:
        case Conv():
            return partial(_conv, op, zeros[0])
        case Linear():
            return partial(_linear, op, zeros[0])
        case Rescale():
            return partial(_rescale, op, zeros)
        case SumPool():
            return partial(_sum_pool, op.windows, zeros[0])
        case MaxPool():
            return partial(_pool, np.max, op.windows)
        case Relu():
            return partial(np.maximum, zeros[0])
        case Concat():
            return lambda *operands: np.concatenate(operands, axis=-1)
        case Flatten():
            return _flatten
        case Input():
            raise AssertionError(op.name)


def _conv(op: Conv, zero_point: int, codes: Values) -> Values:
    top, left, bottom, right = op.pads
    x = np.pad(codes - zero_point, ((0, 0), (top, bottom), (left, right), (0, 0))).astype(float)
    n = len(x)
    out_channels, out_h, out_w = op.shape
    per_group = op.weight.shape[1]
    result = np.zeros((n, out_h, out_w, out_channels))
    step = out_channels // op.groups
    for group in range(op.groups):
        columns = slice(group * step, (group + 1) * step)
        part = x[..., group * per_group : (group + 1) * per_group]
        for row in range(op.weight.shape[2]):
            for column in range(op.weight.shape[3]):
                r, c = row * op.dilation[0], column * op.dilation[1]
                window = part[:, r : r + (out_h - 1) * op.stride[0] + 1 : op.stride[0],
                              c : c + (out_w - 1) * op.stride[1] + 1 : op.stride[1]]  # fmt: skip
                result[..., columns] += window @ op.weight[columns, :, row, column].T.astype(float)
    return _with_bias(result.astype(np.int64), op)


def _linear(op: Linear, zero_point: int, codes: Values) -> Values:
    result = (codes - zero_point).astype(float) @ op.weight.T.astype(float)
    return _with_bias(result.astype(np.int64), op)


def _with_bias(sums: Values, op: Conv | Linear) -> Values:
    return sums if op.bias is None else sums + op.bias


def _rescale(op: Rescale, zeros: list[int], *operands: Values) -> Values:
    grid = op.grid
    return apply_rescale(
        [x - zero for x, zero in zip(operands, zeros, strict=True)],
        op.multiplier,
        op.shift,
        op.divisor[..., None] if op.divisor.ndim else op.divisor,
        zero_point=grid.zero_point,
        quant_range=(grid.quant_min, grid.quant_max),
    )


def _sum_pool(windows: Windows, zero_point: int, values: Values) -> Values:
    return _pool(np.sum, windows, values - zero_point)


def _pool(reduce: Callable[..., Values], windows: Windows, values: Values) -> Values:
    """Along the rows, then along the columns: both sum and maximum are separable."""
    rows = np.stack([reduce(values[:, a:b], axis=1) for a, b in windows.rows], axis=1)
    return np.stack([reduce(rows[:, :, a:b], axis=2) for a, b in windows.columns], axis=2)


def _flatten(values: Values) -> Values:
    return np.moveaxis(values, -1, 1).reshape(len(values), -1)
