# SPDX-License-Identifier: Apache-2.0
"""PyTorch's functions outside of quantized modules, as expressions.

A handler has the signature of the function it stands for, with expressions for tensors. It is
told the shape of the result, which PyTorch has computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError
from bitscout.export.expressions import Clamped, Expr, Flat, Joined, MaxPooled, Padded
from bitscout.export.windows import Windows

__all__ = ["HANDLERS", "Averaged", "average_windows"]

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


Handler = Callable[..., Expr | Averaged]


def _relu(shape: Shape, input: Expr, inplace: bool = False) -> Expr:
    del inplace
    return Clamped(shape, input, 0.0, math.inf)


def _relu6(shape: Shape, input: Expr, inplace: bool = False) -> Expr:
    del inplace
    return Clamped(shape, input, 0.0, 6.0)


def _hardtanh(
    shape: Shape, input: Expr, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Expr:
    del inplace
    return Clamped(shape, input, float(min_val), float(max_val))


def _clamp(shape: Shape, input: Expr, min: float | None = None, max: float | None = None) -> Expr:
    low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
    return Clamped(shape, input, low, high)


def _max_pool2d(  # noqa: PLR0913  # PyTorch's own signature
    shape: Shape,
    input: Expr,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Expr:
    del ceil_mode  # The shape of the result says it.
    if _pair(dilation) != (1, 1) or return_indices:
        _refuse("has dilation or returns indices", "Use a plain max pool")
    windows, _ = _windows(input, shape, kernel_size, stride, padding)
    return MaxPooled(shape, input, windows)


def _adaptive_max_pool2d(
    shape: Shape,
    input: Expr,
    output_size: object,
    return_indices: bool = False,
) -> Expr:
    del output_size
    if return_indices:
        _refuse("returns indices", "Use a plain max pool")
    return MaxPooled(shape, input, _adaptive(input, shape))


def average_windows(  # noqa: PLR0913  # PyTorch's own signature
    shape: Shape,
    input: Expr,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Averaged:
    """Return an average pool: the signature of `torch.nn.functional.avg_pool2d`."""
    del ceil_mode
    windows, padded_counts = _windows(input, shape, kernel_size, stride, padding)
    counts = padded_counts if count_include_pad else windows.counts
    if divisor_override is not None:
        counts = np.full_like(counts, divisor_override)
    return Averaged(input, windows, _scalar_if_equal(counts), shape)


def _adaptive_avg_pool2d(shape: Shape, input: Expr, output_size: object = None) -> Averaged:
    del output_size
    windows = _adaptive(input, shape)
    return Averaged(input, windows, _scalar_if_equal(windows.counts), shape)


def _mean(
    shape: Shape, input: Expr, dim: object = None, keepdim: bool = False, **kwargs: object
) -> Averaged:
    del keepdim
    dims = {d % 4 for d in dim} if isinstance(dim, tuple) else set()
    if dims != {2, 3} or len(input.shape) != 3 or kwargs:
        _refuse("averages something else than height and width", "Use dim=(2, 3)")
    height, width = input.shape[1:]
    windows = Windows(((0, height),), ((0, width),), (height, width))
    return Averaged(input, windows, np.array(height * width, dtype=np.int64), shape)


def _reshape(shape: Shape, input: Expr, *args: object, **kwargs: object) -> Expr:
    del args, kwargs  # The shape of the result says all.
    if shape == input.shape:
        return input
    if len(shape) != 1 or shape[0] != math.prod(input.shape):
        _refuse(f"reshapes {input.shape} to {shape}", "Flatten to (n, features)")
    return Flat(shape, input)


def _cat(shape: Shape, tensors: tuple[Expr, ...], dim: int = 0, axis: int | None = None) -> Expr:
    dim = dim if axis is None else axis
    if dim not in (1, -len(shape)) or not all(hasattr(t, "shape") for t in tensors):
        _refuse("joins something else than channels", "Use dim=1")
    return tensors[0] if len(tensors) == 1 else Joined(shape, tuple(tensors))


def _pad(
    shape: Shape,
    input: Expr,
    pad: tuple[int, ...],
    mode: str = "constant",
    value: float | None = None,
) -> Expr:
    if mode != "constant" or value not in (None, 0) or len(pad) not in (2, 4) or min(pad) < 0:
        _refuse("pads with something else than zeros", "Pad height and width with zeros")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return Padded(shape, input, (top, left, bottom, right))


def _pass(shape: Shape, input: Expr, *args: object, **kwargs: object) -> Expr:
    del shape, args, kwargs
    return input


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
        _refuse("does not pool over height and width", "Pool (n, C, H, W)")
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
        _refuse("does not pool over height and width", "Pool (n, C, H, W)")
    size = source.shape[1], source.shape[2]
    rows, columns = (
        tuple((i * edge // count, -(-(i + 1) * edge // count)) for i in range(count))
        for edge, count in zip(size, shape[1:], strict=True)
    )
    return Windows(rows, columns, size)


def _scalar_if_equal(counts: IntArray) -> IntArray:
    return counts if (counts != counts.flat[0]).any() else np.array(counts.flat[0])


def _refuse(problem: str, remedy: str) -> NoReturn:
    msg = f"it {problem}. {remedy}."
    raise UnsupportedError(msg)


def _by_name(names: Mapping[Handler, str]) -> dict[str, Handler]:
    return {name: handler for handler, text in names.items() for name in text.split()}


HANDLERS: Final[Mapping[str, Handler]] = _by_name(
    {
        _relu: "relu relu_",
        _relu6: "relu6 relu6_",
        _hardtanh: "hardtanh hardtanh_",
        _clamp: "clamp clamp_ clip clip_",
        _max_pool2d: "max_pool2d _max_pool2d boolean_dispatch",
        _adaptive_max_pool2d: "adaptive_max_pool2d",
        average_windows: "avg_pool2d",
        _adaptive_avg_pool2d: "adaptive_avg_pool2d",
        _mean: "mean",
        _reshape: "flatten view reshape squeeze",
        _cat: "cat concat concatenate",
        _pad: "pad",
        _pass: "clone contiguous detach to float dropout dropout1d dropout2d alpha_dropout "
        "feature_alpha_dropout",
    }
)
