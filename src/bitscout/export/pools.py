# SPDX-License-Identifier: Apache-2.0
"""PyTorch's pools, as windows over expressions.

Every function has the signature of the one it stands for, behind the shape of the result, which
PyTorch has computed: it already says how ``ceil_mode`` rounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitscout.export.expressions import Expr, MaxPooled, refuse
from bitscout.export.windows import Windows

__all__ = [
    "Averaged",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "max_pool2d",
    "mean",
]

Shape = tuple[int, ...]
Span = tuple[int, int]
IntArray = npt.NDArray[np.int64]


class Averaged:
    """An average pool of an expression that is still to be summed.

    Attributes:
        source: What is averaged.
        windows: Over which windows.
        divisor: Shape ``()`` or ``(H, W)``.
        shape: Of the result.
    """

    def __init__(self, source: Expr, windows: Windows, divisor: IntArray, shape: Shape) -> None:
        self.source = source
        self.windows = windows
        self.divisor = divisor
        self.shape = shape


def max_pool2d(  # noqa: PLR0913  # PyTorch's own signature
    shape: Shape,
    input: Expr,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Expr:
    """Return the largest of every window."""
    del ceil_mode  # The shape of the result says it.
    if _pair(dilation) != (1, 1) or return_indices:
        refuse("has dilation or returns indices", "Use a plain max pool")
    windows, _ = _windows(input, shape, kernel_size, stride, padding)
    return MaxPooled(shape, input, windows)


def adaptive_max_pool2d(
    shape: Shape,
    input: Expr,
    output_size: object,
    return_indices: bool = False,
) -> Expr:
    """Return the largest of every window, windows made to fit the result."""
    del output_size
    if return_indices:
        refuse("returns indices", "Use a plain max pool")
    return MaxPooled(shape, input, _adaptive(input, shape))


def avg_pool2d(  # noqa: PLR0913  # PyTorch's own signature
    shape: Shape,
    input: Expr,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Averaged:
    """Return the average over windows, zeros around them counted or not."""
    del ceil_mode
    windows, padded_counts = _windows(input, shape, kernel_size, stride, padding)
    counts = padded_counts if count_include_pad else windows.counts
    if divisor_override is not None:
        counts = np.full_like(counts, divisor_override)
    return Averaged(input, windows, _scalar_if_equal(counts), shape)


def adaptive_avg_pool2d(shape: Shape, input: Expr, output_size: object = None) -> Averaged:
    """Return the average over windows that are made to fit the result."""
    del output_size
    windows = _adaptive(input, shape)
    return Averaged(input, windows, _scalar_if_equal(windows.counts), shape)


def mean(
    shape: Shape, input: Expr, dim: object = None, keepdim: bool = False, **kwargs: object
) -> Averaged:
    """Return the average over height and width; other means are refused."""
    del keepdim
    dims = {d % 4 for d in dim} if isinstance(dim, tuple) else set()
    if dims != {2, 3} or len(input.shape) != 3 or kwargs:
        refuse("averages something else than height and width", "Use dim=(2, 3)")
    height, width = input.shape[1:]
    windows = Windows(((0, height),), ((0, width),), (height, width))
    return Averaged(input, windows, np.array(height * width, dtype=np.int64), shape)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _windows(
    source: Expr,
    shape: Shape,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None,
    padding: int | tuple[int, int],
) -> tuple[Windows, IntArray]:
    """Return the windows, and how many pixels each has with the padding counted."""
    if len(source.shape) != 3:
        refuse("does not pool over height and width", "Pool (n, C, H, W)")
    size = source.shape[1], source.shape[2]
    kernel = _pair(kernel_size)
    steps = _pair(stride) if stride else kernel  # None, or an empty tuple from a module
    pads = _pair(padding)
    axes = [
        _spans(edge, count, k, s, p)
        for edge, count, k, s, p in zip(size, shape[1:], kernel, steps, pads, strict=True)
    ]
    (rows, heights), (columns, widths) = axes
    return Windows(rows, columns, size), np.multiply.outer(heights, widths)


def _spans(
    edge: int, count: int, kernel: int, stride: int, padding: int
) -> tuple[tuple[Span, ...], IntArray]:
    starts = [index * stride - padding for index in range(count)]
    # As PyTorch counts: padding belongs to a window, what lies beyond it does not.
    padded = [min(start + kernel, edge + padding) - start for start in starts]
    spans = tuple((max(start, 0), min(start + kernel, edge)) for start in starts)
    return spans, np.array(padded, dtype=np.int64)


def _adaptive(source: Expr, shape: Shape) -> Windows:
    if len(source.shape) != 3:
        refuse("does not pool over height and width", "Pool (n, C, H, W)")
    size = source.shape[1], source.shape[2]
    rows, columns = (
        tuple((i * edge // count, -(-(i + 1) * edge // count)) for i in range(count))
        for edge, count in zip(size, shape[1:], strict=True)
    )
    return Windows(rows, columns, size)


def _scalar_if_equal(counts: IntArray) -> IntArray:
    return counts if (counts != counts.flat[0]).any() else np.array(counts.flat[0])
