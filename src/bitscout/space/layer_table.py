# SPDX-License-Identifier: Apache-2.0
"""Many networks at once, as arrays: what an edit distance compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ADD", "CONV", "DEPTHWISE", "LINEAR", "LayerTable", "pack"]

# Kinds of layers, and of skip connections.
CONV: Final = 0
DEPTHWISE: Final = 1
LINEAR: Final = 2
ADD: Final = 0


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Layers and skip connections of `n` networks; entries past the counts mean nothing.

    Attributes:
        layers: Shape ``(n, max layers, 5)``: kind, output channels, kernel, stride and weight
            bits of each layer in execution order. Kernels and strides are square.
        n_layers: Layers of each network, shape ``(n,)``.
        skips: Shape ``(n, max skips, 3)``: the number of layers before the connection starts, the
            number it spans, and its kind.
        n_skips: Skip connections of each network, shape ``(n,)``.
    """

    layers: NDArray[np.float32]
    n_layers: NDArray[np.int64]
    skips: NDArray[np.float32]
    n_skips: NDArray[np.int64]


def pack(
    entries: NDArray[np.float32], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Move the entries that are present to the front, in their order, and count them.

    Args:
        entries: Shape ``(n, slots, attributes)``.
        present: Which slots each network has, shape ``(n, slots)``.

    Returns:
        Entries of shape ``(n, largest count, attributes)``, and the counts, shape ``(n,)``.
    """
    counts = present.sum(axis=1)
    order = np.argsort(~present, axis=1, kind="stable")[:, : int(counts.max(initial=0))]
    return np.take_along_axis(entries, order[:, :, None], axis=1), counts
