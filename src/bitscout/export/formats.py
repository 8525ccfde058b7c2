# SPDX-License-Identifier: Apache-2.0
"""One door to all formats."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError
from bitscout.export.c import TestVectors, write_c
from bitscout.export.checks.cortex_m import build_cortex_m
from bitscout.export.graph import IntegerGraph
from bitscout.export.onnx_qdq import write_onnx
from bitscout.export.packed import save_packed
from bitscout.export.qonnx import write_qonnx
from bitscout.export.reference import Reference

__all__ = ["Exported", "export_graph"]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        format: ``packed``, ``onnx``, ``qonnx`` or ``c``.
        path: File, or folder of ``c``.
        predicted_bytes: Bits of weights and biases, divided by 8.
        file_bytes: All bytes that were written, of ``c`` the sources.
    """

    format: str
    path: Path
    predicted_bytes: float
    file_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout export --json``."""
        return {**asdict(self), "path": str(self.path)}


def export_graph(  # one for each option of a format
    graph: IntegerGraph,
    path: Path,
    *,
    format: Literal["packed", "onnx", "qonnx", "c"],
    storage: Literal["int8", "packed", "int4"] = "int8",
    profile: Literal["hls4ml"] | None = None,
    target: Literal["host", "cortex-m"] = "host",
    images: npt.NDArray[np.float32] | None = None,
) -> Exported:
    """Write a graph in one format, completely or not at all.

    Args:
        graph: The network.
        path: File to write, or folder for ``c``; folders above are made.
        format: Which format.
        storage: Of the weights in ``onnx``.
        profile: Of ``qonnx``.
        target: Of ``c``; ``cortex-m`` also builds the image.
        images: Preprocessed images for the test vectors of ``c``; random ones by default.

    Raises:
        UnsupportedError: If the network is outside what the format can hold, or a compiler that
            is needed is missing.
        ExportError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Cannot write {path}: {error.strerror or error}. Choose another --out."
        raise ExportError(msg) from error
    match format:
        case "packed":
            save_packed(graph, path)
        case "onnx":
            write_onnx(graph, path, storage=storage)
        case "qonnx":
            write_qonnx(graph, path, profile=profile)
        case "c":
            vectors = None if images is None else _vectors(graph, images)
            if target == "cortex-m":
                _write_image(graph, path, vectors)
            else:
                write_c(graph, path, vectors=vectors)
    return Exported(format, path, graph.size_bits / 8, _size(path))


def _write_image(graph: IntegerGraph, path: Path, vectors: TestVectors | None) -> None:
    """Write sources and image; nothing if the image cannot be built."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "c"
        write_c(graph, built, vectors=vectors, target="cortex-m")
        build_cortex_m(built)
        write_c(graph, path, vectors=vectors, target="cortex-m")
        shutil.copy2(built / "network.elf", path / "network.elf")


def _vectors(graph: IntegerGraph, images: npt.NDArray[np.float32]) -> TestVectors:
    reference = Reference(graph)
    codes = reference.quantize(images)
    return TestVectors(codes, reference.run_codes(codes))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
