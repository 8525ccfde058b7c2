# SPDX-License-Identifier: Apache-2.0
"""The file around a packed network: safetensors, with a checksum over everything that counts.

The header is written here and not by the safetensors library, which orders its entries at random:
the same network is the same bytes. Reading goes through the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from bitscout.errors import ExportError

__all__ = ["FORMAT", "FORMAT_VERSION", "from_bytes", "read_file", "to_bytes", "write_file"]

FORMAT = "bitscout-packed"
FORMAT_VERSION = 1
# Widest first, so that every tensor is aligned.
DTYPES: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "U8": np.dtype("u1")}
HEADER_ALIGNMENT = 8

Arrays = Mapping[str, npt.NDArray[Any]]


def to_bytes(arrays: Arrays) -> bytes:
    """Return the file that holds one-dimensional arrays of the types in `DTYPES`."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    order = list(DTYPES.values())
    entries = sorted(arrays.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    header: dict[str, Any] = {}
    offset = 0
    for name, array in entries:
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}  # fmt: skip
        offset += array.nbytes
    metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "sha256": _digest(arrays)}
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for _, a in entries)


def from_bytes(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file.

    Raises:
        ExportError: If the file is truncated, damaged, newer, or something else.
    """
    try:
        items: Any = safetensors.deserialize(content)  # type: ignore[no-untyped-call]  # no types there
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        msg = f"expected a complete safetensors file, got {len(content)} bytes: {error}."
        raise ExportError(msg) from error
    metadata = header.get("__metadata__", {})
    _check_format(metadata)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, entry in items:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None or len(entry["shape"]) != 1:
            msg = (
                f"expected vectors of {', '.join(DTYPES)}, got {name!r} of {entry['dtype']} and "
                f"shape {entry['shape']}."
            )
            raise ExportError(msg)
        arrays[name] = np.frombuffer(bytes(entry["data"]), dtype=dtype)
    if metadata.get("sha256") != _digest(arrays):
        msg = "expected the content its checksum is of, got other bytes: the file is damaged."
        raise ExportError(msg)
    return arrays


def _check_format(metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        msg = (
            f"expected a safetensors file with the format {FORMAT!r}, got "
            f"{metadata.get('format')!r}: it is the file of another program, or a checkpoint of "
            "weights."
        )
        raise ExportError(msg)
    version = metadata.get("format_version", "")
    if version != str(FORMAT_VERSION):
        msg = (
            f"expected version {FORMAT_VERSION} of the format, got {version!r}. A newer one needs "
            "a newer bitscout."
        )
        raise ExportError(msg)


def _digest(arrays: Arrays) -> str:
    """Return the SHA-256 of names, types, lengths and values, independent of their order."""
    digest = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.size]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        ExportError: If there is no file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: expected a packed network, got: {error.strerror}. Name an exported file."
        raise ExportError(msg) from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        ExportError: If the folder is missing or cannot be written to.
    """
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private.
        temporary.replace(path)
        temporary = None
    except OSError as error:
        msg = f"Cannot write {path}: {error.strerror}. Choose a file in a folder you can write to."
        raise ExportError(msg) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
