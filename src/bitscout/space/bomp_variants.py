# SPDX-License-Identifier: Apache-2.0
"""Every layer that any network of a BOMP space may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bitscout.core import LayerArrays
from bitscout.space.bomp_layers import Feature, head_layers, stem_layer, unit_layers
from bitscout.space.bomp_table import BLOCK_BITS, REDUCTION_AFTER

__all__ = ["BlockOptions", "enumerate_layers"]


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """What one block may choose; repetitions of 0 leave it out."""

    channels: Sequence[int]
    kernels: Sequence[int]
    expansions: Sequence[int]
    repetitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class _State:
    """What may come out of a block: a tensor, and the stride the next block has to take."""

    feature: Feature
    stride: int


def enumerate_layers(
    image: Feature,
    first_widths: Sequence[tuple[int, int]],
    blocks: Mapping[int, BlockOptions],
    filters: Sequence[int],
    n_classes: int,
) -> LayerArrays:
    """Return the different layers of all networks, in no particular order, shape ``(m,)``.

    Walks from block to block with the set of tensors that may reach it, some dozens.

    Args:
        image: The network's input.
        first_widths: Channels of the stem and of block 1, which one choice sets together.
        blocks: Options of each block by position, 1 first.
        filters: Filters of the last convolution.
        n_classes: Outputs of the classifier.
    """
    found: list[LayerArrays] = []
    states: set[_State] = set()
    for stem, channels in first_widths:
        found.append(stem_layer(image, stem))
        first = _State(image.strided(stem, 1), 1)
        # The channels of block 1 are no free choice once the stem's are known.
        states |= _walk(first, 1, _only(blocks[1], channels), found)
    for position, options in list(blocks.items())[1:]:
        states = set().union(*(_walk(state, position, options, found) for state in states))
    for state, n_filters in product(states, filters):
        found.extend(head_layers(state.feature, n_filters, n_classes))
    rows = [np.atleast_2d(layers.table) for layers in found]
    return LayerArrays(np.concatenate(rows)).unique()[0]


def _walk(
    state: _State, position: int, options: BlockOptions, found: list[LayerArrays]
) -> set[_State]:
    """Add the layers of a block that reads `state` to `found`, and return what it may give."""
    pending = 2 if position in REDUCTION_AFTER else 1
    after: set[_State] = set()
    if 0 in options.repetitions:
        after.add(_State(state.feature, state.stride * pending))
    grid = np.meshgrid(options.channels, options.expansions, options.kernels, indexing="ij")
    channels, expansion, kernel = (axis.ravel() for axis in grid)
    layers, result = unit_layers(state.feature, channels, expansion, kernel, state.stride)
    found.extend(layers[name] for name in BLOCK_BITS[position])
    if max(options.repetitions) > 1:
        again, _ = unit_layers(result, channels, expansion, kernel, 1)
        found.extend(again[name] for name in BLOCK_BITS[position])
    height, width = int(result.height), int(result.width)
    after |= {_State(Feature(out, height, width), pending) for out in options.channels}
    return after


def _only(options: BlockOptions, channels: int) -> BlockOptions:
    return BlockOptions([channels], options.kernels, options.expansions, options.repetitions)
