# SPDX-License-Identifier: Apache-2.0
"""What functions that join several values into one do to channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bitscout.networks.calls import Call, Value
from bitscout.networks.channel_axes import ChannelAxes, Dims, axis_number, reason_of

__all__ = ["SUMS"]


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
        axes.lose(call, "compares them")
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


def _glu(call: Call, axes: ChannelAxes) -> None:
    """Half of the channels times the sigmoid of the other half: the halves are the same."""
    x, y = call.reads[0], call.result
    dims = list(axes.of(x))
    dim = axis_number(x, call.argument(1, "dim", -1))
    entries, half = dims[dim], y.shape[dim]
    if entries is not None:
        axes.same(entries[:half], entries[half:])
        dims[dim] = entries[:half]
    axes.put(y, dims)


_POOLINGS = (
    *("avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "lp_pool2d"),
    *("avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "interpolate"),
    *("avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "upsample", "upsample_nearest"),
    *("max_pool2d_with_indices", "max_pool1d_with_indices", "adaptive_max_pool2d_with_indices"),
    *("upsample_nearest2d", "upsample_bilinear2d", "fractional_max_pool2d", "grid_sample"),
)
_REDUCTIONS = (
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "prod", "logsumexp"),
    *("var_mean", "std_mean", "vector_norm", "linalg_vector_norm", "nanmean", "argmax", "any"),
)
SUMS: Final[Mapping[str, Callable[[Call, ChannelAxes], None]]] = {
    **dict.fromkeys(_POOLINGS, _pooling),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "cumsum", "normalize"), _along),
    **dict.fromkeys(("matmul", "mm", "bmm", "rmatmul"), _matmul),
    "glu": _glu,
}
