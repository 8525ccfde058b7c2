# SPDX-License-Identifier: Apache-2.0
"""An integer graph as four arrays, and back, bit for bit.

    weights      U8   every layer's codes as a bitstream of its own width, each from a new byte
    biases       I32  every layer's biases
    steps        U8   quantization steps, deflated
    structure    U8   the operations as JSON, deflated

The arrays are read from front to back in the order of the operations; the deflated ones are
described in `bitscout.export.packed_streams`. What follows from other fields is left out: shapes,
the steps of sums, and multipliers and shifts, which `bitscout.export.fixed_point` derives from
the steps. Where the derived ones would differ, they are written. Empty arrays are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError
from bitscout.export.fixed_point import INT32_MAX, fixed_point
from bitscout.export.graph import (
    Conv,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Rescale,
    SumPool,
)
from bitscout.export.packed_derived import derived_grid, rescale_ratios
from bitscout.export.packed_operations import OperationReader
from bitscout.export.packed_records import windows_fields
from bitscout.export.packed_streams import RECORDS_DICTIONARY, deflate, inflate, pack_steps
from bitscout.quantization import pack_bits

__all__ = ["decode", "encode", "is_same"]

Arrays = dict[str, npt.NDArray[Any]]


def encode(graph: IntegerGraph) -> Arrays:
    """Return the arrays of a graph.

    Raises:
        ExportError: If a weight does not fit its width or a bias an int32, or the graph holds
            something that does not follow from its operations, such as a wrong shape.
    """
    writer = _Writer()
    records = [writer.record(op, graph) for op in graph]
    structure = {"output": graph.output, "operations": records}
    text = json.dumps(structure, separators=(",", ":")).encode()
    arrays = {name: np.concatenate(parts) for name, parts in writer.arrays.items()}
    if "steps" in arrays:
        arrays["steps"] = pack_steps(arrays["steps"])
    arrays["structure"] = deflate(text, RECORDS_DICTIONARY)
    again = decode(arrays)
    if not is_same(again, graph):
        name = next(a.name for a, b in zip(graph, again, strict=True) if not is_same(a, b))
        msg = f"The shape, windows or types of {name!r} do not follow from what it reads."
        raise ExportError(msg)
    return arrays


def decode(arrays: Mapping[str, npt.NDArray[Any]]) -> IntegerGraph:
    """Return the graph of the arrays.

    Raises:
        ExportError: If they contradict each other or are not a graph.
    """
    structure = _structure(arrays)
    reader = OperationReader(arrays)
    operations = structure.get("operations")
    if not isinstance(operations, list) or not all(isinstance(x, dict) for x in operations):
        msg = "expected a list of operations, got a structure without one."
        raise ExportError(msg)
    for record in operations:
        reader.read(record)
    reader.check_all_is_read()
    output = structure.get("output")
    if not isinstance(output, str):
        msg = f"expected the name of the output, got {output!r}."
        raise ExportError(msg)
    return IntegerGraph(tuple(reader.ops.values()), output)


def is_same(a: object, b: object) -> bool:
    """Return whether two graphs, or parts of them, hold the same values."""
    if isinstance(a, IntegerGraph) and isinstance(b, IntegerGraph):
        return a.output == b.output and is_same(a.ops, b.ops)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(np.asarray(a), np.asarray(b))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    if is_dataclass(a) and type(a) is type(b):
        return all(is_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def _structure(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    blob = arrays.get("structure", np.zeros(0, dtype=np.uint8))
    text = inflate(blob, "structure", RECORDS_DICTIONARY)
    try:
        structure = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"expected JSON as `structure`, got: {error}."
        raise ExportError(msg) from error
    if not isinstance(structure, dict):
        msg = f"expected an object as `structure`, got {type(structure).__name__}."
        raise ExportError(msg)
    return structure


class _Writer:
    """Collects the arrays, operation by operation."""

    def __init__(self) -> None:
        self.arrays: dict[str, list[npt.NDArray[Any]]] = {}
        self._previous: tuple[str, ...] = ()

    def record(self, op: Op, graph: IntegerGraph) -> dict[str, Any]:
        """Return what the structure says about an operation."""
        found: dict[str, Any] = {"op": op.kind, "name": op.name}
        if op.inputs != self._previous:
            found["inputs"] = op.inputs
        self._previous = (op.name,)
        match op:
            case Input():
                found["shape"] = _integers(op.shape)
            case Conv() | Linear():
                found |= self._weights(op)
            case SumPool() | MaxPool():
                found |= windows_fields(op.windows)
            case PadChannels():
                channels = graph[op.inputs[0]].shape[0]
                found["channels"] = _integers((op.before, op.shape[0] - op.before - channels))
        sources = tuple(graph[name] for name in op.inputs)
        found |= self._grid(op, derived_grid(op, sources))
        if isinstance(op, Rescale):
            found |= _factors(op, sources)
        return found

    def _weights(self, op: Conv | Linear) -> dict[str, Any]:
        found: dict[str, Any] = {"weight": op.weight.shape, "bits": op.weight_bits}
        self._add("weights", pack_bits(op.weight, op.weight_bits))
        if op.bias is not None:
            if np.abs(op.bias).max(initial=0) > INT32_MAX:
                msg = f"A bias of {op.name!r} is beyond an int32: {np.abs(op.bias).max()}."
                raise ExportError(msg)
            found["bias"] = True
            self._add("biases", op.bias.astype("<i4"))
        self._add("steps", op.weight_scale)
        if isinstance(op, Conv):
            found["geometry"] = _integers((*op.stride, *op.pads, *op.dilation, op.groups))
        return found

    def _grid(self, op: Op, derived: Grid | None) -> dict[str, Any]:
        if derived is not None and is_same(derived, op.grid):
            return {}
        grid = op.grid
        bounds = (grid.bit_width, grid.quant_min, grid.quant_max, grid.zero_point)
        self._add("steps", grid.scale.reshape(-1))
        return {"grid": _integers((*bounds, grid.scale.size if grid.scale.ndim else 0))}

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        if values.size:
            self.arrays.setdefault(name, []).append(values)


def _factors(op: Rescale, sources: tuple[Op, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if op.divisor.ndim or op.divisor != 1:
        found["divisor"] = op.divisor.tolist()
    try:
        derived = fixed_point(rescale_ratios(op.grid, sources), int(op.divisor.max()))
    except ExportError:
        derived = None
    if derived is None or not is_same(derived, (op.multiplier, op.shift)):
        found |= {"multiplier": op.multiplier.tolist(), "shift": op.shift.tolist()}
    return found


def _integers(values: tuple[int, ...]) -> list[int]:
    return [int(value) for value in values]
