# SPDX-License-Identifier: Apache-2.0
"""Sizes of many BOMP networks at once, without building their layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitscout.space.base import IndexArray
from bitscout.space.bomp_table import BLOCK_BITS, POSITIONS
from bitscout.space.mobilenet_spec import STEM_KERNEL

__all__ = ["count_bits"]


def count_bits(
    row: Mapping[str, IndexArray], input_channels: int, n_classes: int
) -> tuple[IndexArray, IndexArray]:
    """Return the bits of all weights and the number of biases of each network.

    Equal to summing over the layers of each network, at O(1) NumPy operations of length ``n``.

    Args:
        row: Integers of each row of Table I by name, each of shape ``(n,)``, with
            ``blockN.channels`` in place of the widths, and ``stem.channels``.
        input_channels: Channels of the image.
        n_classes: Outputs of the classifier.

    Returns:
        Two arrays of shape ``(n,)``.
    """
    channels = row["stem.channels"]
    weight_bits = input_channels * channels * STEM_KERNEL**2 * row["stem.bits"]
    n_biases = channels
    for p in POSITIONS:
        block = f"block{p}"
        out, repeats = row[f"{block}.channels"], row[f"{block}.repetitions"]
        present, again = np.minimum(repeats, 1), np.maximum(repeats - 1, 0)
        # Hidden channels of the first repetition, and of all the others together.
        first = present * row[f"{block}.expansion"] * channels
        others = again * row[f"{block}.expansion"] * out
        hidden = first + others
        weight_bits = weight_bits + hidden * (
            row[f"{block}.kernel"] ** 2 * row[f"{block}.depthwise.bits"]
            + out * row[f"{block}.project.bits"]
        )
        n_biases = n_biases + hidden + repeats * out
        if "expand" in BLOCK_BITS[p]:
            expand_bits = row[f"{block}.expand.bits"]
            weight_bits = weight_bits + (first * channels + others * out) * expand_bits
            n_biases = n_biases + hidden
        channels = np.where(present, out, channels)
    head = row["conv2.filters"]
    weight_bits = weight_bits + head * channels * row["conv2.bits"]
    weight_bits = weight_bits + head * n_classes * row["classifier.bits"]
    return weight_bits, n_biases + head + n_classes
