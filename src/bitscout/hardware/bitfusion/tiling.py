# SPDX-License-Identifier: Apache-2.0
"""How a convolution is cut into tiles, and what one tile takes.

Notation of the comments in this sub-package:

    K, O, S, IC, OC   kernel, output and stride a side, input and output channels
    w, a              weight and activation bits
    b, o, ic, oc      a tile: inputs of the batch, output positions a side, channels
    nB, nO, nI, nC    trips: ceil(B / b), ceil(O / o) (twice: rows and columns), ceil(IC / ic), ...
    N, M, f           array rows and columns, fusion factor; Nf = N * f products a column and cycle

The kernel is never cut. Tiles at the edge are charged as whole ones. Everything here works on
int64 and, to sift many tiles, on float64; arrays broadcast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitscout.hardware.bitfusion.convolutions import Convolutions
from bitscout.hardware.bitfusion.machine import Machine

__all__ = [
    "Footprint",
    "Tiling",
    "Trips",
    "ceil_div",
    "n_tile_sizes",
    "smallest_tiling",
    "tile_sizes",
]

Array = NDArray[Any]


class Footprint(NamedTuple):
    """Bits of a tile's weights, inputs and outputs."""

    weights: Array
    inputs: Array
    outputs: Array


class Trips(NamedTuple):
    """How often each loop over tiles runs; that over output positions runs twice."""

    batch: Array
    output: Array
    in_channels: Array
    out_channels: Array

    @property
    def total(self) -> Array:
        """Number of tiles."""
        total: Array = self.batch * self.output**2 * self.in_channels * self.out_channels
        return total


class Tiling(NamedTuple):
    """Convolutions with a tile size each, arrays that broadcast together."""

    convolutions: Convolutions
    batch: Array
    output: Array
    in_channels: Array
    out_channels: Array

    def take(self, index: Array) -> Tiling:
        """Return some of tilings of shape ``(n,)``."""
        return Tiling(self.convolutions.take(index), *(column[index] for column in self[1:]))

    def trips(self, machine: Machine) -> Trips:
        """Return how often each loop runs."""
        whole = self.convolutions
        return Trips(
            ceil_div(np.asarray(machine.batch), self.batch),
            ceil_div(whole.output, self.output),
            ceil_div(whole.in_channels, self.in_channels),
            ceil_div(whole.out_channels, self.out_channels),
        )

    def footprint(self, machine: Machine) -> Footprint:
        """Return what a tile takes: weights padded to Nf rows, outputs padded to M columns."""
        whole = self.convolutions
        lanes = machine.rows * machine.fusion_factor(whole.weight_bits, whole.act_bits)
        padded_rows = ceil_div(whole.kernel**2 * self.in_channels, lanes) * lanes
        side = whole.kernel + (self.output - 1) * whole.stride
        positions = np.where(whole.is_im2col, (self.output * whole.kernel) ** 2, side**2)
        columns = ceil_div(self.out_channels, machine.columns) * machine.columns
        return Footprint(
            padded_rows * self.out_channels * whole.weight_bits,
            positions * self.in_channels * self.batch * whole.act_bits,
            self.output**2 * columns * self.batch * machine.partial_sum_bits,
        )

    def row_steps(self, machine: Machine) -> Array:
        """Return the cycles for one output position and up to M output channels of a tile."""
        whole = self.convolutions
        lanes = machine.rows * machine.fusion_factor(whole.weight_bits, whole.act_bits)
        taps = whole.kernel**2
        flat = ceil_div(taps * self.in_channels, lanes)
        return np.where(whole.is_im2col, flat, taps * ceil_div(self.in_channels, lanes))

    def compute_cycles(self, machine: Machine) -> Array:
        """Return the cycles of the array for all tiles."""
        column_steps = ceil_div(self.out_channels, machine.columns)
        one_tile = self.batch * self.output**2 * (column_steps * self.row_steps(machine))
        cycles: Array = self.trips(machine).total * one_tile
        return cycles


def smallest_tiling(convolutions: Convolutions, machine: Machine) -> Tiling:
    """Return the smallest tile of each convolution; where it does not fit, none does."""
    one = np.ones_like(convolutions.kernel)
    out_channels = np.minimum(convolutions.out_channels, machine.columns)
    columns = np.where(convolutions.is_im2col, 1, out_channels)
    return Tiling(convolutions, one, one, one, columns)


def tile_sizes(total: int, smallest: int = 1) -> list[int]:
    """Return the sizes a dimension is cut into: `smallest` doubled below `total`, and `total`.

    Example:
        >>> tile_sizes(100, 32)
        [32, 64, 100]
    """
    sizes = []
    while smallest < total:
        sizes.append(smallest)
        smallest *= 2
    return [*sizes, total]


def n_tile_sizes(total: Array, smallest: Array | int = 1) -> Array:
    """Return the length of `tile_sizes` for each total."""
    ratio = ceil_div(total, smallest)
    # frexp(r - 1) gives the exponent e with r - 1 < 2**e, so e = ceil(log2 r), exactly.
    return np.asarray(np.frexp((ratio - 1).astype(np.float64))[1] + 1, dtype=np.int64)


def ceil_div(numerator: Array, denominator: Array | int) -> Array:
    """Return the quotient, rounded up."""
    quotient: Array = -(-numerator // denominator)
    return quotient
