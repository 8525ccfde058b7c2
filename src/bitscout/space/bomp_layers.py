# SPDX-License-Identifier: Apache-2.0
"""The layers of many BOMP networks at once, without describing them one by one.

Every layer any of the networks may have gets a slot; the slots a network lacks are dropped at the
end. Notation: ``n`` networks, and ``row[name]`` the value of one choice in each, shape ``(n,)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.space.bomp_table import BLOCK_BITS, POSITIONS, REDUCTION_AFTER
from bitscout.space.layer_table import ADD, LayerTable, TableBuilder
from bitscout.space.mobilenet_spec import STEM_KERNEL

__all__ = ["Feature", "head_layers", "stem_layer", "tabulate_layers", "unit_layers"]

Column = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Feature:
    """The tensor between two layers, in each network: integers or arrays of shape ``(n,)``."""

    channels: Column | int
    height: Column | int
    width: Column | int

    def strided(self, channels: Column | int, stride: Column | int) -> Feature:
        """Return what a SAME-padded convolution makes of it."""
        return Feature(channels, -(-self.height // stride), -(-self.width // stride))


def stem_layer(image: Feature, channels: Column | int) -> LayerArrays:
    """Return the 3x3 convolution that reads the image."""
    return _conv(image, image.strided(channels, 1), kernel=STEM_KERNEL, reads_input=1)


def unit_layers(
    source: Feature,
    out_channels: Column | int,
    expansion: Column | int,
    kernel: Column | int,
    stride: Column | int,
) -> tuple[dict[str, LayerArrays], Feature]:
    """Return the three convolutions of an inverted residual by name, and what they give."""
    hidden = source.strided(source.channels * expansion, 1)
    inner = hidden.strided(hidden.channels, stride)
    result = inner.strided(out_channels, 1)
    layers = {
        "expand": _conv(source, hidden),
        "depthwise": _conv(hidden, inner, kernel=kernel, stride=stride, groups=hidden.channels),
        "project": _conv(inner, result),
    }
    return layers, result


def head_layers(
    source: Feature, filters: Column | int, n_classes: int
) -> tuple[LayerArrays, LayerArrays]:
    """Return the last convolution and the classifier behind the global pool."""
    classifier = LayerArrays.from_columns(
        is_linear=1, in_channels=filters, out_channels=n_classes, has_bias=1
    )
    return _conv(source, source.strided(filters, 1)), classifier


def tabulate_layers(
    row: Mapping[str, Column], input_shape: tuple[int, int, int], n_classes: int, act_bits: int
) -> LayerTable:
    """Return the layers and residual additions of each network.

    Args:
        row: Table I with ``stem.channels`` and ``blockN.channels`` in place of the widths.
        input_shape: Channels, height and width of the image.
        n_classes: Outputs of the classifier.
        act_bits: Bits of every activation.
    """
    n = len(row["stem.channels"])
    table, strides = TableBuilder(n), _strides(row)
    image = Feature(*(np.full(n, size) for size in input_shape))
    table.layer(stem_layer(image, row["stem.channels"]), row["stem.bits"], act_bits)
    here = image.strided(row["stem.channels"], 1)
    n_before = np.ones(n, dtype=np.int64)
    for position in POSITIONS:
        block, names = f"block{position}", BLOCK_BITS[position]
        kernel, expansion = row[f"{block}.kernel"], row[f"{block}.expansion"]
        for repetition in range(int(row[f"{block}.repetitions"].max(initial=0))):
            present = row[f"{block}.repetitions"] > repetition
            stride = strides[position] if repetition == 0 else np.ones_like(n_before)
            out = row[f"{block}.channels"]
            layers, after = unit_layers(here, out, expansion, kernel, stride)
            for name in names:
                table.layer(layers[name], row[f"{block}.{name}.bits"], act_bits, present)
            is_residual = present & (stride == 1) & (here.channels == out)
            table.skip(n_before, len(names), ADD, is_residual)
            n_before = n_before + len(names) * present
            here = Feature(
                np.where(present, after.channels, here.channels),
                np.where(present, after.height, here.height),
                np.where(present, after.width, here.width),
            )
    conv2, classifier = head_layers(here, row["conv2.filters"], n_classes)
    table.layer(conv2, row["conv2.bits"], act_bits)
    table.layer(classifier, row["classifier.bits"], act_bits)
    return table.build()


def _conv(
    source: Feature,
    result: Feature,
    *,
    kernel: Column | int = 1,
    stride: Column | int = 1,
    groups: Column | int = 1,
    reads_input: int = 0,
) -> LayerArrays:
    return LayerArrays.from_columns(
        in_channels=source.channels,
        out_channels=result.channels,
        kernel_height=kernel,
        kernel_width=kernel,
        stride_height=stride,
        stride_width=stride,
        groups=groups,
        input_height=source.height,
        input_width=source.width,
        output_height=result.height,
        output_width=result.width,
        has_bias=1,
        reads_input=reads_input,
    )


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
