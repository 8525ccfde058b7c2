# SPDX-License-Identifier: Apache-2.0
"""Convolutions that cannot be scheduled, and why."""

from __future__ import annotations

from typing import Final

import numpy as np

from bitscout.hardware.bitfusion.convolutions import Convolutions
from bitscout.hardware.bitfusion.machine import Machine
from bitscout.hardware.bitfusion.tiling import smallest_tiling

__all__ = ["schedule_refusal"]

_LARGEST: Final = 2.0**62  # Sums of two counters stay within int64.


def schedule_refusal(convolutions: Convolutions, machine: Machine) -> tuple[int, str] | None:
    """Return the first convolution that has no schedule, as (index, reason), or None."""
    return _narrow_refusal(convolutions, machine) or _overflow_refusal(convolutions, machine)


def _narrow_refusal(convolutions: Convolutions, machine: Machine) -> tuple[int, str] | None:
    """Return the first convolution whose smallest tile does not fit a buffer."""
    footprint = smallest_tiling(convolutions, machine).footprint(machine)
    buffers = (
        ("weights", "wbuf_bytes", footprint.weights, machine.weight_tile_bits),
        ("inputs", "ibuf_bytes", footprint.inputs, machine.input_tile_bits),
        ("partial sums", "obuf_bytes", footprint.outputs, machine.output_tile_bits),
    )
    for what, option, needed, available in buffers:
        for index in np.flatnonzero(needed > available)[:1]:
            reason = (
                f"the {what} of its smallest tile need {needed[index] / 8:g} bytes, and half of "
                f"`{option}` is {available / 8:g} bytes; make that buffer larger"
            )
            return int(index), reason
    return None


def _overflow_refusal(convolutions: Convolutions, machine: Machine) -> tuple[int, str] | None:
    """Return the first convolution whose counters might exceed 64-bit integers.

    All tiles of a dimension together are less than twice its size, so that the products of five
    trips exceed the layer by less than ``2**5``.
    """
    kernel, output, stride, in_channels, out_channels, _, w, a = (
        column.astype(np.float64) for column in convolutions
    )
    tiles = 32 * machine.batch * output**2 * in_channels * out_channels
    lanes = machine.rows * machine.max_bits**2
    weights = (kernel**2 + lanes) * w
    inputs = np.maximum(kernel, stride) ** 2 * a
    outputs = 2 * (kernel**2 + machine.columns) * machine.partial_sum_bits
    for index in np.flatnonzero(tiles * (weights + inputs + outputs) > _LARGEST)[:1]:
        return int(index), "it is too large for 64-bit counters of bits; choose a smaller batch"
    return None
