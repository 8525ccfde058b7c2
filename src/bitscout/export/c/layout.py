# SPDX-License-Identifier: Apache-2.0
"""Tensors, weights and biases in the order and the form the C code has them in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bitscout.export.c.program import code_offset
from bitscout.export.graph import Conv, Grid, IntegerGraph, Linear

__all__ = ["folded_bias", "graph_outputs", "ordered_weights", "stored_codes", "stored_outputs"]

IntArray = npt.NDArray[np.int64]


def stored_codes(
    graph: IntegerGraph, codes: Mapping[str, npt.NDArray[np.integer]]
) -> dict[str, npt.NDArray[np.int8]]:
    """Return the codes of every input as C takes them: int8, ``(N, H * W * C)``."""
    return {
        op.name: _channels_last(codes[op.name] - code_offset(op.grid)).astype(np.int8)
        for op in graph.inputs
    }


def stored_outputs(outputs: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return the graph's outputs as C hands them out: int32, ``(N, H * W * C)``."""
    return _channels_last(outputs).astype(np.int32)


def graph_outputs(outputs: npt.NDArray[np.int32], shape: tuple[int, ...]) -> IntArray:
    """Return what C handed out with the graph's shape: the inverse of `stored_outputs`."""
    if len(shape) == 1:
        return outputs.reshape(-1, *shape).astype(np.int64)
    channels, height, width = shape
    return outputs.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).astype(np.int64)


def _channels_last(values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    if values.ndim > 2:
        values = values.transpose(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def ordered_weights(layer: Conv | Linear, order: IntArray | None) -> npt.NDArray[np.int8]:
    """Return a layer's weights, channels last, or with the features in `order`."""
    if isinstance(layer, Conv):
        return layer.weight.transpose(0, 2, 3, 1)
    return layer.weight if order is None else layer.weight[:, order]


def folded_bias(layer: Conv | Linear, source: Grid) -> npt.NDArray[np.uint32]:
    """Return what sums of ``w x`` start from: the bias less the zero point's share, modulo 2**32.

    The result is right whatever the intermediate sums do, because only the whole one, which fits
    32 bits, is read as a signed number.
    """
    weight_sums = layer.weight.reshape(len(layer.weight), -1).sum(axis=1, dtype=np.int64)
    bias = np.zeros(len(layer.weight), np.int64) if layer.bias is None else layer.bias
    folded = bias - weight_sums * (source.zero_point - code_offset(source))
    wrapped: npt.NDArray[np.uint32] = (folded & 0xFFFFFFFF).astype(np.uint32)
    return wrapped
