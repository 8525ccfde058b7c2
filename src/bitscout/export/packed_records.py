# SPDX-License-Identifier: Apache-2.0
"""Reading one operation's record: every field is checked, since the file may claim anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError
from bitscout.export.graph import Op
from bitscout.export.windows import RegularWindows, Span, Windows

__all__ = ["MAX_EXTENT", "Record", "read_windows", "windows_fields"]

MAX_EXTENT = 2**20  # Of one dimension: beyond any network, and nothing is allocated before.
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """The fields of one operation.

    Args:
        fields: As they were read.
        where: Name for messages.
    """

    fields: Mapping[str, Any]
    where: str

    def get(self, key: str) -> Any:  # noqa: ANN401  # JSON is of any type
        """Return a field.

        Raises:
            ExportError: If it is missing.
        """
        if key not in self.fields:
            raise self.error(None, key, "to be there")
        return self.fields[key]

    def text(self, key: str) -> str:
        """Return a field that is a text."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.error(value, key, "to be a text")
        return value

    def flag(self, key: str) -> bool:
        """Return a field that is true or left out."""
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            raise self.error(value, key, "to be true or left out")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """Return a field that is an integer between two others, both inclusive."""
        value = self.get(key)
        if type(value) is not int or not low <= value <= high:
            raise self.error(value, key, f"to be an integer from {low} to {high}")
        return value

    def integers(self, key: str, count: int | None, low: int, high: int) -> tuple[int, ...]:
        """Return a field that is a list of `count` integers; any number for `None`."""
        values = self.get(key)
        is_list = isinstance(values, list) and (count is None or len(values) == count)
        if not is_list or any(type(v) is not int or not low <= v <= high for v in values):
            many = "" if count is None else f"{count} "
            raise self.error(values, key, f"to be {many}integers from {low} to {high}")
        return tuple(values)

    def table(self, key: str, shape: tuple[int, ...], low: int, high: int) -> IntArray:
        """Return a field that is nested lists of integers."""
        values = self.get(key)
        try:
            array = np.array(values, dtype=object)
            is_table = array.shape == shape
            is_table &= all(type(v) is int and low <= v <= high for v in array.reshape(-1))
        except ValueError:
            is_table = False
        if not is_table:
            raise self.error(values, key, f"to be integers of shape {shape} from {low} to {high}")
        return array.astype(np.int64)

    def error(self, got: object, key: str, expected: str) -> ExportError:
        """Return the error about a field."""
        shown = repr(got)
        shown = shown if len(shown) <= 60 else f"{shown[:60]} ..."
        return ExportError(f"expected `{key}` of {self.where} {expected}, got {shown}.")


def windows_fields(windows: Windows) -> dict[str, Any]:
    """Return the fields that describe windows, as short as they can be."""
    regular = windows.regular()
    if regular is not None:
        return {"kernel": regular.kernel, "stride": regular.stride, "pads": regular.pads}
    return {"rows": windows.rows, "columns": windows.columns}


def read_windows(record: Record, source: Op) -> Windows:
    """Return the windows over `source` that a record describes."""
    size = image_shape(record, source)[1:]
    if "kernel" not in record.fields:
        axes = [
            _spans(record, key, edge) for key, edge in zip(("rows", "columns"), size, strict=True)
        ]
        return Windows(axes[0], axes[1], size)
    kernel = record.integers("kernel", 2, 1, MAX_EXTENT)
    stride = record.integers("stride", 2, 1, MAX_EXTENT)
    pads = record.integers("pads", 4, 0, max(kernel) - 1)
    regular = RegularWindows(kernel, stride, pads)  # type: ignore[arg-type]  # of checked length
    return Windows(
        _regular_spans(record, regular, 0, size), _regular_spans(record, regular, 1, size), size
    )


def image_shape(record: Record, source: Op) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` of what is read."""
    if len(source.shape) != 3:
        raise record.error(source.shape, "inputs", "to have shape (C, H, W)")
    channels, height, width = source.shape
    return channels, height, width


def _regular_spans(
    record: Record, regular: RegularWindows, axis: int, size: tuple[int, int]
) -> tuple[Span, ...]:
    kernel, stride, before = regular.kernel[axis], regular.stride[axis], regular.pads[axis]
    count = (size[axis] + before + regular.pads[axis + 2] - kernel) // stride + 1
    starts = [index * stride - before for index in range(count)]
    spans = tuple((max(start, 0), min(start + kernel, size[axis])) for start in starts)
    return _checked(record, "kernel", spans)


def _spans(record: Record, key: str, edge: int) -> tuple[Span, ...]:
    rows = record.get(key)
    if not isinstance(rows, list):
        raise record.error(rows, key, "to be a list of pairs")
    table = record.table(key, (len(rows), 2), 0, edge)
    return _checked(record, key, tuple((int(a), int(b)) for a, b in table))


def _checked(record: Record, key: str, spans: tuple[Span, ...]) -> tuple[Span, ...]:
    if not spans or any(start >= stop for start, stop in spans):
        raise record.error(spans, key, "to make windows that are not empty")
    return spans
