# SPDX-License-Identifier: Apache-2.0
"""What layers, norms and functions of single values do to channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bitscout.networks.axis_moves import MOVES
from bitscout.networks.calls import Call, Value
from bitscout.networks.channel_axes import ChannelAxes, Dims, axis_number, reason_of

__all__ = ["LayerUse", "follow"]


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
        return _LAYERS[name](call, axes)
    rule = _RULES.get(name) or MOVES.get(name)
    tracked = any(entries is not None for value in call.reads for entries in axes.of(value))
    if rule is not None:
        rule(call, axes)
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


def _pooling(call: Call, axes: ChannelAxes) -> None:
    """Pooling, upsampling: pixels change, channels pass."""
    x = call.reads[0]
    dims = axes.of(x)
    for result in call.writes:
        kept = len(result.shape) == len(dims)
        passed: Dims = [entries if i < 2 else None for i, entries in enumerate(dims)]
        if not kept or any(e is not None for e in dims[2:]) or result.shape[1] != x.shape[1]:
            axes.lose(call, "pools over them")
            return
        axes.put(result, passed)


def _reduction(call: Call, axes: ChannelAxes) -> None:
    """Mean, sum, maximum over some dimensions."""
    x = call.reads[0]
    dims = axes.of(x)
    wanted = call.argument(1, "dim", call.kwargs.get("axis"))
    if isinstance(wanted, Value):  # ``torch.maximum`` under its other name.
        _elementwise(call, axes)
        return
    numbers = _numbers(wanted, len(dims))
    for dim in numbers:
        axes.fix(dims[dim], reason_of(call, "joins them into one value"))
    for result in call.writes:
        keeps = len(result.shape) == len(dims)
        rest = [
            None if dim in numbers else entries
            for dim, entries in enumerate(dims)
            if keeps or dim not in numbers
        ]
        axes.put(result, rest)


def _along(call: Call, axes: ChannelAxes) -> None:
    """Softmax and others along one dimension."""
    x = call.reads[0]
    dims = axes.of(x)
    dim = call.argument(1, "dim", call.kwargs.get("axis"))
    which = [axis_number(x, dim)] if isinstance(dim, int) else range(len(dims))
    for number in which:
        axes.fix(dims[number], reason_of(call, "weighs them against each other"))
    for result in call.writes:
        axes.put(result, dims)


def _matmul(call: Call, axes: ChannelAxes) -> None:
    values = call.reads
    if len(values) < 2 or min(len(v.shape) for v in values[-2:]) < 2:
        axes.lose(call, "multiplies matrices of them")
        return
    a, b = values[-2:]
    if call.function == "rmatmul":
        a, b = b, a
    reason = reason_of(call, "sums over them without weights of its own")
    axes.fix(axes.of(a)[-1], reason)
    axes.fix(axes.of(b)[-2], reason)
    for value in (a, b):
        for entries in axes.of(value)[:-2]:
            axes.fix(entries, reason_of(call, "takes each as a matrix"))
    n_dims = len(call.result.shape)
    lead = axes.of(a if len(a.shape) == n_dims else b)[:-2]
    axes.put(call.result, [*lead, axes.of(a)[-2], axes.of(b)[-1]])


def _numbers(wanted: object, n_dims: int) -> set[int]:
    if wanted is None:
        return set(range(n_dims))
    several: Iterable[int] = wanted if isinstance(wanted, tuple | list) else (wanted,)
    return {int(dim) % n_dims for dim in several} or set(range(n_dims))


_UNARY = (
    *("relu", "relu6", "hardtanh", "clamp", "leaky_relu", "elu", "selu", "celu", "gelu", "silu"),
    *("mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid"),
    *("hardshrink", "softshrink", "tanhshrink", "threshold", "rrelu", "abs", "neg", "exp", "log"),
    *("sqrt", "rsqrt", "square", "pow", "sign", "round", "floor", "ceil", "erf", "sin", "cos"),
    *("reciprocal", "clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16"),
    *("type", "type_as", "dropout", "dropout1d", "dropout2d", "alpha_dropout", "identity"),
    *("feature_alpha_dropout", "zeros_like", "ones_like", "full_like", "requires_grad_", "cuda"),
    *("clamp_min", "clamp_max", "relu_", "log1p", "expm1", "softmin_", "logit", "bool", "int"),
    *("long", "isnan", "nan_to_num", "fill", "zero", "exp2", "sinh", "cosh", "atan", "where"),
)
_BINARY = (
    *("add", "sub", "mul", "div", "rsub", "rdiv", "rpow", "maximum", "minimum", "lerp", "fmax"),
    *("addcmul", "addcdiv", "gt", "ge", "lt", "le", "eq", "ne", "fmin", "floor_divide", "masked"),
    *("logical_and", "logical_or", "logical_not", "masked_fill", "fmod", "remainder", "atan2"),
    *("copysign", "and", "or", "xor", "invert", "heaviside"),
)
_POOLINGS = (
    *("avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "lp_pool2d"),
    *("avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "interpolate"),
    *("avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "upsample", "max_pool2d_with_indices"),
    *("max_pool1d_with_indices", "adaptive_max_pool2d_with_indices", "upsample_nearest2d"),
    *("upsample_bilinear2d", "fractional_max_pool2d", "local_response_norm_", "grid_sample"),
)
_REDUCTIONS = (
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "prod", "logsumexp"),
    *("var_mean", "std_mean", "vector_norm", "linalg_vector_norm", "nanmean", "argmax", "any"),
)
_RULES: Final[Mapping[str, Callable[[Call, ChannelAxes], None]]] = {
    **dict.fromkeys((*_UNARY, *_BINARY), _elementwise),
    **dict.fromkeys(_POOLINGS, _pooling),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "cumsum", "normalize"), _along),
    **dict.fromkeys(("matmul", "bmm", "baddbmm", "rmatmul"), _matmul),
    **dict.fromkeys(("batch_norm", "instance_norm", "prelu"), _per_channel),
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}
