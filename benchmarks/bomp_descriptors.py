# SPDX-License-Identifier: Apache-2.0
"""Layers and skips of many BOMP networks at once, for the edit distance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitscout.samplers import Descriptors
from bitscout.space import STEM_KERNEL, BompSpace, round_channels

POSITIONS = range(1, 8)
BASE_CHANNELS = (16, 24, 32, 64, 96, 160, 320)  # MobileNetV2
CONV, DEPTHWISE, LINEAR = 0, 1, 2


def describer(space: BompSpace) -> Callable[[np.ndarray], Descriptors]:
    """Return a vectorized map from index arrays to the networks' layers and skips."""
    return lambda indices: _describe(space, np.asarray(indices))


def _describe(space: BompSpace, indices: np.ndarray) -> Descriptors:
    n = len(indices)
    row = {c.name: np.array(c.values)[indices[:, d]] for d, c in enumerate(space.choices)}
    channels = {
        p: _rounded(space, row[f"block{p}.width"] * base)
        for p, base in zip(POSITIONS, BASE_CHANNELS, strict=True)
    }
    ones = np.ones(n, dtype=int)
    slots: list[tuple[np.ndarray, list]] = []  # (which networks have it, its layer)
    skips: list[tuple[np.ndarray, np.ndarray, int]] = []  # (which, start, length)
    position = ones.copy()  # layers so far
    c_in = _rounded(space, row["block1.width"] * 32)
    slots.append((ones > 0, [CONV, c_in, STEM_KERNEL, 1, row["stem.bits"]]))
    strides = _strides(row, n)
    for p in POSITIONS:
        out, repeats = channels[p], row.get(f"block{p}.repetitions", ones)
        e, k = row.get(f"block{p}.expansion", ones), row[f"block{p}.kernel"]
        for repeat in range(int(repeats.max())):
            present = repeats > repeat
            stride = strides[p] if repeat == 0 else ones
            hidden = e * c_in
            units = [[DEPTHWISE, hidden, k, stride, row[f"block{p}.depthwise.bits"]]]
            units += [[CONV, out, 1, 1, row[f"block{p}.project.bits"]]]
            if p > 1:
                units.insert(0, [CONV, hidden, 1, 1, row[f"block{p}.expand.bits"]])
            slots += [(present, unit) for unit in units]
            skips.append((present & (stride == 1) & (c_in == out), position.copy(), len(units)))
            position += len(units) * present
            c_in = np.where(present, out, c_in)
    slots.append((ones > 0, [CONV, row["conv2.filters"], 1, 1, row["conv2.bits"]]))
    slots.append((ones > 0, [LINEAR, space.n_classes, 1, 1, row["classifier.bits"]]))
    layers = _compress(slots)
    joins = _compress([(which, [start, length, 0]) for which, start, length in skips])
    return Descriptors(*layers, *joins)


def _strides(row: dict[str, np.ndarray], n: int) -> dict[int, np.ndarray]:
    strides = {p: np.ones(n, dtype=int) for p in POSITIONS}
    for reduced in (4, 6):
        waiting = np.ones(n, dtype=bool)
        for p in range(reduced + 1, 8):
            here = waiting & (row.get(f"block{p}.repetitions", np.ones(n)) > 0)
            strides[p] = np.where(here, strides[p] * 2, strides[p])
            waiting &= ~here
    return strides


def _rounded(space: BompSpace, requests: np.ndarray) -> np.ndarray:
    values, inverse = np.unique(requests, return_inverse=True)
    rounded = [round_channels(float(v), space.channel_divisor) for v in values]
    return np.array(rounded)[inverse]


def _compress(slots: list[tuple[np.ndarray, list]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the slots each network has, moved to the front, and their number."""
    which = np.stack([present for present, _ in slots], axis=1)
    table = np.empty((*which.shape, len(slots[0][1])), dtype=np.float32)
    for s, (_, entries) in enumerate(slots):
        for a, entry in enumerate(entries):
            table[:, s, a] = entry
    order = np.argsort(~which, axis=1, kind="stable")
    counts = which.sum(axis=1)
    packed = np.take_along_axis(table, order[:, :, None], axis=1)
    return packed[:, : int(counts.max(initial=0))], counts.astype(np.int64)
