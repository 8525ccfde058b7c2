# SPDX-License-Identifier: Apache-2.0
"""Recorded calls of functions as the modules that compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from bitscout.quantization.add import Add
from bitscout.quantization.flow import Call

__all__ = ["averaged_dims", "bound", "equivalent", "weighted"]

_SIGNATURES: Final[Mapping[str, tuple[str, ...]]] = {
    "add": ("input", "other"),
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("input", "weight", "bias"),
    "batch_norm": (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    ),
    "avg_pool2d": (
        "input",
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    ),
    "adaptive_avg_pool2d": ("input", "output_size"),
    "mean": ("input", "dim", "keepdim", "dtype"),
}
_BATCH_NORM_EPS = 1e-5  # PyTorch's default.


def bound(call: Call) -> dict[str, Any]:
    """Return the arguments of a call by name; those left out are missing."""
    names = _SIGNATURES.get(call.function, ())
    return dict(zip(names, call.args, strict=False)) | dict(call.kwargs)


def weighted(call: Call) -> nn.Conv2d | nn.Linear | None:
    """Return the layer that a call of ``conv2d`` or ``linear`` computes, with its weights."""
    arguments = bound(call)
    weight = arguments.get("weight")
    if not isinstance(weight, Tensor) or not isinstance(arguments.get("input"), Tensor):
        return None
    layer = _linear(weight) if call.function == "linear" else _conv(weight, arguments)
    if layer is None:
        return None
    bias = arguments.get("bias")
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return layer


def equivalent(call: Call) -> nn.Module | None:
    """Return the module that computes what the call of a function does, `None` without one."""
    arguments = bound(call)
    match call.function:
        case "conv2d" | "linear":
            return weighted(call)
        case "batch_norm":
            return _batch_norm(arguments)
        case "add":
            return _addition(arguments)
        case "avg_pool2d":
            return _pool(arguments)
        case "adaptive_avg_pool2d":
            return nn.AdaptiveAvgPool2d(arguments["output_size"])
        case "mean":
            return _mean(call)
    return None


def _linear(weight: Tensor) -> nn.Linear | None:
    if weight.dim() != 2:
        return None
    with torch.device("meta"):
        return nn.Linear(weight.shape[1], weight.shape[0])


def _conv(weight: Tensor, arguments: Mapping[str, Any]) -> nn.Conv2d | None:
    if weight.dim() != 4:
        return None
    groups = int(arguments.get("groups", 1))
    padding = arguments.get("padding", 0)
    with torch.device("meta"):
        return nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            _pair(arguments.get("stride", 1)),
            padding if isinstance(padding, str) else _pair(padding),
            _pair(arguments.get("dilation", 1)),
            groups,
        )


def _batch_norm(arguments: Mapping[str, Any]) -> nn.BatchNorm2d | nn.BatchNorm1d | None:
    mean, variance = arguments.get("running_mean"), arguments.get("running_var")
    if mean is None or variance is None or arguments.get("training", False):
        return None
    kind = nn.BatchNorm2d if arguments["input"].dim() == 4 else nn.BatchNorm1d
    norm = kind(len(mean), eps=float(arguments.get("eps", _BATCH_NORM_EPS)))
    norm = norm.to(mean.device, mean.dtype)
    norm.running_mean, norm.running_var = mean.clone(), variance.clone()
    for parameter, key in ((norm.weight, "weight"), (norm.bias, "bias")):
        given = arguments.get(key)
        if given is not None:
            parameter.data.copy_(given.detach())
    return norm


def _addition(arguments: Mapping[str, Any]) -> Add | None:
    a, b = arguments.get("input"), arguments.get("other")
    if arguments.keys() != {"input", "other"} or a is None or b is None:
        return None
    # Sums of tokens, (n, tokens, features), have no integer form anyway: they stay as they are.
    is_residual = a.shape == b.shape and a.dim() in (2, 4) and a.is_floating_point()
    return Add() if is_residual and b.is_floating_point() else None


def _pool(arguments: Mapping[str, Any]) -> nn.AvgPool2d:
    return nn.AvgPool2d(**{key: value for key, value in arguments.items() if key != "input"})


def averaged_dims(call: Call) -> set[int]:
    """Return which dimensions, counted from the front, a call of ``mean`` averages over.

    All of them, and so none that are named, give the empty set.
    """
    arguments = bound(call)
    dim = arguments.get("dim")
    dims = [dim] if isinstance(dim, int) else dim
    if not isinstance(dims, list | tuple) or arguments.get("dtype") is not None:
        return set()
    return {d % arguments["input"].dim() for d in dims}


def _mean(call: Call) -> nn.Module | None:
    is_global = averaged_dims(call) == {2, 3} and bound(call)["input"].dim() == 4
    return nn.AdaptiveAvgPool2d(1) if is_global else None


def _pair(value: int | tuple[int, ...] | list[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])
