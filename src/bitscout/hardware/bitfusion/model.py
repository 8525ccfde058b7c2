# SPDX-License-Identifier: Apache-2.0
"""The hardware model `bitfusion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.bitfusion.convolutions import (
    Convolutions,
    DepthwiseMode,
    convolutions_of,
    described,
    geometry_refusal,
)
from bitscout.hardware.bitfusion.counters import energy_parts
from bitscout.hardware.bitfusion.limits import schedule_refusal
from bitscout.hardware.bitfusion.machine import Energies, Machine
from bitscout.hardware.bitfusion.search import cheapest_schedules
from bitscout.hardware.bitfusion.sram import BLOCK_BITS, SramBank, bank_of
from bitscout.hardware.model import LayerModel, constant, tunable

__all__ = ["BitFusion"]

IntArray = NDArray[np.int64]

_NJ_PER_MJ: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class BitFusion(LayerModel):
    """Cycles, energy and traffic of a network on a Bit Fusion accelerator.

    For every layer the tiles and the order of loops are found that take the fewest cycles, and of
    these the least energy. Layers follow each other, nothing stays on chip between them; pooling,
    additions and activation functions cost nothing. Costs are not monotone in the bit-widths, nor
    in the sizes of the buffers.

    Attributes:
        rows: Fusion units along the reduction.
        columns: Fusion units along the output channels.
        max_bits: Widest operand of a fusion unit; wider ones are refused.
        min_bits: Narrowest operand of a fusion unit; narrower ones compute as such.
        partial_sum_bits: Width of outputs and partial sums, on chip and in DRAM.
        dram_bits_per_cycle: Width of the DRAM interface.
        wbuf_bytes: Weight buffer, in a bank for each fusion unit.
        ibuf_bytes: Input buffer, in a bank for each row.
        obuf_bytes: Output buffer, in a bank for each column.
        frequency_hz: Clock.
        dram_nj_per_bit: Energy of reading or writing DRAM.
        core_power_nw: Dynamic power of a synthesized array of `core_units` fusion units at
            `core_synthesis_hz`. Energy per cycle is proportional to the units and does not depend
            on `frequency_hz`, on the precision or on how many units have work.
        core_units: Fusion units that were synthesized.
        core_synthesis_hz: Clock of that synthesis.
        depthwise: What convolutions with groups become: ``ic1`` (every column its own channel),
            ``dense`` (groups ignored, as HAQ does), ``block`` (as APQ does) or ``per_channel``;
            see `bitscout.hardware.bitfusion.convolutions`.
        wbuf_read_nj_per_bit: Energy of reading the weight buffer where it is not to be that of
            the SRAM table; likewise the next five.

    Raises:
        ConfigError: If a constant is out of range, or the SRAM table has no bank for a buffer.
    """

    quantities: ClassVar[Mapping[str, str]] = {
        "cycles": "cycles",
        "compute_cycles": "cycles",
        "stall_cycles": "cycles",
        "latency_ms": "ms",
        "energy_mj": "mJ",
        "core_mj": "mJ",
        "wbuf_mj": "mJ",
        "ibuf_mj": "mJ",
        "obuf_mj": "mJ",
        "dram_mj": "mJ",
        "wbuf_read_bits": "bits",
        "wbuf_write_bits": "bits",
        "ibuf_read_bits": "bits",
        "ibuf_write_bits": "bits",
        "obuf_read_bits": "bits",
        "obuf_write_bits": "bits",
        "dram_read_bits": "bits",
        "dram_write_bits": "bits",
    }
    weight_bits: ClassVar = range(1, 9)
    act_bits: ClassVar = range(1, 9)

    rows: int = constant("fusion units")
    columns: int = constant("fusion units")
    max_bits: int = constant("bits")
    min_bits: int = constant("bits")
    partial_sum_bits: int = constant("bits")
    dram_bits_per_cycle: int = constant("bits/cycle")
    wbuf_bytes: int = constant("bytes")
    ibuf_bytes: int = constant("bytes")
    obuf_bytes: int = constant("bytes")
    frequency_hz: float = constant("Hz")
    dram_nj_per_bit: float = constant("nJ/bit", minimum=0)
    core_power_nw: float = constant("nW", minimum=0)
    core_units: int = constant("fusion units")
    core_synthesis_hz: float = constant("Hz")
    depthwise: DepthwiseMode = tunable("ic1")  # noqa: RUF009  # a field
    wbuf_read_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)
    wbuf_write_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)
    ibuf_read_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)
    ibuf_write_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)
    obuf_read_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)
    obuf_write_nj_per_bit: float | None = tunable(None, "nJ/bit", minimum=0)

    def __post_init__(self) -> None:
        """Reject constants out of range and buffers without an energy."""
        super().__post_init__()
        if self.min_bits > self.max_bits:
            msg = (
                f"`min_bits` of hardware {self.name!r} must be at most `max_bits` = "
                f"{self.max_bits}, got {self.min_bits}."
            )
            raise ConfigError(msg)
        _ = self.machine

    @cached_property
    def machine(self) -> Machine:
        """The accelerator as its schedules see it."""
        return Machine(
            rows=self.rows,
            columns=self.columns,
            max_bits=self.max_bits,
            min_bits=self.min_bits,
            partial_sum_bits=self.partial_sum_bits,
            dram_bits_per_cycle=self.dram_bits_per_cycle,
            weight_tile_bits=self.wbuf_bytes * 8 // 2,
            input_tile_bits=self.ibuf_bytes * 8 // 2,
            output_tile_bits=self.obuf_bytes * 8 // 2,
            batch=self.batch,
            energies=self._energies(),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's figures must know."""
        batch = (
            f"All quantities are for a batch of {self.batch}, whose inputs share the weights: "
            "another batch is not in proportion."
        )
        depthwise = (
            f"Convolutions with groups are computed as depthwise={self.depthwise}; other choices "
            "change networks of depthwise convolutions by a factor of 4 to 10."
        )
        left_out = "Leakage, stalls, pooling and additions take no energy, the latter two no time."
        return (*super().notes, batch, depthwise, left_out)

    def refusal(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> tuple[int, str] | None:
        """Return the first layer that cannot be scheduled and why; see `HardwareModel.refusal`."""
        for what, bits in (("weights", weight_bits), ("activations", act_bits)):
            for index in np.flatnonzero((bits < 1) | (bits > self.max_bits))[:1]:
                reason = f"its {what} must have 1 to {self.max_bits} bits, got {bits[index]}"
                return int(index), reason
        convolutions, _ = self._convolutions(layers, weight_bits, act_bits)
        return geometry_refusal(layers) or schedule_refusal(convolutions, self.machine)

    def costs(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> dict[str, NDArray[Any]]:
        """Return all quantities of `quantities`, see `LayerModel.costs`.

        Rows that are the same convolution at the same bits are computed once.

        Raises:
            UnsupportedError: If a layer cannot be scheduled, as `refusal` says.
        """
        refused = self.refusal(layers, weight_bits, act_bits)
        if refused is not None:
            index, reason = refused
            msg = f"Hardware {self.name!r} has no rule for {described(layers[index])}: {reason}."
            raise UnsupportedError(msg)
        convolutions, repeats = self._convolutions(layers, weight_bits, act_bits)
        table, inverse = np.unique(np.stack(convolutions, axis=1), axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        found = cheapest_schedules(Convolutions(*table.T), self.machine)
        energies = energy_parts(found.counters, self.machine.energies)._asdict()
        once: dict[str, NDArray[Any]] = {
            "cycles": found.cycles,
            "stall_cycles": found.cycles - found.counters.compute_cycles,
            "latency_ms": found.cycles / self.frequency_hz * 1e3,
            "energy_mj": energies.pop("total") / _NJ_PER_MJ,
            **{f"{place}_mj": nj / _NJ_PER_MJ for place, nj in energies.items()},
            **found.counters._asdict(),
        }
        return {name: once[name][inverse] * repeats for name in self.quantities}

    def _convolutions(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> tuple[Convolutions, IntArray]:
        return convolutions_of(
            layers, weight_bits, act_bits, machine=self.machine, depthwise=self.depthwise
        )

    def _energies(self) -> Energies:
        units = self.rows * self.columns
        core_nw = self.core_power_nw * units / self.core_units
        wbuf = self._bank("wbuf", units, shared_ports=0)
        ibuf = self._bank("ibuf", self.rows, shared_ports=0)
        obuf = self._bank("obuf", self.columns, shared_ports=1)
        return Energies(
            core=core_nw / self.core_synthesis_hz,
            wbuf_read=wbuf.read_nj_per_bit,
            wbuf_write=wbuf.write_nj_per_bit,
            ibuf_read=ibuf.read_nj_per_bit,
            ibuf_write=ibuf.write_nj_per_bit,
            obuf_read=obuf.read_nj_per_bit,
            obuf_write=obuf.write_nj_per_bit,
            dram=self.dram_nj_per_bit,
        )

    def _bank(self, buffer: str, n_banks: int, *, shared_ports: int) -> SramBank:
        """Return the energies given for a buffer, those of the SRAM table for the others."""
        read: float | None = getattr(self, f"{buffer}_read_nj_per_bit")
        write: float | None = getattr(self, f"{buffer}_write_nj_per_bit")
        if read is not None and write is not None:
            return SramBank(read, write)
        if self.max_bits**2 != BLOCK_BITS * self.min_bits:
            msg = (
                f"The SRAM table is for max_bits^2 / min_bits = {BLOCK_BITS} bits an access, got "
                f"{self.max_bits}^2 / {self.min_bits} for hardware {self.name!r}. Give "
                f"{buffer}_read_nj_per_bit and {buffer}_write_nj_per_bit."
            )
            raise ConfigError(msg)
        n_bytes: int = getattr(self, f"{buffer}_bytes")
        bank = bank_of(f"{buffer}_bytes", n_bytes, n_banks, shared_ports=shared_ports)
        return SramBank(
            bank.read_nj_per_bit if read is None else read,
            bank.write_nj_per_bit if write is None else write,
        )
