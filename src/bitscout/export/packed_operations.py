# SPDX-License-Identifier: Apache-2.0
"""From the records and arrays of a packed file to the operations of an integer graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError
from bitscout.export.fixed_point import INT32_MAX, MAX_SHIFT, fixed_point
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
    Input,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.packed_derived import derived_grid, rescale_ratios
from bitscout.export.packed_records import MAX_EXTENT, Record, image_shape, read_windows
from bitscout.export.packed_streams import unpack_steps
from bitscout.quantization import packed_size, unpack_bits

__all__ = ["OperationReader"]

ANY_GRID = Grid.sums(np.array(1.0))  # Until the operation's own is known.


class OperationReader:
    """Makes operations one after the other, and takes their values from the arrays.

    Args:
        arrays: As in `bitscout.export.packed_structure`.

    Raises:
        ExportError: If the steps are damaged.

    Attributes:
        ops: Those made so far, by name.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = dict(arrays)
        if "steps" in arrays:
            self._arrays["steps"] = unpack_steps(arrays["steps"])
        self._used = {name: 0 for name in arrays if name != "structure"}
        self.ops: dict[str, Op] = {}

    def read(self, fields: Mapping[str, Any]) -> None:
        """Make the operation of a record.

        Raises:
            ExportError: If the record contradicts itself, the operations before, or the arrays.
        """
        record = Record(fields, repr(Record(fields, "an operation").text("name")))
        name, sources = record.text("name"), self._sources(record)
        if name in self.ops:
            raise record.error(name, "name", "to be unique")
        op = self._made(record, name, sources)
        derived = None if "grid" in fields else derived_grid(op, sources)
        op = replace(op, grid=derived or self._grid(record, op.shape))
        if isinstance(op, Rescale):
            op = _with_factors(op, record, sources)
        self.ops[name] = op

    def check_all_is_read(self) -> None:
        """Check that nothing is left in the arrays.

        Raises:
            ExportError: If something is.
        """
        for name, used in self._used.items():
            if used != self._arrays[name].size:
                msg = (
                    f"expected {used} values of {name!r}, as the operations need, got "
                    f"{self._arrays[name].size}."
                )
                raise ExportError(msg)

    def _made(  # noqa: C901  # a case for every kind of operation
        self, record: Record, name: str, sources: tuple[Op, ...]
    ) -> Op:
        """Return the operation, as yet without its grid."""
        names = tuple(source.name for source in sources)
        kind = record.text("op")
        n_inputs = {"input": 0, "rescale": len(names), "concat": len(names)}.get(kind, 1)
        if len(names) != n_inputs or (kind != "input" and not names):
            raise record.error(list(names), "inputs", f"to be {n_inputs or 'some'}")
        match kind:
            case "input":
                return Input(name, _input_shape(record), ANY_GRID)
            case "conv":
                return self._conv(record, name, sources[0])
            case "linear":
                return self._linear(record, name, sources[0])
            case "rescale":
                _check_alike(record, sources, axis=0)
                one = np.ones(1, dtype=np.int64)
                return Rescale(name, names, sources[0].shape, ANY_GRID, one, one)
            case "sum_pool" | "max_pool":
                windows = read_windows(record, sources[0])
                shape = (sources[0].shape[0], *windows.output_size)
                kind_of = SumPool if kind == "sum_pool" else MaxPool
                return kind_of(name, (names[0],), shape, ANY_GRID, windows)
            case "relu":
                return Relu(name, (names[0],), sources[0].shape, ANY_GRID)
            case "concat":
                _check_alike(record, sources, axis=1)
                channels = sum(source.shape[0] for source in sources)
                return Concat(name, names, (channels, *sources[0].shape[1:]), ANY_GRID)
            case "pad_channels":
                before, after = record.integers("channels", 2, 0, MAX_EXTENT)
                wide = (before + sources[0].shape[0] + after, *sources[0].shape[1:])
                return PadChannels(name, (names[0],), wide, ANY_GRID, before)
            case "flatten":
                return Flatten(name, (names[0],), (prod(sources[0].shape),), ANY_GRID)
        raise record.error(kind, "op", "to be an operation of this version")

    def _sources(self, record: Record) -> tuple[Op, ...]:
        names = record.fields.get("inputs", list(self.ops)[-1:])
        if not isinstance(names, list) or any(
            not isinstance(name, str) or name not in self.ops for name in names
        ):
            raise record.error(names, "inputs", "to name operations before it")
        return tuple(self.ops[name] for name in names)

    def _take(self, record: Record, name: str, count: int) -> npt.NDArray[Any]:
        """Return the next values of an array."""
        array = self._arrays.get(name, np.zeros(0))
        start = self._used.get(name, 0)
        if start + count > array.size:
            raise record.error(array.size - start, name, f"to have {count} more values")
        self._used[name] = start + count
        return array[start : start + count]

    def _grid(self, record: Record, shape: tuple[int, ...]) -> Grid:
        bits, low, high, zero, count = record.integers("grid", 5, -(2**31), 2**31)
        if count not in (0, shape[0]):
            raise record.error(count, "grid", f"to have 0 or {shape[0]} steps")
        steps = self._take(record, "steps", max(count, 1))
        return Grid(steps if count else steps.reshape(()), bits, low, high, zero)

    def _weights(self, record: Record, rank: int) -> dict[str, Any]:
        """Return the fields a layer's weights give."""
        shape = record.integers("weight", rank, 1, MAX_EXTENT)
        bits, count = record.integer("bits", 2, 8), prod(shape)
        blob = self._take(record, "weights", packed_size(count, bits))
        bias = self._take(record, "biases", shape[0]) if record.flag("bias") else None
        return {
            "weight": unpack_bits(blob, bits, count).reshape(shape),
            "weight_bits": bits,
            "weight_scale": self._take(record, "steps", shape[0]),
            "bias": None if bias is None else bias.astype(np.int64),
        }

    def _conv(self, record: Record, name: str, source: Op) -> Conv:
        channels, *size = image_shape(record, source)
        found = self._weights(record, 4)
        geometry = record.integers("geometry", 9, 0, MAX_EXTENT)
        strides, pads, dilations = geometry[:2], geometry[2:6], geometry[6:8]
        groups = geometry[8]
        if 0 in (*strides, *dilations, groups):
            expected = "to have positive strides, dilations and groups"
            raise record.error(geometry, "geometry", expected)
        out_channels, per_group, *kernel = found["weight"].shape
        if per_group * groups != channels or out_channels % groups:
            expected = f"to fit {channels} channels in {groups} groups"
            raise record.error(found["weight"].shape, "weight", expected)
        out = [
            (edge + before + after - dilation * (k - 1) - 1) // stride + 1
            for edge, before, after, dilation, k, stride in zip(
                size, pads[:2], pads[2:], dilations, kernel, strides, strict=True
            )
        ]
        if min(out) < 1:
            raise record.error(kernel, "weight", f"to fit an image of {size}")
        found |= {"stride": strides, "pads": pads, "dilation": dilations, "groups": groups}
        return Conv(name, (source.name,), (out_channels, *out), ANY_GRID, **found)

    def _linear(self, record: Record, name: str, source: Op) -> Linear:
        found = self._weights(record, 2)
        out, features = found["weight"].shape
        if source.shape != (features,):
            raise record.error(features, "weight", f"to fit features of shape {source.shape}")
        return Linear(name, (source.name,), (out,), ANY_GRID, **found)


def _with_factors(op: Rescale, record: Record, sources: tuple[Op, ...]) -> Rescale:
    """Return a rescale with the multipliers that its steps give, or its record."""
    divisor: npt.NDArray[np.int64] = np.array(1, dtype=np.int64)
    if isinstance(record.fields.get("divisor"), list):
        divisor = record.table("divisor", image_shape(record, op)[1:], 1, INT32_MAX)
    elif "divisor" in record.fields:
        divisor = np.array(record.integer("divisor", 1, INT32_MAX), dtype=np.int64)
    if "multiplier" not in record.fields:
        multiplier, shift = fixed_point(rescale_ratios(op.grid, sources), int(divisor.max()))
        return replace(op, multiplier=multiplier, shift=shift, divisor=divisor)
    shift = np.array(record.integers("shift", None, 0, MAX_SHIFT), dtype=np.int64)
    if shift.size not in (1, op.shape[0]):
        raise record.error(shift.size, "shift", f"to be 1 or {op.shape[0]} integers")
    multiplier = record.table("multiplier", (len(sources), shift.size), 0, INT32_MAX)
    return replace(op, multiplier=multiplier, shift=shift, divisor=divisor)


def _input_shape(record: Record) -> tuple[int, ...]:
    shape = record.integers("shape", None, 1, MAX_EXTENT)
    if not shape:
        raise record.error(shape, "shape", "to have a dimension")
    return shape


def _check_alike(record: Record, sources: tuple[Op, ...], *, axis: int) -> None:
    """Check that shapes agree from `axis` on."""
    if len({(len(source.shape), source.shape[axis:]) for source in sources}) > 1:
        raise record.error([source.shape for source in sources], "inputs", "to have one shape")
