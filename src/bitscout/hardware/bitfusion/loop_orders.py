# SPDX-License-Identifier: Apache-2.0
"""DRAM traffic of every order of the loops over tiles.

Weights change with the loops over input and output channels, inputs with those over the batch,
output positions and input channels, outputs with those over the batch, positions and output
channels. From the innermost loop outwards a tensor stays in its buffer as long as what the loops
so far touch of it fits; once it does not, every further loop fetches it all again. The
last amount that fitted is filled before computing starts, or drained after it ends.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitscout.hardware.bitfusion.machine import Machine
from bitscout.hardware.bitfusion.tiling import Footprint, Trips, ceil_div

__all__ = ["Traffic", "dram_traffic", "loop_orders", "total_cycles"]

IntArray = NDArray[np.int64]

_BATCH, _OUTPUT, _IN_CHANNELS, _OUT_CHANNELS = range(4)
# [tensor, loop]: weights, inputs, outputs by the four loops in the order of `Trips`.
_TOUCHES: Final = np.array([[0, 0, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]], dtype=np.bool_)


class Traffic(NamedTuple):
    """Bits between DRAM and the buffers, for weights, inputs and outputs.

    Attributes:
        moved: Shape ``(3, n_orders, n)``: loaded; outputs are loaded and also stored.
        resident: Shape ``(3, n_orders, n)``: of these the part that is moved before the first
            tile is computed (and for outputs, also after the last one).
    """

    moved: IntArray
    resident: IntArray


@cache
def loop_orders(*, has_batch: bool, has_output: bool) -> IntArray:
    """Return the different orders of the loops, each innermost first, ``(n_orders, n_loops)``.

    A loop that runs once changes nothing and can be left out. The two loops over output positions
    run equally often, so that exchanging them changes nothing: 60 orders of five loops, not 120.
    """
    loops = [_BATCH] * has_batch + [_OUTPUT] * (2 * has_output) + [_IN_CHANNELS, _OUT_CHANNELS]
    return np.array(sorted(set(permutations(loops))), dtype=np.int64)


def dram_traffic(
    footprint: Footprint, trips: Trips, orders: IntArray, machine: Machine
) -> Traffic:
    """Return the traffic of tiles of shape ``(n,)`` in each of `orders`."""
    n_trips = np.stack([np.asarray(count, dtype=np.int64) for count in trips])
    moved = np.stack(footprint)[:, None, :].repeat(len(orders), axis=1)
    resident = moved.copy()
    is_resident = np.ones(moved.shape, dtype=np.bool_)
    capacity = np.array(
        [machine.weight_tile_bits, machine.input_tile_bits, machine.output_tile_bits]
    )[:, None, None]
    for loops in orders.T:
        is_touched = _TOUCHES[:, loops, None]
        np.multiply(moved, n_trips[loops], out=moved, where=is_touched | ~is_resident)
        is_resident &= ~is_touched | (moved <= capacity)
        np.copyto(resident, moved, where=is_resident)
    return Traffic(moved, resident)


def total_cycles(traffic: Traffic, compute: IntArray, machine: Machine) -> IntArray:
    """Return the cycles of each order of each tile, ``(n_orders, n)``.

    What stays in the buffers is filled and drained outside of the computation; the rest of the
    traffic goes on beside it, and the longer of the two counts.
    """
    bits_per_cycle = machine.dram_bits_per_cycle
    fill, drain = traffic.resident.sum(axis=0), traffic.resident[2]
    streamed = traffic.moved.sum(axis=0) + traffic.moved[2] - fill - drain
    middle = np.maximum(ceil_div(streamed, bits_per_cycle), compute)
    cycles: IntArray = middle + ceil_div(fill, bits_per_cycle) + ceil_div(drain, bits_per_cycle)
    return cycles
