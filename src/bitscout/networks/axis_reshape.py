# SPDX-License-Identifier: Apache-2.0
"""What reshaping does to channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from bitscout.networks.calls import Call, Value
from bitscout.networks.channel_axes import ChannelAxes, Dims

__all__ = ["reshape"]


def reshape(call: Call, axes: ChannelAxes) -> None:
    """View, flatten, squeeze: dimensions merge, or come apart."""
    x = call.reads[0]
    dims = axes.of(x)
    result: Dims = []
    for old, new in _blocks(x.shape, call.result.shape):
        tracked = [i for i in old if dims[i] is not None]
        sizes = [call.result.shape[i] for i in new]
        made = _block(x, dims, old, sizes) if tracked else [None] * len(new)
        if made is None:
            axes.lose(call, "takes them apart or mixes them with others")
            return
        result += made
    axes.put(call.result, result)


def _block(x: Value, dims: Dims, old: Sequence[int], sizes: Sequence[int]) -> Dims | None:
    """Return the entries of dimensions of `sizes` that are those of `old`; None if it cannot."""
    wide = [i for i in old if x.shape[i] > 1]
    tracked = [i for i in wide if dims[i] is not None]
    if not tracked:  # Dimensions of size 1 alone.
        ones = [dims[i] for i in old if dims[i] is not None]
        return [ones[0] if ones and i == 0 and size == 1 else None for i, size in enumerate(sizes)]
    if len(tracked) > 1 or (len(wide) > 1 and 0 in wide and x.origin == "input"):
        return None
    place = wide.index(tracked[0])
    entries = dims[tracked[0]]
    assert entries is not None
    before = prod(x.shape[i] for i in wide[:place])
    after = prod(x.shape[i] for i in wide[place + 1 :])
    flat = np.tile(np.repeat(entries, after), before)
    targets = [i for i, size in enumerate(sizes) if size > 1]
    if len(targets) == 1:
        return [flat if i == targets[0] else None for i in range(len(sizes))]
    # Back from features to channels and pixels.
    first = targets[0]
    rows = flat.reshape(sizes[first], -1)
    if (rows == rows[:, :1]).all():
        return [rows[:, 0] if i == first else None for i in range(len(sizes))]
    return None


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest runs of dimensions, old and new, with the same number of values."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        size_a, size_b = prod(old[k] for k in a), prod(new[k] for k in b)
        i, j = i + len(a), j + len(b)
        while size_a != size_b:
            if size_a < size_b:
                a.append(i)
                size_a, i = size_a * old[i], i + 1
            else:
                b.append(j)
                size_b, j = size_b * new[j], j + 1
        blocks.append((a, b))
    return blocks
