# SPDX-License-Identifier: Apache-2.0
"""What the schedule of a layer depends on besides the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Energies", "Machine"]


@dataclass(frozen=True, slots=True)
class Energies:
    """Energy of each event, in nJ: of a cycle of the whole array, of one bit for the others."""

    core: float
    wbuf_read: float
    wbuf_write: float
    ibuf_read: float
    ibuf_write: float
    obuf_read: float
    obuf_write: float
    dram: float


@dataclass(frozen=True, slots=True)
class Machine:
    """One configuration of the accelerator.

    Attributes:
        rows: Fusion units along the reduction, ``N``.
        columns: Fusion units along the output channels, ``M``.
        max_bits: Widest operand of a fusion unit.
        min_bits: Narrowest operand of a fusion unit.
        partial_sum_bits: Width of every output and partial sum, on chip and in DRAM.
        dram_bits_per_cycle: Width of the DRAM interface.
        weight_tile_bits: What a tile's weights may take: half of the weight buffer, the other
            half being filled meanwhile.
        input_tile_bits: The same of the input buffer.
        output_tile_bits: The same of the output buffer.
        batch: Inputs computed together.
        energies: What each event costs.
    """

    rows: int
    columns: int
    max_bits: int
    min_bits: int
    partial_sum_bits: int
    dram_bits_per_cycle: int
    weight_tile_bits: int
    input_tile_bits: int
    output_tile_bits: int
    batch: int
    energies: Energies

    def fusion_factor(self, weight_bits: NDArray[Any], act_bits: NDArray[Any]) -> NDArray[Any]:
        """Return how many products one fusion unit makes a cycle, Section 3 of the paper.

        Bits must be in ``[1, max_bits]``; those below `min_bits` count as `min_bits`.
        """
        of_weights = self.max_bits // np.maximum(weight_bits, self.min_bits)
        factor: NDArray[Any] = of_weights * (self.max_bits // np.maximum(act_bits, self.min_bits))
        return factor
