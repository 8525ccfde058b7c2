# SPDX-License-Identifier: Apache-2.0
"""What functions that only move values do to channels: joining, cutting, reshaping, turning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from bitscout.networks.axis_reshape import reshape
from bitscout.networks.calls import Call, Value
from bitscout.networks.channel_axes import ChannelAxes, Dims, Entries, axis_number, reason_of
from bitscout.networks.function_kinds import REPEATING, RESHAPES

__all__ = ["MOVES"]


def _cat(call: Call, axes: ChannelAxes) -> None:
    values = [value for value in call.reads if len(value.shape) == len(call.result.shape)]
    dim = axis_number(call.result, call.argument(1, "dim", call.kwargs.get("axis", 0)))
    dims: Dims = [None] * len(call.result.shape)
    joined: list[Entries] = []
    is_followed = any(axes.of(value)[dim] is not None for value in values)
    for value in values:
        for number, entries in enumerate(axes.of(value)):
            if number == dim and is_followed:
                size = value.shape[dim]
                joined.append(axes.fresh(size, call.path) if entries is None else entries)
            elif dims[number] is None:
                dims[number] = entries
            else:
                axes.same(dims[number], entries)
    if is_followed:
        dims[dim] = np.concatenate(joined)
    axes.put(call.result, dims)


def _stack(call: Call, axes: ChannelAxes) -> None:
    dim = axis_number(call.result, call.argument(1, "dim", 0))
    first, *others = call.reads
    for value in others:
        for mine, other in zip(axes.of(first), axes.of(value), strict=True):
            axes.same(mine, other)
    dims = list(axes.of(first))
    axes.put(call.result, [*dims[:dim], None, *dims[dim:]])


def _cut(call: Call, axes: ChannelAxes) -> None:
    """Chunk, split: runs of one dimension, in order. Chunks stay equal."""
    x = call.reads[0]
    dim = axis_number(x, call.argument(2, "dim", call.kwargs.get("axis", 0)))
    dims = axes.of(x)
    start = 0
    entries = dims[dim]
    if call.function == "chunk" and entries is not None:
        size = call.writes[0].shape[dim]
        if len(entries) % size:
            axes.fix(entries, reason_of(call, "makes unequal parts of them"))
        else:
            axes.same(np.tile(entries[:size], len(entries) // size), entries)
    for result in call.writes:
        end = start + result.shape[dim]
        axes.put(result, [_run(e, start, end) if i == dim else e for i, e in enumerate(dims)])
        start = end


def _unbind(call: Call, axes: ChannelAxes) -> None:
    x = call.reads[0]
    dim = axis_number(x, call.argument(1, "dim", 0))
    dims = list(axes.of(x))
    axes.fix(dims[dim], reason_of(call, "takes them one by one"))
    for result in call.writes:
        axes.put(result, dims[:dim] + dims[dim + 1 :])


def _narrow(call: Call, axes: ChannelAxes) -> None:
    x = call.reads[0]
    dim, start, length = (
        call.argument(i, name) for i, name in enumerate(("dim", "start", "length"), 1)
    )
    dim = axis_number(x, dim)
    dims = list(axes.of(x))
    dims[dim] = _run(dims[dim], start, start + length)
    axes.put(call.result, dims)


def _getitem(call: Call, axes: ChannelAxes) -> None:
    x, index = call.args
    if not isinstance(x, Value):
        axes.lose(call, "takes some of them")
        return
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(part, int | slice | None | type(...)) for part in parts):
        axes.lose(call, "takes some of them")
        return
    n_dims = sum(part is not None and part is not ... for part in parts)
    rest = [slice(None)] * (len(x.shape) - n_dims)
    at = parts.index(...) if ... in parts else len(parts)
    parts[at : at + 1] = rest
    dims: Dims = []
    old = iter(axes.of(x))
    for part in parts:
        if part is None:
            dims.append(None)
            continue
        entries = next(old)
        if isinstance(part, slice):
            if entries is not None and part.step not in (None, 1):
                axes.fix(entries, reason_of(call, "takes some of them"))
            dims.append(None if entries is None else entries[part])
        else:
            axes.fix(entries, reason_of(call, "takes one of them"))
    axes.put(call.result, dims)


def _permute(call: Call, axes: ChannelAxes) -> None:
    x = call.reads[0]
    given = call.args[1:] or tuple(call.kwargs.values())
    order = [axis_number(x, dim) for dim in _flat(given)]
    dims = axes.of(x)
    axes.put(call.result, [dims[dim] for dim in order])


def _transpose(call: Call, axes: ChannelAxes) -> None:
    x = call.reads[0]
    dims = list(axes.of(x))
    if call.function in (".T", ".mT", "t", "adjoint", ".H"):
        a, b = (len(dims) - 2, len(dims) - 1) if len(dims) > 1 else (0, 0)
    else:
        a = axis_number(x, call.argument(1, "dim0", call.kwargs.get("axis0", 0)))
        b = axis_number(x, call.argument(2, "dim1", call.kwargs.get("axis1", 0)))
    dims[a], dims[b] = dims[b], dims[a]
    axes.put(call.result, dims)


def _turn(call: Call, axes: ChannelAxes) -> None:
    """Flip, roll: fine for pixels."""
    x = call.reads[0]
    dims = axes.of(x)
    given = call.argument(len(call.args) - 1, "dims")
    for dim in _flat((given,)):
        axes.fix(dims[axis_number(x, dim)], reason_of(call, "changes their order"))
    axes.put(call.result, dims)


def _expand(call: Call, axes: ChannelAxes) -> None:
    dims = axes.of(call.reads[0])
    shape = call.result.shape
    new: Dims = [None] * (len(shape) - len(dims))
    for size, entries in zip(shape[len(new) :], dims, strict=True):
        if entries is not None and len(entries) != size:
            axes.fix(entries, reason_of(call, "repeats them"))
            new.append(None)
        else:
            new.append(entries)
    axes.put(call.result, new)


def _pad(call: Call, axes: ChannelAxes) -> None:
    """New channels before and after the old ones; pixels do not matter."""
    x = call.reads[0]
    amounts = [int(amount) for amount in _flat((call.argument(1, "pad"),))]
    dims = list(axes.of(x))
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
        entries = dims[-place]
        if entries is None or not (before or after):
            continue
        if before < 0 or after < 0:
            entries = entries[max(-before, 0) : len(entries) - max(-after, 0)]
        name = f"{call.path}.pad".lstrip(".")
        dims[-place] = np.concatenate(
            [axes.fresh(max(before, 0), name), entries, axes.fresh(max(after, 0), name)]
        )
    axes.put(call.result, dims)


def _run(entries: Entries | None, start: int, end: int) -> Entries | None:
    return None if entries is None else entries[start:end]


def _flat(values: Any) -> list[Any]:  # noqa: ANN401  # as PyTorch takes them
    """Return numbers out of ``(1, 2)`` and ``((1, 2),)`` alike."""
    return [
        item
        for value in values
        for item in (_flat(value) if isinstance(value, tuple | list) else (value,))
    ]


MOVES: Final[Mapping[str, Callable[[Call, ChannelAxes], None]]] = {
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("chunk", "split", "tensor_split", "split_with_sizes"), _cut),
    "unbind": _unbind,
    "narrow": _narrow,
    "getitem": _getitem,
    "permute": _permute,
    **dict.fromkeys(("transpose", ".T", ".mT", "t"), _transpose),
    **dict.fromkeys(("flip", "roll"), _turn),
    **dict.fromkeys((*REPEATING, "repeat"), _expand),
    "pad": _pad,
    **dict.fromkeys((*RESHAPES, "ravel"), reshape),
}
