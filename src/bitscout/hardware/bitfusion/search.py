# SPDX-License-Identifier: Apache-2.0
"""The cheapest schedule of each convolution: tile sizes and order of loops, exactly.

Cheapest means fewest cycles, and of these least energy. A lower bound on the cycles of a tile in
any order costs a few operations, and few tiles have one below the cycles of the best; only these
are computed in every order. With ``c`` compute cycles, ``x`` the footprints and ``R`` bits a cycle
to DRAM, the larger of

    c + (x_weights + x_inputs + 2 x_outputs) / R              one tile is filled and drained
    (nI nC x_weights + nB nO^2 nI x_inputs + 2 nB nO^2 nC x_outputs) / R      all data moves once
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitscout.hardware.bitfusion.convolutions import Convolutions
from bitscout.hardware.bitfusion.counters import Counters, count_events, energy_parts
from bitscout.hardware.bitfusion.loop_orders import dram_traffic, loop_orders, total_cycles
from bitscout.hardware.bitfusion.machine import Machine
from bitscout.hardware.bitfusion.tiling import Footprint, Tiling, n_tile_sizes, tile_sizes

__all__ = ["Schedules", "cheapest_schedules"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_N_GEOMETRY: Final = 6  # Leading columns of `Convolutions` that are the same at all bit-widths.
_MAX_GRID: Final = 400_000  # Tiles that are bounded at a time: 3 MB an array.
_MAX_ORDERS: Final = 40_000  # Orders of tiles that are computed at a time: 1 MB an array.
_SLACK: Final = 1 - 1e-12  # Bounds are float64 of ~20 operations, each exact to 1.1e-16.


class Schedules(NamedTuple):
    """The cheapest schedule of each convolution, shape ``(n,)``."""

    cycles: IntArray
    counters: Counters


class _Candidates(NamedTuple):
    """Tiles that fit the buffers; `row` says of which convolution."""

    row: IntArray
    bound: FloatArray
    tiling: Tiling

    def take(self, index: NDArray[np.bool_] | IntArray) -> _Candidates:
        return _Candidates(self.row[index], self.bound[index], self.tiling.take(index))


class _Evaluated(NamedTuple):
    """Schedules that were computed and were the best of their row at that time."""

    row: IntArray
    cycles: IntArray
    moved: IntArray
    """Shape ``(3, n)``."""
    tiling: Tiling


def cheapest_schedules(convolutions: Convolutions, machine: Machine) -> Schedules:
    """Return the cheapest schedule of each of `convolutions`, whose columns have shape ``(n,)``.

    Every one must have a tile that fits, see `tiling.smallest_tiling`. Memory is bounded whatever
    ``n``. Time is best where equal geometries follow each other.
    """
    n = len(convolutions.kernel)
    cycles = np.zeros(n, dtype=np.int64)
    counters = Counters(*(np.zeros(n, dtype=np.int64) for _ in Counters._fields))
    for chunk in _chunks(convolutions, machine):
        found = _search(convolutions.take(chunk), machine)
        cycles[chunk] = found.cycles
        for column, values in zip(counters, found.counters, strict=True):
            column[chunk] = values
    return Schedules(cycles, counters)


def _chunks(convolutions: Convolutions, machine: Machine) -> Iterator[slice]:
    """Cut the convolutions into runs whose tiles are at most `_MAX_GRID`, or single ones."""
    smallest = np.where(convolutions.is_im2col, 1, machine.columns)
    n_tiles = (
        n_tile_sizes(np.asarray(machine.batch))
        * n_tile_sizes(convolutions.output)
        * n_tile_sizes(convolutions.in_channels)
        * n_tile_sizes(convolutions.out_channels, smallest)
    )
    start = total = 0
    for position, count in enumerate(n_tiles.tolist()):
        if total and total + count > _MAX_GRID:
            yield slice(start, position)
            start, total = position, 0
        total += count
    if total:
        yield slice(start, len(n_tiles))


def _search(convolutions: Convolutions, machine: Machine) -> Schedules:
    candidates = _fitting_tiles(convolutions, machine)
    best = np.full(len(convolutions.kernel), np.iinfo(np.int64).max)
    # Candidates of a row follow each other: the first of each row after sorting by bound.
    order = np.lexsort((candidates.bound, candidates.row))
    is_first = np.diff(candidates.row[order], prepend=-1) > 0
    seeds, rest = order[is_first], order[~is_first]
    evaluated = list(_evaluate(candidates.take(seeds), best, machine))
    rest = rest[candidates.bound[rest] <= best[candidates.row[rest]]]
    evaluated += _evaluate(candidates.take(rest), best, machine)
    return _select(evaluated, best, machine)


def _fitting_tiles(convolutions: Convolutions, machine: Machine) -> _Candidates:
    """Return every tile that fits the buffers, with a lower bound on its cycles in any order."""
    geometry = np.stack(convolutions[:_N_GEOMETRY])
    is_new = (np.diff(geometry, axis=1) != 0).any(axis=0)
    starts = [0, *(np.flatnonzero(is_new) + 1).tolist(), geometry.shape[1]]
    found = []
    for start, end in pairwise(starts):
        grid = _grid(convolutions.take(slice(start, end)), machine)
        footprint = grid.footprint(machine)
        bound = _bound(grid, footprint, machine)
        fits = (
            (footprint.weights <= machine.weight_tile_bits)
            & (footprint.inputs <= machine.input_tile_bits)
            & (footprint.outputs <= machine.output_tile_bits)
        )
        where = np.nonzero(np.broadcast_to(fits, bound.shape))
        row = where[0] + start
        sizes = [
            axis.reshape(-1)[index].astype(np.int64)
            for axis, index in zip(grid[1:], where[1:], strict=True)
        ]
        found.append((row, bound[where], *sizes))
    row, bound, *sizes = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return _Candidates(row, bound, Tiling(convolutions.take(row), *sizes))


def _grid(convolutions: Convolutions, machine: Machine) -> Tiling:
    """Return all tiles of convolutions that differ in bits only, axes (bits, b, o, ic, oc)."""
    geometry = [column[:1].astype(np.float64) for column in convolutions[:_N_GEOMETRY]]
    bits = [column.astype(np.float64) for column in convolutions[_N_GEOMETRY:]]
    whole = Convolutions(*(column.reshape(-1, 1, 1, 1, 1) for column in (*geometry, *bits)))
    _, output, _, in_channels, out_channels, is_im2col = (int(c.item()) for c in geometry)
    axes = [
        tile_sizes(machine.batch),
        tile_sizes(output),
        tile_sizes(in_channels),
        tile_sizes(out_channels, 1 if is_im2col else machine.columns),
    ]
    shaped = [
        np.array(sizes, dtype=np.float64).reshape(-1, *[1] * (len(axes) - 1 - position))
        for position, sizes in enumerate(axes)
    ]
    return Tiling(whole, *shaped)


def _bound(tiling: Tiling, footprint: Footprint, machine: Machine) -> FloatArray:
    """Return the lower bound on cycles of the module's docstring."""
    trips = tiling.trips(machine)
    positions = trips.batch * trips.output**2
    once = footprint.weights + footprint.inputs + 2 * footprint.outputs
    weights = footprint.weights * (trips.in_channels * trips.out_channels)
    inputs = footprint.inputs * (positions * trips.in_channels)
    outputs = footprint.outputs * (2 * positions * trips.out_channels)
    scale = _SLACK / machine.dram_bits_per_cycle
    filled = tiling.compute_cycles(machine) * _SLACK + once * scale
    bound: FloatArray = np.maximum(filled, (weights + inputs + outputs) * scale)
    return bound


def _evaluate(candidates: _Candidates, best: IntArray, machine: Machine) -> Iterator[_Evaluated]:
    """Compute every order of the candidates and lower `best`, the fewest cycles of each row.

    Yields those that were the best of their row when they were computed, ties among them.
    """
    trips = candidates.tiling.trips(machine)
    for has_batch in (False, True):
        for has_output in (False, True):
            is_of_kind = ((trips.batch > 1) == has_batch) & ((trips.output > 1) == has_output)
            kind = np.flatnonzero(is_of_kind)
            orders = loop_orders(has_batch=has_batch, has_output=has_output)
            step = _MAX_ORDERS // len(orders)
            for start in range(0, len(kind), step):
                part = candidates.take(kind[start : start + step])
                yield _evaluate_orders(part, orders, best, machine)


def _evaluate_orders(
    candidates: _Candidates, orders: IntArray, best: IntArray, machine: Machine
) -> _Evaluated:
    tiling, row = candidates.tiling, candidates.row
    traffic = dram_traffic(tiling.footprint(machine), tiling.trips(machine), orders, machine)
    cycles = total_cycles(traffic, tiling.compute_cycles(machine), machine)
    np.minimum.at(best, row, cycles.min(axis=0))
    order, tile = np.nonzero(cycles == best[row])
    return _Evaluated(
        row[tile], cycles[order, tile], traffic.moved[:, order, tile], tiling.take(tile)
    )


def _select(evaluated: list[_Evaluated], best: IntArray, machine: Machine) -> Schedules:
    """Return the schedule of least energy among those of fewest cycles."""
    final = []
    for part in evaluated:
        is_best = np.flatnonzero(part.cycles == best[part.row])
        counters = count_events(part.tiling.take(is_best), part.moved[:, is_best], machine)
        final.append((part.row[is_best], *counters))
    row, *columns = (np.concatenate(parts) for parts in zip(*final, strict=True))
    counters = Counters(*columns)
    energy = energy_parts(counters, machine.energies).total
    # Schedules of equal cycles and energy may still differ: take the one of least DRAM traffic,
    # so that the answer does not depend on the order of evaluation.
    order = np.lexsort((*columns[::-1], counters.dram_read_bits, energy, row))
    chosen = order[np.diff(row[order], prepend=-1) > 0]
    return Schedules(best, Counters(*(column[chosen] for column in counters)))
