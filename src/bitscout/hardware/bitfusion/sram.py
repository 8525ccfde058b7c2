# SPDX-License-Identifier: Apache-2.0
"""Energy of on-chip buffers, from a table of CACTI 7 at 45 nm.

Provenance of ``target_files/sram_45nm.csv``: HewlettPackard/cacti commit 1ffd8df, 45 nm, 360 K,
itrs-hp, RAM, blocks of 4 bytes, one exclusive read and one exclusive write port, with 0 or 1 port
for both. The rows that the Bit Fusion simulator ships are among them and are identical.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from bitscout.errors import ConfigError

__all__ = ["BLOCK_BITS", "SramBank", "bank_of"]

BLOCK_BITS: Final = 32  # Of every row of the table: one access moves 4 bytes.


@dataclass(frozen=True, slots=True)
class SramBank:
    """One bank of a buffer.

    Attributes:
        read_nj_per_bit: Energy of reading one bit, in nJ.
        write_nj_per_bit: Energy of writing one bit, in nJ.
    """

    read_nj_per_bit: float
    write_nj_per_bit: float


def bank_of(buffer: str, n_bytes: int, n_banks: int, *, shared_ports: int) -> SramBank:
    """Return what one of `n_banks` equal banks of a buffer costs.

    Args:
        buffer: Name of the option that sets its size, for the message.
        n_bytes: Size of the whole buffer.
        n_banks: Number of banks.
        shared_ports: Ports for reading and writing besides the two exclusive ones, 0 or 1.

    Raises:
        ConfigError: If the table has no bank of that size; it says which sizes fit.

    Example:
        >>> bank_of("wbuf_bytes", 65536, 512, shared_ports=0)
        SramBank(read_nj_per_bit=2.136565625e-05, write_nj_per_bit=2.891615625e-05)
    """
    table = {size: bank for (size, ports), bank in _table().items() if ports == shared_ports}
    bank_bytes, rest = divmod(n_bytes, n_banks)
    if rest or bank_bytes not in table:
        sizes = [size * n_banks for size in sorted(table)]
        nearest = min(sizes, key=lambda size: abs(size - n_bytes))
        msg = (
            f"`{buffer}` = {n_bytes} bytes makes {n_banks} banks of {n_bytes / n_banks:g} bytes; "
            f"the SRAM table has banks of powers of two from {min(table)} to {max(table)} bytes. "
            f"With this array a power of two times {sizes[0]} bytes up to {sizes[-1]} fits, "
            f"nearest {nearest}; or give the buffer's energy per bit yourself."
        )
        raise ConfigError(msg)
    return table[bank_bytes]


@cache
def _table() -> dict[tuple[int, int], SramBank]:
    """Return the bank for each (bytes, shared ports)."""
    file = resources.files("bitscout.hardware") / "target_files" / "sram_45nm.csv"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {
        (int(row["bank_size_bytes"]), int(row["rw_ports"])): SramBank(
            float(row["read_nJ_per_access"]) / BLOCK_BITS,
            float(row["write_nJ_per_access"]) / BLOCK_BITS,
        )
        for row in csv.DictReader(lines)
    }
