# SPDX-License-Identifier: Apache-2.0
"""Packed checkpoints: a network in as many bits as the search counted, and what else it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bitscout.errors import ExportError, UnsupportedError
from bitscout.export.bounds import check_no_overflow
from bitscout.export.graph import IntegerGraph
from bitscout.export.packed_container import from_bytes, read_file, to_bytes, write_file
from bitscout.export.packed_structure import decode, encode

__all__ = ["PackedAccount", "load_packed", "packed_account", "save_packed"]


@dataclass(frozen=True)
class PackedAccount:
    """Where the bytes of a packed file are.

    Attributes:
        weight_bytes: Weights: for every layer its codes' bits, rounded up to bytes.
        bias_bytes: Biases, 4 bytes each.
        step_bytes: Quantization steps, of every output channel of a layer and every tensor of
            codes, deflated: about 1 byte each with exact steps, 4 with others.
        structure_bytes: The operations, deflated.
        header_bytes: Header of the safetensors file, with the checksum.
    """

    weight_bytes: int
    bias_bytes: int
    step_bytes: int
    structure_bytes: int
    header_bytes: int

    @property
    def payload_bytes(self) -> int:
        """Weights and biases: what a search counts as the network's size."""
        return self.weight_bytes + self.bias_bytes

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.payload_bytes + self.step_bytes + self.structure_bytes + self.header_bytes


def save_packed(graph: IntegerGraph, path: Path) -> PackedAccount:
    """Write a graph to a packed file, completely or not at all.

    The same graph gives the same bytes.

    Args:
        graph: The network.
        path: File to write; its folder must exist.

    Returns:
        Where the bytes are.

    Raises:
        ExportError: If the graph contradicts itself, or the file cannot be written.
    """
    arrays = encode(graph)
    content = to_bytes(arrays)
    write_file(Path(path), content)
    return _account(arrays, len(content))


def load_packed(path: Path) -> IntegerGraph:
    """Return the graph of a packed file: every integer and every step as it was saved.

    Raises:
        ExportError: If the file is missing, truncated, damaged, of something else or of a newer
            version, contradicts itself, or has integers that could overflow.
    """
    return _read(Path(path))[0]


def packed_account(path: Path) -> PackedAccount:
    """Return where the bytes of a packed file are.

    Raises:
        ExportError: As `load_packed`.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[IntegerGraph, PackedAccount]:
    content = read_file(path)
    try:
        arrays = from_bytes(content)
        graph = decode(arrays)
        check_no_overflow(graph)
        return graph, _account(arrays, len(content))
    except (ExportError, UnsupportedError) as error:
        msg = f"{path} is not a packed network: {error} Copy or export it again."
        raise ExportError(msg) from error


def _account(arrays: Mapping[str, npt.NDArray[Any]], file_bytes: int) -> PackedAccount:
    sizes = {name: array.nbytes for name, array in arrays.items()}
    return PackedAccount(
        weight_bytes=sizes.get("weights", 0),
        bias_bytes=sizes.get("biases", 0),
        step_bytes=sizes.get("steps", 0),
        structure_bytes=sizes["structure"],
        header_bytes=file_bytes - sum(sizes.values()),
    )
