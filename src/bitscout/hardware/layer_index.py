# SPDX-License-Identifier: Apache-2.0
"""Finding layers among others, by all of their columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays

__all__ = ["LayerIndex"]

IntArray = NDArray[np.int64]

_BLOCK: Final = 1024  # Layers looked for at once: 128 KiB of columns, which stay in the cache.


@dataclass(frozen=True, eq=False)
class LayerIndex:
    """Different layers, each with its position, its row.

    Attributes:
        layers: Shape ``(n,)``, no two equal.
    """

    layers: LayerArrays

    def find(self, layers: LayerArrays, present: NDArray[np.bool_] | None = None) -> IntArray:
        """Return the row of each layer, -1 where there is none, ``n`` where it is not present.

        A binary search among the 64-bit keys, then a comparison of every column.

        Args:
            layers: Any shape.
            present: The same shape; by default all are.
        """
        flat = layers.flat()
        mask = None if present is None or present.all() else present.reshape(-1)
        rows = np.full(len(flat), len(self.layers), dtype=np.int64)
        for start in range(0, len(flat), _BLOCK):
            part = slice(start, start + _BLOCK)
            if mask is None:
                rows[part] = self._find_block(flat[part])
            else:
                rows[part][mask[part]] = self._find_block(flat[part][mask[part]])
        return rows.reshape(layers.shape)

    def _find_block(self, layers: LayerArrays) -> IntArray:
        if not len(self.layers):
            return np.full(len(layers), -1, dtype=np.int64)
        keys, order = self._order
        place = np.searchsorted(keys, layers.keys())
        rows: IntArray = order[np.minimum(place, len(keys) - 1)]
        # Equal keys are no proof of equal layers, nor is the first of equal keys the only one.
        for other in np.flatnonzero((self.layers.table[rows] != layers.table).any(axis=-1)):
            rows[other] = self._row_of.get(layers.table[other].tobytes(), -1)
        return rows

    @cached_property
    def _order(self) -> tuple[IntArray, IntArray]:
        """Keys in ascending order and the row of each."""
        keys = self.layers.keys()
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    @cached_property
    def _row_of(self) -> dict[bytes, int]:
        return {row.tobytes(): number for number, row in enumerate(self.layers.table)}
