# SPDX-License-Identifier: Apache-2.0
"""How wide the multiplier of an FPGA is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bitscout.errors import ConfigError

__all__ = ["DSP48E2", "DspPorts"]


@dataclass(frozen=True, slots=True)
class DspPorts:
    """Widths of a signed multiplier and of the accumulator behind it.

    Attributes:
        act_bits: Bits of the port that takes activations.
        weight_bits: Bits of the port that takes weights.
        accumulator_bits: Bits of the accumulator, at most 63.

    Raises:
        ConfigError: If a port has fewer than 2 bits, or one of the three more than 63.
    """

    act_bits: int = 27
    weight_bits: int = 18
    accumulator_bits: int = 48

    def __post_init__(self) -> None:
        """Reject widths that `Packing.convolve` could not compute with."""
        if min(self.act_bits, self.weight_bits, self.accumulator_bits) < 2:
            msg = f"A multiplier needs ports and an accumulator of at least 2 bits, got {self}."
            raise ConfigError(msg)
        if max(self.act_bits, self.weight_bits, self.accumulator_bits) > 63:
            msg = f"Ports and an accumulator may have 63 bits at most, got {self}."
            raise ConfigError(msg)


DSP48E2: Final = DspPorts()  # AMD UltraScale+: 27 x 18 bits, 48-bit accumulator.
