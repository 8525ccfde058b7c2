# SPDX-License-Identifier: Apache-2.0
"""What layers, norms and functions of single values do to channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bitscout.networks.axis_moves import MOVES
from bitscout.networks.axis_sums import SUMS
from bitscout.networks.calls import Call, Value
from bitscout.networks.channel_axes import ChannelAxes, Dims, reason_of
from bitscout.networks.function_kinds import POINTWISE, STORAGE

__all__ = ["LayerUse", "follow"]

_UNREADABLE: Final = (AssertionError, AttributeError, IndexError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class LayerUse:
    """One call of a convolution or linear function.

    Attributes:
        call: The call.
        x: What it reads.
        weight: Its weights, maybe computed from parameters.
        y: What it gives.
        x_dim: The dimension of `x` and `y` that holds channels.
        groups: Groups of the convolution, 1 where it is depthwise: that is no constraint.
    """

    call: Call
    x: Value
    weight: Value
    y: Value
    x_dim: int
    groups: int = 1


def follow(call: Call, axes: ChannelAxes) -> LayerUse | None:
    """Say what `call` does to channels; return it if it is a layer."""
    name = call.function
    if name in _LAYERS:
        return _LAYERS[name](call, axes)  # Their arguments were checked by PyTorch.
    rule = _RULES.get(name)
    tracked = any(entries is not None for value in call.reads for entries in axes.of(value))
    if rule is not None:
        try:
            rule(call, axes)
        except _UNREADABLE:  # Arguments in a form no rule expects.
            axes.lose(call, "is written in a way that is not followed")
    elif tracked or call.is_result:
        axes.lose(call, "is not followed, so the number of channels around it stays")
    return None


def _conv(call: Call, axes: ChannelAxes) -> LayerUse | None:
    x, weight, y = call.argument(0, "input"), call.argument(1, "weight"), call.result
    bias, groups = call.argument(2, "bias"), call.argument(6, "groups", 1)
    is_batched = len(x.shape) == len(weight.shape)
    dim = 1 if is_batched else 0
    x_dims, weight_dims = axes.of(x), axes.of(weight)
    channels, rows = x_dims[dim], weight_dims[0]
    _fix_others(call, axes, x_dims, dim)
    if channels is None or rows is None or not is_batched:
        axes.lose(call, "reads channels that are not followed")
        return None
    is_depthwise = groups == x.shape[dim] > 1
    if is_depthwise:
        axes.same(np.repeat(channels, len(rows) // groups), rows)
    elif groups == 1:
        _join_or_fix(call, axes, weight_dims[1], channels)
    if bias is not None:
        axes.same(axes.of(bias)[0], rows)
    axes.put(y, [rows if d == dim else None for d in range(len(y.shape))])
    return LayerUse(call, x, weight, y, dim, 1 if is_depthwise else groups)


def _linear(call: Call, axes: ChannelAxes) -> LayerUse | None:
    x, weight, y = call.argument(0, "input"), call.argument(1, "weight"), call.result
    bias = call.argument(2, "bias")
    x_dims, weight_dims = axes.of(x), axes.of(weight)
    rows = weight_dims[0]
    if x_dims[-1] is None or rows is None or len(weight.shape) != 2:
        axes.lose(call, "reads features that are not followed")
        return None
    _join_or_fix(call, axes, weight_dims[1], x_dims[-1])
    if bias is not None:
        axes.same(axes.of(bias)[0], rows)
    axes.put(y, [*x_dims[:-1], rows])
    return LayerUse(call, x, weight, y, len(x.shape) - 1)


_LAYERS: Final[Mapping[str, Callable[[Call, ChannelAxes], LayerUse | None]]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "linear": _linear,
}


def _join_or_fix(
    call: Call, axes: ChannelAxes, weight: np.ndarray | None, channels: np.ndarray
) -> None:
    if weight is None:
        axes.fix(channels, reason_of(call, "reads them with weights that are not parameters"))
    else:
        axes.same(weight, channels)


def _fix_others(call: Call, axes: ChannelAxes, dims: Dims, channel_dim: int) -> None:
    for dim, entries in enumerate(dims):
        if dim != channel_dim:
            axes.fix(entries, reason_of(call, "moves over them as if they were pixels"))


def _per_channel(call: Call, axes: ChannelAxes) -> None:
    """Batch norm, instance norm, PReLU: weights for every channel, which pass."""
    x, *weights = call.reads
    dims = axes.of(x)
    for weight in weights:
        if len(weight.shape) == 1 and len(dims) > 1 and weight.shape[0] == x.shape[1]:
            if dims[1] is None:
                axes.fix(axes.of(weight)[0], reason_of(call, "has weights of their number"))
            axes.same(axes.of(weight)[0], dims[1])
    axes.put(call.result, dims)


def _layer_norm(call: Call, axes: ChannelAxes) -> None:
    x, *weights = call.reads
    dims = axes.of(x)
    n_normalized = len(call.argument(1, "normalized_shape"))
    reason = reason_of(call, "normalizes over them, so that each depends on their number")
    for entries in dims[-n_normalized:]:
        axes.fix(entries, reason)
    for weight in weights:
        for entries, own in zip(dims[-n_normalized:], axes.of(weight), strict=True):
            axes.fix(own, reason)
            axes.same(own, entries)
    axes.put(call.result, dims)


def _group_norm(call: Call, axes: ChannelAxes) -> None:
    x, *weights = call.reads
    dims = axes.of(x)
    reason = reason_of(call, "normalizes groups of them together")
    axes.fix(dims[1], reason)
    for weight in weights:
        axes.fix(axes.of(weight)[0], reason)
        axes.same(axes.of(weight)[0], dims[1])
    axes.put(call.result, dims)


def _elementwise(call: Call, axes: ChannelAxes) -> None:
    """Functions of single values, with broadcasting."""
    for result in call.writes:
        n_dims = len(result.shape)
        dims: Dims = [None] * n_dims
        for value in call.reads:
            own = axes.of(value)
            for place, entries in enumerate(own, n_dims - len(own)):
                if entries is None or place < 0:
                    continue
                if len(entries) != result.shape[place]:
                    axes.fix(entries, reason_of(call, "spreads it over other channels"))
                elif dims[place] is None:
                    dims[place] = entries
                else:
                    axes.same(dims[place], entries)
        axes.put(result, dims)


# Beyond what a graph has words for: comparisons, masks, tensors like another.
_ELEMENTWISE = (
    *("gt", "ge", "lt", "le", "eq", "ne", "and", "or", "xor", "invert", "logical_and"),
    *("logical_or", "logical_not", "isnan", "floor_divide", "fmod", "remainder", "atan2", "fmax"),
    *("fmin", "copysign", "logit", "sinh", "cosh", "atan", "zeros_like", "ones_like"),
    *("full_like", "empty_like", "fill", "zero", "copy", "type_as", "bool", "int", "long"),
)
_RULES: Final[Mapping[str, Callable[[Call, ChannelAxes], None]]] = {
    **dict.fromkeys((*POINTWISE, *STORAGE, *_ELEMENTWISE), _elementwise),
    **MOVES,
    **SUMS,
    **dict.fromkeys(("batch_norm", "instance_norm", "prelu"), _per_channel),
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}
