# SPDX-License-Identifier: Apache-2.0
"""Events of a scheduled layer and the energy they take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitscout.hardware.bitfusion.machine import Energies, Machine
from bitscout.hardware.bitfusion.tiling import Tiling, ceil_div

__all__ = ["Counters", "EnergyParts", "count_events", "energy_parts"]

IntArray = NDArray[np.int64]
Array = NDArray[Any]


class Counters(NamedTuple):
    """Bits moved at each place, and cycles the array computes; all of shape ``(n,)``."""

    compute_cycles: IntArray
    wbuf_read_bits: IntArray
    wbuf_write_bits: IntArray
    ibuf_read_bits: IntArray
    ibuf_write_bits: IntArray
    obuf_read_bits: IntArray
    obuf_write_bits: IntArray
    dram_read_bits: IntArray
    dram_write_bits: IntArray


class EnergyParts(NamedTuple):
    """Energy in nJ at each place, shape ``(n,)``."""

    core: Array
    wbuf: Array
    ibuf: Array
    obuf: Array
    dram: Array
    total: Array
    """All of them, added in the order of `Counters`."""


def count_events(tiling: Tiling, moved: IntArray, machine: Machine) -> Counters:
    """Return the events of tilings of shape ``(n,)`` whose DRAM traffic is `moved`.

    Args:
        tiling: Tile sizes, int64.
        moved: Bits of weights, inputs and outputs to and from DRAM, ``(3, n)``. Outputs are read
            as partial sums and written, even where the reduction is not cut.
        machine: The accelerator.
    """
    n_tiles = tiling.trips(machine).total
    wbuf, ibuf, obuf = (n_tiles * bits for bits in _reads_in_a_tile(tiling, machine))
    weights, inputs, outputs = moved
    return Counters(
        compute_cycles=tiling.compute_cycles(machine),
        wbuf_read_bits=wbuf,
        wbuf_write_bits=weights,
        ibuf_read_bits=ibuf,
        ibuf_write_bits=inputs,
        obuf_read_bits=obuf + outputs,
        obuf_write_bits=obuf + outputs,
        dram_read_bits=weights + inputs + outputs,
        dram_write_bits=outputs,
    )


def energy_parts(counters: Counters, energies: Energies) -> EnergyParts:
    """Return the energy of `counters`; leakage and stalls are not in the model."""
    core = counters.compute_cycles * energies.core
    wbuf_read = counters.wbuf_read_bits * energies.wbuf_read
    wbuf_write = counters.wbuf_write_bits * energies.wbuf_write
    ibuf_read = counters.ibuf_read_bits * energies.ibuf_read
    ibuf_write = counters.ibuf_write_bits * energies.ibuf_write
    obuf_read = counters.obuf_read_bits * energies.obuf_read
    obuf_write = counters.obuf_write_bits * energies.obuf_write
    dram_read = counters.dram_read_bits * energies.dram
    dram_write = counters.dram_write_bits * energies.dram
    # NOTE: one after the other, as the original adds them: energy breaks ties between schedules,
    # and another order of additions would break some of them differently.
    total = core + wbuf_read + wbuf_write + ibuf_read + ibuf_write
    total = total + obuf_read + obuf_write + dram_read + dram_write
    return EnergyParts(
        core,
        wbuf_read + wbuf_write,
        ibuf_read + ibuf_write,
        obuf_read + obuf_write,
        dram_read + dram_write,
        total,
    )


def _reads_in_a_tile(tiling: Tiling, machine: Machine) -> tuple[IntArray, IntArray, IntArray]:
    """Return the bits a tile reads of the three buffers; it writes to obuf what it reads of it.

    Inside a tile inputs, outputs or weights stay in the array, whichever estimate is lowest. The
    estimates pad channels to the array, what is charged then does not.
    """
    whole, sum_bits = tiling.convolutions, machine.partial_sum_bits
    w, a = whole.weight_bits, whole.act_bits
    lanes = machine.rows * machine.fusion_factor(w, a)
    columns = ceil_div(tiling.out_channels, machine.columns) * machine.columns
    positions = tiling.batch * tiling.output**2
    rows = tiling.row_steps(machine) * lanes
    estimates = np.stack(
        [
            rows * positions * (a + columns * (w + sum_bits)),
            columns * positions * (sum_bits + rows * (a + w)),
            rows * columns * (w + positions * (a + sum_bits)),
        ]
    )
    stays = estimates.argmin(axis=0)  # The first of equals: inputs, outputs, weights.
    weights = whole.kernel**2 * tiling.in_channels * tiling.out_channels
    products = weights * positions
    wbuf = np.where(stays == 2, weights, products) * w
    per_input = whole.kernel**2 * tiling.in_channels * positions
    ibuf = np.where(stays == 0, per_input, products) * a
    obuf = np.where(stays == 1, tiling.out_channels * positions, products) * sum_bits
    return wbuf, ibuf, obuf
