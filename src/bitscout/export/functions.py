# SPDX-License-Identifier: Apache-2.0
"""PyTorch's functions outside of quantized modules, as expressions.

A handler has the signature of the function it stands for, with expressions for tensors. It is
told the shape of the result, which PyTorch has computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch

from bitscout.export.expressions import Clamped, Expr, Flat, Joined, Padded, Widened, refuse
from bitscout.export.pools import (
    Averaged,
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
    mean,
)

__all__ = ["HANDLERS"]

Shape = tuple[int, ...]


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


def _reshape(shape: Shape, input: Expr, *args: object, **kwargs: object) -> Expr:
    del args, kwargs  # The shape of the result says all.
    if shape == input.shape:
        return input
    if len(shape) != 1 or shape[0] != math.prod(input.shape):
        refuse(f"reshapes {input.shape} to {shape}", "Flatten to (n, features)")
    return Flat(shape, input)


def _mean(
    shape: Shape, input: Expr, dim: object = None, keepdim: bool = False, **kwargs: object
) -> Expr | Averaged:
    if math.prod(shape) == math.prod(input.shape) and not kwargs:
        return _reshape(shape, input)  # Single pixels: nothing to average.
    return mean(shape, input, dim, keepdim, **kwargs)


def _getitem(shape: Shape, input: Expr, index: object) -> Expr:
    indices = index if isinstance(index, tuple) else (index,)
    is_plain = all(isinstance(i, int | slice | None) or i is ... for i in indices)
    if not is_plain or math.prod(shape) != math.prod(input.shape):
        refuse(
            "takes a part of a tensor, which has no integer form", "Give parts their own layers"
        )
    return _reshape(shape, input)  # ``x[:, :, 0, 0]`` of a map of one pixel.


def _copy(shape: Shape, input: Expr, src: Expr, non_blocking: bool = False) -> Expr:
    del input, non_blocking
    if src.shape != shape:
        refuse(f"copies shape {src.shape} to {shape}", "Make them equal")
    return src


def _cat(shape: Shape, tensors: tuple[Expr, ...], dim: int = 0, axis: int | None = None) -> Expr:
    dim = dim if axis is None else axis
    if dim not in (1, -len(shape)) or not all(hasattr(t, "shape") for t in tensors):
        refuse("joins something else than channels", "Use dim=1")
    return tensors[0] if len(tensors) == 1 else Joined(shape, tuple(tensors))


def _pad(
    shape: Shape,
    input: Expr,
    pad: tuple[int, ...],
    mode: str = "constant",
    value: float | None = None,
) -> Expr:
    if mode != "constant" or value not in (None, 0) or min(pad) < 0:
        refuse("pads with something else than zeros", "Pad with zeros")
    if len(pad) == 6 and len(shape) == 3 and not any(pad[:4]):
        return Widened(shape, input, pad[4]) if any(pad) else input
    if len(pad) not in (2, 4):
        refuse("pads pixels and channels at once", "Pad one behind the other")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return Padded(shape, input, (top, left, bottom, right))


def _pass(shape: Shape, input: Expr, *args: object, **kwargs: object) -> Expr:
    del shape
    types = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    if any(kind not in (torch.float32, torch.float64) for kind in types):
        refuse(f"changes the type to {types[0]}", "Stay in float32")
    return input


def _dropout(
    shape: Shape, input: Expr, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Expr:
    del shape, inplace
    if training and p > 0:
        refuse("drops at random in evaluation too", "Pass training=self.training")
    return input


def _by_name(names: Mapping[Handler, str]) -> dict[str, Handler]:
    return {name: handler for handler, text in names.items() for name in text.split()}


HANDLERS: Final[Mapping[str, Handler]] = _by_name(
    {
        _relu: "relu relu_",
        _relu6: "relu6 relu6_",
        _hardtanh: "hardtanh hardtanh_",
        _clamp: "clamp clamp_ clip clip_",
        max_pool2d: "max_pool2d _max_pool2d boolean_dispatch",
        adaptive_max_pool2d: "adaptive_max_pool2d",
        avg_pool2d: "avg_pool2d",
        adaptive_avg_pool2d: "adaptive_avg_pool2d",
        _mean: "mean",
        _reshape: "flatten view reshape squeeze unsqueeze",
        _getitem: "__getitem__",
        _copy: "copy_",
        _cat: "cat concat concatenate",
        _pad: "pad",
        _pass: "clone contiguous detach to float",
        _dropout: "dropout dropout1d dropout2d alpha_dropout feature_alpha_dropout",
    }
)
