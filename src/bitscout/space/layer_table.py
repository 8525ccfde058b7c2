# SPDX-License-Identifier: Apache-2.0
"""Many networks at once, as arrays: what costs are computed from and an edit distance compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays

__all__ = ["ADD", "CONV", "DEPTHWISE", "LINEAR", "LayerTable", "LayerVariants", "TableBuilder"]

IntArray = NDArray[np.int64]

# Kinds of layers in `LayerTable.attributes`, and of skip connections.
CONV: Final = 0
DEPTHWISE: Final = 1
LINEAR: Final = 2
ADD: Final = 0


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Layers and skip connections of `n` networks; entries past the counts mean nothing.

    The layers of a network form a chain, each reading what the one before it gives; where that
    has more pixels, it is pooled in between. Skip connections add an earlier tensor of the chain
    to a later one.

    Attributes:
        layers: Layers in execution order, of shape ``(n, max layers)``.
        weight_bits: Shape ``(n, max layers)``.
        act_bits: Bits of each layer's input, shape ``(n, max layers)``.
        n_layers: Layers of each network, shape ``(n,)``.
        skips: Shape ``(n, max skips, 3)``: the number of layers before the connection starts, the
            number it spans, and its kind.
        n_skips: Skip connections of each network, shape ``(n,)``.
    """

    layers: LayerArrays
    weight_bits: IntArray
    act_bits: IntArray
    n_layers: IntArray
    skips: IntArray
    n_skips: IntArray

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which entries are layers, shape ``(n, max layers)``."""
        return np.arange(self.layers.shape[1]) < self.n_layers[:, None]

    def attributes(self) -> NDArray[np.float32]:
        """Return kind, output channels, kernel, stride and weight bits of each layer.

        Returns:
            Shape ``(n, max layers, 5)``; kernels and strides by their heights.
        """
        layers = self.layers
        kind = np.where(layers.is_linear, LINEAR, np.where(layers.is_depthwise, DEPTHWISE, CONV))
        columns = (
            kind,
            layers.out_channels,
            layers.kernel_height,
            layers.stride_height,
            self.weight_bits,
        )
        return np.stack(columns, axis=-1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class LayerVariants:
    """Every layer that any network of a space may have, and the bits it may have.

    Attributes:
        layers: Different layers, shape ``(m,)``.
        weight_bits: Bit-widths of weights, ascending.
        act_bits: Bit-widths of activations, ascending.
        is_complete: Whether these are all; spaces with too many combinations to list say no.
    """

    layers: LayerArrays
    weight_bits: tuple[int, ...]
    act_bits: tuple[int, ...]
    is_complete: bool = True


class TableBuilder:
    """Collects slots in execution order, then closes the gaps where networks lack them.

    Args:
        n: Number of networks.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._layers: list[tuple[NDArray[np.bool_], LayerArrays, IntArray, IntArray]] = []
        self._skips: list[tuple[NDArray[np.bool_], IntArray]] = []

    def layer(
        self,
        layers: LayerArrays,
        weight_bits: IntArray | int,
        act_bits: IntArray | int,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append one layer of each network that has it.

        Args:
            layers: Shape ``(n,)`` or ``()``.
            weight_bits: Broadcastable to ``(n,)``.
            act_bits: Likewise.
            present: Which networks have it, shape ``(n,)``; all by default.
        """
        self._layers.append(
            (
                self._all() if present is None else present,
                LayerArrays(np.broadcast_to(layers.table, (self._n, layers.table.shape[-1]))),
                np.broadcast_to(np.asarray(weight_bits, np.int64), (self._n,)),
                np.broadcast_to(np.asarray(act_bits, np.int64), (self._n,)),
            )
        )

    def skip(
        self,
        start: IntArray | int,
        span: IntArray | int,
        kind: int,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append one skip connection of each network that has it; see `LayerTable.skips`."""
        columns = [
            np.broadcast_to(np.asarray(c, np.int64), (self._n,)) for c in (start, span, kind)
        ]
        self._skips.append(
            (self._all() if present is None else present, np.stack(columns, axis=1))
        )

    def build(self) -> LayerTable:
        """Return the table."""
        presences = [present for present, *_ in self._layers]
        n_layers, positions = self._count(presences)
        longest = int(n_layers.max(initial=0))
        n_columns = LayerArrays.of([]).table.shape[-1]
        table = np.ones((self._n, longest, n_columns), dtype=np.int64)
        bits = np.zeros((2, self._n, longest), dtype=np.int64)
        for (present, layers, weight_bits, act_bits), position in zip(
            self._layers, positions, strict=True
        ):
            rows = np.flatnonzero(present)
            table[rows, position[rows]] = layers.table[rows]
            bits[0, rows, position[rows]] = weight_bits[rows]
            bits[1, rows, position[rows]] = act_bits[rows]
        n_skips, skips = self._build_skips()
        return LayerTable(LayerArrays(table), bits[0], bits[1], n_layers, skips, n_skips)

    def _build_skips(self) -> tuple[IntArray, IntArray]:
        n_skips, positions = self._count([present for present, _ in self._skips])
        skips = np.zeros((self._n, int(n_skips.max(initial=0)), 3), dtype=np.int64)
        for (present, entry), position in zip(self._skips, positions, strict=True):
            rows = np.flatnonzero(present)
            skips[rows, position[rows]] = entry[rows]
        return n_skips, skips

    def _count(self, presences: list[NDArray[np.bool_]]) -> tuple[IntArray, list[IntArray]]:
        """Return how many slots each network has, and the place of each slot without gaps."""
        count, positions = np.zeros(self._n, dtype=np.int64), []
        for present in presences:
            positions.append(count.copy())
            count += present
        return count, positions

    def _all(self) -> NDArray[np.bool_]:
        return np.ones(self._n, dtype=bool)
