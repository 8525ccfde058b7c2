# SPDX-License-Identifier: Apache-2.0
"""From layers to the square, ungrouped convolutions that the array computes.

A linear layer is a 1x1 convolution with one output position. A convolution with ``G`` groups of
``c = in_channels / G`` input and ``d = out_channels / G`` output channels becomes, as
`DepthwiseMode` says (``c = d = 1`` where every channel is filtered on its own):

    dense          1 convolution of G*c -> G*d channels, zeros between the groups computed too
    ic1            1 convolution of c -> G*d: every array column its own channel, rows wasted
    block          ceil(G / k) convolutions of k*c -> k*d, with k = max(1, floor(8f / c)) groups
                   side by side and f the fusion factor
    per_channel    G convolutions of c -> d

The rules for ``c = d = 1`` are HAQ's (dense), APQ's (block) and two readings of the hardware; for
wider groups they are generalized, without published figures to compare with.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.hardware.bitfusion.machine import Machine

__all__ = ["Convolutions", "DepthwiseMode", "convolutions_of", "described", "geometry_refusal"]

IntArray = NDArray[np.int64]
DepthwiseMode = Literal["dense", "block", "ic1", "per_channel"]

# Channels of a block per product of a fusion unit, inferred from APQ's public table.
_BLOCK_CHANNELS: Final = 8


class Convolutions(NamedTuple):
    """Square convolutions as columns that broadcast together.

    The input's size is not among them: a tile reads ``kernel + (output - 1) * stride`` positions
    a side, so that padding is loaded and paid for like data.
    """

    kernel: NDArray[Any]
    output: NDArray[Any]
    stride: NDArray[Any]
    in_channels: NDArray[Any]
    out_channels: NDArray[Any]
    is_im2col: NDArray[Any]
    """1 where input patches are laid out in DRAM beforehand: in the layer that reads the image."""
    weight_bits: NDArray[Any]
    act_bits: NDArray[Any]

    def take(self, index: NDArray[Any] | slice) -> Convolutions:
        """Return some of convolutions of shape ``(n,)``."""
        return Convolutions(*(column[index] for column in self))


def convolutions_of(
    layers: LayerArrays,
    weight_bits: IntArray,
    act_bits: IntArray,
    *,
    machine: Machine,
    depthwise: DepthwiseMode,
) -> tuple[Convolutions, IntArray]:
    """Return the convolution each layer becomes and how many times it is computed.

    Args:
        layers: Shape ``(n,)``, none of which `geometry_refusal` refuses.
        weight_bits: Shape ``(n,)``.
        act_bits: Shape ``(n,)``.
        machine: Gives the fusion factor.
        depthwise: What a convolution with groups becomes.
    """
    groups = layers.groups
    group_in, group_out = layers.in_channels // groups, layers.out_channels // groups
    side_by_side = groups  # Groups in one convolution; exact for no groups in every mode.
    repeats = np.ones_like(groups)
    if depthwise == "block":
        factor = machine.fusion_factor(weight_bits, act_bits)
        block = np.maximum(1, _BLOCK_CHANNELS * factor // group_in)
        side_by_side = np.where(groups > 1, block, 1)
        repeats = -(-groups // side_by_side)
    elif depthwise == "per_channel":
        side_by_side, repeats = repeats, groups
    in_channels = group_in * (1 if depthwise == "ic1" else side_by_side)
    is_im2col = (layers.reads_input & ~layers.is_linear).astype(np.int64)
    convolutions = Convolutions(
        kernel=layers.kernel_height,
        output=layers.output_height,
        stride=layers.stride_height,
        in_channels=in_channels,
        out_channels=group_out * side_by_side,
        is_im2col=is_im2col,
        weight_bits=weight_bits,
        act_bits=act_bits,
    )
    return convolutions, repeats


def geometry_refusal(layers: LayerArrays) -> tuple[int, str] | None:
    """Return the first layer that is no square convolution, as (index, reason), or None."""
    pairs = (
        ("kernel", layers.kernel_height, layers.kernel_width),
        ("stride", layers.stride_height, layers.stride_width),
        ("output", layers.output_height, layers.output_width),
        ("dilation", layers.dilation_height, layers.dilation_width),
    )
    for what, height, width in pairs:
        is_refused = (height > 1) | (width > 1) if what == "dilation" else height != width
        for index in np.flatnonzero(is_refused)[:1]:
            came = f"{height[index]}x{width[index]}"
            wanted = "no dilation" if what == "dilation" else f"a square {what}"
            return int(index), f"its rule needs {wanted}, got {came}"
    return None


def described(layer: LayerArrays) -> str:
    """Return a layer of shape ``()`` in words, for a message without its name."""
    if layer.is_linear:
        return f"the linear layer of {layer.in_channels} -> {layer.out_channels} features"
    return (
        f"the {layer.kernel_height}x{layer.kernel_width} convolution of {layer.in_channels} -> "
        f"{layer.out_channels} channels in {layer.groups} groups to {layer.output_height}x"
        f"{layer.output_width}"
    )
