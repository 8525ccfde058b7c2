# SPDX-License-Identifier: Apache-2.0
"""The layers of a given network at many widths, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.space.model_description import Axis, GivenLayer, ModelDescription

__all__ = ["enumerate_variants", "layers_at"]

IntArray = NDArray[np.int64]

# A layer that reads more combinations of widths than this (a concatenation of many untied groups)
# is costed when it is met, not before.
MAX_VARIANTS = 4096


def layers_at(description: ModelDescription, widths: IntArray) -> LayerArrays:
    """Return the layers of many networks.

    Args:
        description: The network.
        widths: Channels of every group, shape ``(n, n_groups)``.

    Returns:
        Shape ``(n, n_layers)``.
    """
    base = LayerArrays.of(description.at(description.widths))
    columns = [
        _layer_at(given, base[index], widths) for index, given in enumerate(description.layers)
    ]
    table = np.stack([column.table for column in columns], axis=1)
    return LayerArrays(table)


def enumerate_variants(
    description: ModelDescription,
    options: Mapping[int, Sequence[int]],
    labels: Mapping[int, str],
) -> tuple[LayerArrays, bool]:
    """Return the different layers a network may have when groups of one label change together.

    Args:
        description: The network.
        options: Widths of each group that changes; groups of one label have equally many.
        labels: Label of each of these groups.

    Returns:
        Layers of shape ``(m,)``, and whether they are all.
    """
    base = LayerArrays.of(description.at(description.widths))
    given_widths = np.array(description.widths, dtype=np.int64)
    found, is_complete = [], True
    for index, given in enumerate(description.layers):
        groups = [s.group for s in (*given.inputs, *given.outputs) if s.group in options]
        names = list(dict.fromkeys(labels[group] for group in groups))
        lengths = [
            max(len(options[group]) for group in groups if labels[group] == name) for name in names
        ]
        if prod(lengths) > MAX_VARIANTS:
            is_complete, names, lengths = False, [], []
        rows = np.array(list(product(*map(range, lengths))), dtype=np.int64)
        widths = np.tile(given_widths, (len(rows), 1))
        for group in set(groups):
            if labels[group] in names:
                column = rows[:, names.index(labels[group])]
                widths[:, group] = np.array(options[group], dtype=np.int64)[column]
        found.append(_layer_at(given, base[index], widths).table)
    unique, _ = LayerArrays(np.concatenate(found)).unique()
    return unique, is_complete


def _layer_at(given: GivenLayer, base: LayerArrays, widths: IntArray) -> LayerArrays:
    """Return one layer at many widths, shape ``(n,)``."""
    layers = LayerArrays(np.tile(base.table, (len(widths), 1)))
    if given.inputs:
        layers.in_channels[:] = _count(given.inputs, widths)
    if given.outputs:
        layers.out_channels[:] = _count(given.outputs, widths)
    if given.layer.is_depthwise:
        layers.groups[:] = layers.in_channels
    return layers


def _count(axis: Axis, widths: IntArray) -> IntArray:
    counts = [widths[:, segment.group] * segment.factor for segment in axis]
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)
