# SPDX-License-Identifier: Apache-2.0
"""Lookup tables as files: .npz without pickle, and a JSON document of what the costs depend on."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays, canonical_json
from bitscout.errors import ConfigError, DataError
from bitscout.hardware.lookup import LookupTable
from bitscout.hardware.model import LayerModel
from bitscout.hardware.signature import plain_values
from bitscout.hardware.tabulate import describe_layers

__all__ = ["load_table", "save_table"]

_FORMAT: Final = "bitscout lookup table 1"
_COST: Final = "cost_"  # Before a quantity's name.
# All that zip, NumPy and JSON were seen to raise on changed bytes; OSError is one of them too.
_DAMAGE: Final = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def save_table(table: LookupTable, path: Path) -> None:
    """Write `table` under a temporary name next to `path`, then rename it.

    Raises:
        ConfigError: If it cannot be written; what was at `path` is still there.
    """
    document = {
        **_describe(table.model),
        "table_signature": table.signature,
        "weight_bits": table.weight_bits,
        "act_bits": table.act_bits,
    }
    arrays: dict[str, NDArray[Any]] = {
        "document": np.frombuffer(canonical_json(document).encode(), dtype=np.uint8),
        "layers": table.layers.table,
        "is_known": table.is_known,
        **{f"{_COST}{name}": values for name, values in table.costs.items()},
    }
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # not its own flag
        temporary.chmod(0o644)  # mkstemp makes it private.
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        msg = f"Cannot write {str(path)!r}: {error.strerror}. Choose another place."
        raise ConfigError(msg) from error


def load_table(
    path: Path,
    model: LayerModel,
    layers: LayerArrays | None = None,
    weight_bits: Iterable[int] = (),
    act_bits: Iterable[int] = (),
) -> LookupTable:
    """Return the table at `path` if it is one of `model` and has what is asked for.

    Args:
        path: Where `save_table` wrote it.
        model: The model whose costs are wanted.
        layers: Layers it must have, any shape; it may have more.
        weight_bits: Bit-widths it must have; it may have more.
        act_bits: The same for activations.

    Raises:
        ConfigError: Naming what differs: the model, a constant or an option, the model's source,
            bits or layers.
        DataError: If the file cannot be read or is damaged.
    """
    if not path.is_file():
        msg = f"There is no lookup table at {str(path)!r}. Build it and save it there."
        raise DataError(msg)
    try:
        document, arrays = _read(path)
        differences = _differences(document, model)
        table = None if differences else _table(document, arrays, model)
    except _DAMAGE as error:
        msg = f"The lookup table {str(path)!r} is damaged: {error}. Delete it and build it again."
        raise DataError(msg) from error
    if table is not None:
        differences = _lacking(table, layers, tuple(weight_bits), tuple(act_bits))
    if table is None or differences:
        msg = (
            f"The lookup table {str(path)!r} does not fit hardware {model.name!r} as it is asked "
            f"for: {'; '.join(differences)}. Build it again, or ask for what it was made for."
        )
        raise ConfigError(msg)
    return table


def _describe(model: LayerModel) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "values": plain_values(model.values()),
        "signature": model.signature,
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    # Opened here because NumPy leaves a file open that is no zip; zip has checksums of arrays.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(arrays["document"].tobytes())
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        msg = f"it is no {_FORMAT}"
        raise ValueError(msg)
    return document, arrays


def _table(
    document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], model: LayerModel
) -> LookupTable:
    table = LookupTable(
        model,
        LayerArrays(arrays["layers"]),
        tuple(document["weight_bits"]),
        tuple(document["act_bits"]),
        {name: arrays[f"{_COST}{name}"] for name in model.quantities},
        arrays["is_known"],
    )
    shape = (len(table.layers), len(table.weight_bits), len(table.act_bits))
    shapes = {values.shape for values in (*table.costs.values(), table.is_known)}
    if shapes != {shape} or table.signature != document["table_signature"]:
        msg = "its layers or bits are not those it was built for"
        raise ValueError(msg)
    return table


def _differences(document: Mapping[str, Any], model: LayerModel) -> list[str]:
    """Return how the model of a file differs from `model`."""
    now = _describe(model)
    if document["model"] != now["model"]:
        return [f"it was made with {document['model']}, this is {now['model']}"]
    then, values = document["values"], now["values"]
    differences = [
        f"`{name}` was {then.get(name, 'not there')} and is {values.get(name, 'gone')}"
        for name in {**then, **values}
        if then.get(name) != values.get(name)
    ]
    if not differences and document["signature"] != now["signature"]:
        differences.append("the source code of the model has changed")
    return differences


def _lacking(
    table: LookupTable,
    layers: LayerArrays | None,
    weight_bits: tuple[int, ...],
    act_bits: tuple[int, ...],
) -> list[str]:
    """Return what is asked for and not in the table."""
    lacking = [
        f"it has {what} bits {', '.join(map(str, tabulated))}, asked for are "
        f"{', '.join(map(str, asked))}"
        for what, asked, tabulated in (
            ("weight", weight_bits, table.weight_bits),
            ("activation", act_bits, table.act_bits),
        )
        if not set(asked) <= set(tabulated)
    ]
    if layers is not None and len(missing := table.missing(layers)):
        lacking.append(
            f"it is for other layers, {len(missing)} are not in it, the first is "
            f"{describe_layers(missing)[0]}"
        )
    return lacking
