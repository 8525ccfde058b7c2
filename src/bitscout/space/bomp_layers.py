# SPDX-License-Identifier: Apache-2.0
"""The layers of many BOMP networks at once, without describing them one by one.

Every layer any of the networks may have gets a slot; the slots a network lacks are dropped at the
end. Notation: ``n`` networks, and ``row[name]`` the value of one choice in each, shape ``(n,)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitscout.space.bomp_table import BLOCK_BITS, POSITIONS, REDUCTION_AFTER
from bitscout.space.layer_table import ADD, CONV, DEPTHWISE, LINEAR, LayerTable, pack
from bitscout.space.mobilenet_spec import STEM_KERNEL

__all__ = ["tabulate_layers"]

Column = NDArray[np.int64]
Entry = Sequence[Column | int]


class _Slots:
    """Slots in execution order: which networks have each, and its attributes."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._present: list[NDArray[np.bool_]] = []
        self._entries: list[Entry] = []

    def add(self, entry: Entry, present: NDArray[np.bool_] | None = None) -> None:
        """Append a slot; without `present` every network has it."""
        self._present.append(np.ones(self._n, dtype=bool) if present is None else present)
        self._entries.append(entry)

    def packed(self, n_attributes: int) -> tuple[NDArray[np.float32], Column]:
        """Return the slots of each network, without gaps, and their number."""
        if not self._entries:
            return np.zeros((self._n, 0, n_attributes), np.float32), np.zeros(self._n, np.int64)
        table = np.empty((self._n, len(self._entries), n_attributes), dtype=np.float32)
        for slot, entry in enumerate(self._entries):
            for attribute, value in enumerate(entry):
                table[:, slot, attribute] = value
        return pack(table, np.stack(self._present, axis=1))


def tabulate_layers(row: Mapping[str, Column], n_classes: int) -> LayerTable:
    """Return the layers and residual additions of each network.

    Args:
        row: Table I with ``stem.channels`` and ``blockN.channels`` in place of the widths.
        n_classes: Outputs of the classifier.
    """
    channels = row["stem.channels"]
    layers, skips = _Slots(len(channels)), _Slots(len(channels))
    strides = _strides(row)
    layers.add((CONV, channels, STEM_KERNEL, 1, row["stem.bits"]))
    n_before = np.ones_like(channels)
    for position in POSITIONS:
        block = f"block{position}"
        for repetition in range(int(row[f"{block}.repetitions"].max(initial=0))):
            present = row[f"{block}.repetitions"] > repetition
            stride = strides[position] if repetition == 0 else np.ones_like(channels)
            hidden, out = channels * row[f"{block}.expansion"], row[f"{block}.channels"]
            if "expand" in BLOCK_BITS[position]:
                layers.add((CONV, hidden, 1, 1, row[f"{block}.expand.bits"]), present)
            kernel, bits = row[f"{block}.kernel"], row[f"{block}.depthwise.bits"]
            # A single channel filtered on its own is an ordinary convolution.
            kind = np.where(hidden > 1, DEPTHWISE, CONV)
            layers.add((kind, hidden, kernel, stride, bits), present)
            layers.add((CONV, out, 1, 1, row[f"{block}.project.bits"]), present)
            n_units = len(BLOCK_BITS[position])
            is_residual = present & (stride == 1) & (channels == out)
            skips.add((n_before, n_units, ADD), is_residual)
            n_before = n_before + n_units * present
            channels = np.where(present, out, channels)
    layers.add((CONV, row["conv2.filters"], 1, 1, row["conv2.bits"]))
    layers.add((LINEAR, n_classes, 1, 1, row["classifier.bits"]))
    return LayerTable(*layers.packed(5), *skips.packed(3))


def _strides(row: Mapping[str, Column]) -> dict[int, Column]:
    """Return the stride of the first repetition of each block."""
    strides = {position: np.ones_like(row["stem.channels"]) for position in POSITIONS}
    for reduced in REDUCTION_AFTER:
        is_pending = np.ones(len(row["stem.channels"]), dtype=bool)
        for position in POSITIONS:
            if position > reduced:
                here = is_pending & (row[f"block{position}.repetitions"] > 0)
                strides[position] = np.where(here, 2 * strides[position], strides[position])
                is_pending &= ~here
    return strides
