# SPDX-License-Identifier: Apache-2.0
"""Peak memory of many networks at once, where each is a chain of layers with skip connections.

Such a network can be executed in one order only, so the peak is a maximum over its steps.

Notation: ``n`` networks of at most ``L`` layers; ``X_k`` the tensor that ``k`` layers have been
applied to, additions included: layer ``k`` reads it, through a pool where it has more elements
than the layer's input. The first layer reads the network's input itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.hardware.mcu import Microcontroller

__all__ = ["chain_flash_bytes", "chain_peak_bytes"]

IntArray = NDArray[np.int64]


def chain_peak_bytes(
    model: Microcontroller,
    layers: LayerArrays,
    act_bits: IntArray,
    n_layers: IntArray,
    skips: IntArray,
    n_skips: IntArray,
) -> IntArray:
    """Return the largest sum of live activations of each network, in bytes.

    The same number as `Microcontroller.peak_memory` gives, at O(L) NumPy operations for each
    skip connection instead of a search for each network.

    Args:
        model: How memory is counted.
        layers: Shape ``(n, L)``; entries past the counts mean nothing.
        act_bits: Bits of each layer's input, shape ``(n, L)``.
        n_layers: Shape ``(n,)``.
        skips: Shape ``(n, S, 3)``: layers before the connection, layers it spans, kind. Ordered
            by their starts; at most one ends after each layer.
        n_skips: Shape ``(n,)``.

    Returns:
        Shape ``(n,)``.
    """
    n, length = layers.shape
    index = np.arange(length)
    present = index < n_layers[:, None]
    bits = _tensor_bits(act_bits, n_layers, skips, n_skips, model.output_bits)
    read = model.batch * layers.in_channels * layers.input_height * layers.input_width
    made = model.batch * layers.out_channels * layers.output_height * layers.output_width
    # Bytes of what layer k reads, of X_k, and of what layer k makes, which is X_{k+1} or a summand
    # of it with the same elements and bits.
    source = _bytes(read, bits[:, :-1])
    result = _bytes(made, bits[:, 1:])
    tensor = np.concatenate([source[:, :1], result], axis=1)
    is_pooled = np.zeros_like(present)
    is_pooled[:, 1:] = read[:, 1:] != made[:, :-1]
    if not model.include_input:
        tensor[:, 0] = 0
        source[:, 0] = 0
    layer_step = source + result
    pool_step = np.where(is_pooled, tensor[:, :-1] + source, 0)
    add_step = np.zeros_like(layer_step)
    # The summand that an addition behind layer k takes from before, or -1.
    summand = np.full_like(layer_step, -1)
    rows = np.arange(n)
    slots = [_Skips.of(skips, n_skips, slot, length) for slot in range(skips.shape[1])]
    last_end = np.zeros((n, length + 1), dtype=np.int64)
    for slot in slots:
        last_end[rows, slot.start] = np.maximum(last_end[rows, slot.start], slot.end)
        is_end = slot.is_there[:, None] & (index == slot.end[:, None] - 1)
        # Both summands are live, and the sum unless it replaces one of them.
        n_tensors = 1 if model.in_place_add else 2
        kept = tensor[rows, slot.start][:, None]
        add_step = np.where(is_end, kept + n_tensors * result, add_step)
        summand = np.where(is_end, slot.start[:, None], summand)
    for slot in slots:
        # A source is kept alive until its last connection ends; several count it once.
        start, end = slot.start[:, None], last_end[rows, slot.start][:, None]
        kept = np.where(slot.is_first, tensor[rows, slot.start], 0)[:, None]
        is_inside = (index > start) & (index < end)
        layer_step += np.where(is_inside | ((index == start) & is_pooled), kept, 0)
        pool_step += np.where(is_inside & is_pooled, kept, 0)
        goes_on = (index >= start) & (index < end - 1) & (summand >= 0) & (summand != start)
        add_step += np.where(goes_on, kept, 0)
    steps = np.maximum(np.maximum(layer_step, pool_step), add_step)
    peak: IntArray = np.where(present, steps, 0).max(axis=1, initial=0)
    return peak


@dataclass(frozen=True, slots=True)
class _Skips:
    """One skip connection of each network, all of shape ``(n,)``."""

    is_there: NDArray[np.bool_]
    is_first: NDArray[np.bool_]
    """Whether it is there and the first one with its start."""
    start: IntArray
    end: IntArray

    @classmethod
    def of(cls, skips: IntArray, n_skips: IntArray, slot: int, length: int) -> _Skips:
        is_there = slot < n_skips
        start = np.where(is_there, skips[:, slot, 0], length)
        end = np.where(is_there, skips[:, slot, 0] + skips[:, slot, 1], 0)
        is_new = np.ones_like(is_there) if slot == 0 else skips[:, slot - 1, 0] != start
        return cls(is_there, is_there & is_new, start, end)


def chain_flash_bytes(
    model: Microcontroller, layers: LayerArrays, weight_bits: IntArray, present: NDArray[np.bool_]
) -> IntArray:
    """Return what the constants of each network take, in bytes, shape ``(n,)``.

    Args:
        model: How constants are stored.
        layers: Shape ``(n, L)``.
        weight_bits: Shape ``(n, L)``.
        present: Which entries are layers, shape ``(n, L)``.
    """
    # The same few layers come again and again: each is packed once.
    flat, bits = layers[present], weight_bits[present]
    distinct, row = flat.unique()
    widths, column = np.unique(bits, return_inverse=True)
    shape = (len(distinct), len(widths))
    every = distinct[np.repeat(np.arange(shape[0]), shape[1])]
    packed = model.flash_bytes(every, np.tile(widths, shape[0])).reshape(shape)
    costs = np.zeros(present.shape, dtype=np.int64)
    costs[present] = packed[row, column.reshape(-1)]
    return np.asarray(costs.sum(axis=1), dtype=np.int64)


def _tensor_bits(
    act_bits: IntArray, n_layers: IntArray, skips: IntArray, n_skips: IntArray, output_bits: int
) -> IntArray:
    """Return the bits of ``X_0 ... X_L``, shape ``(n, L + 1)``: the most any reader takes.

    A skip connection reads what the layer behind its end reads.
    """
    n, length = act_bits.shape
    rows = np.arange(n)
    bits = np.concatenate([act_bits, np.zeros((n, 1), dtype=np.int64)], axis=1)
    bits[np.arange(length + 1) >= n_layers[:, None]] = output_bits
    for slot in range(skips.shape[1] - 1, -1, -1):
        has_skip = slot < n_skips
        start = np.where(has_skip, skips[:, slot, 0], length)
        end = np.where(has_skip, skips[:, slot, 0] + skips[:, slot, 1], length)
        bits[rows, start] = np.maximum(bits[rows, start], bits[rows, end])
    return bits


def _bytes(elements: IntArray, bits: IntArray) -> IntArray:
    return np.asarray(-(-elements * bits // 8), dtype=np.int64)
