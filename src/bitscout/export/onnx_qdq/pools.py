# SPDX-License-Identifier: Apache-2.0
"""Pools, regular or not, as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import MaxPool, Op, Rescale, SumPool
from bitscout.export.onnx_qdq.nodes import Nodes
from bitscout.export.windows import RegularWindows, Windows

__all__ = ["average_pool", "exact_sums", "max_pool"]

# A multiplier that ends in so many zeros may stand for a ratio with exact ties.
TIE_ZEROS = 16


def max_pool(nodes: Nodes, op: MaxPool, values: str, result: str) -> None:
    """Add the largest value of each window; of codes or of real numbers."""
    regular = op.windows.regular()
    if regular is None:
        # Rows and columns are repeated until all windows are of one size and lie side by side.
        kernel = []
        for axis, spans in ((2, op.windows.rows), (3, op.windows.columns)):
            size = max(stop - start for start, stop in spans)
            indices = [min(start + i, stop - 1) for start, stop in spans for i in range(size)]
            index = nodes.shared(np.array(indices, dtype=np.int64))
            values = nodes.add("Gather", [values, index], op.name, axis=axis)
            kernel.append(size)
        regular = RegularWindows((kernel[0], kernel[1]), (kernel[0], kernel[1]), (0, 0, 0, 0))
    nodes.add("MaxPool", [values], op.name, result, **_attributes(regular))


def average_pool(
    nodes: Nodes, op: SumPool, readers: tuple[Op, ...], values: str, result: str
) -> bool:
    """Add an average instead of a sum, which runtimes fuse; `False` if it cannot be one.

    Args:
        nodes: The model.
        op: The sum.
        readers: Operations that read the sum; all of them must divide it by the same number.
        values: Name of what is pooled, real.
        result: Name of the average.
    """
    divisor, regular = _common_divisor(readers), op.windows.regular()
    if divisor is None or regular is None:
        return False
    is_counted = _is_count(divisor, op.windows)
    has_ties = any(_has_ties(reader) for reader in readers)
    if op.windows.is_global and is_counted and (not has_ties or _is_power_of_two(divisor)):
        nodes.add("GlobalAveragePool", [values], op.name, result)
        return True
    area = regular.kernel[0] * regular.kernel[1]
    is_odd = any(reader.grid.zero_point % 2 for reader in readers)
    if (has_ties and is_odd) or not (is_counted or (divisor == area).all()):
        return False
    attributes = _attributes(regular) | {"count_include_pad": int(not is_counted)}
    nodes.add("AveragePool", [values], op.name, result, **attributes)
    return True


def exact_sums(nodes: Nodes, op: SumPool, values: str, result: str) -> None:
    """Add sums over any windows, as products with matrices of zeros and ones.

    Nothing is divided yet, so that sums of codes with power-of-two steps are exact.
    """
    rows = nodes.shared(_membership(op.windows.rows, op.windows.input_size[0]))
    columns = nodes.shared(_membership(op.windows.columns, op.windows.input_size[1]).T.copy())
    by_row = nodes.add("MatMul", [rows, values], op.name)
    nodes.add("MatMul", [by_row, columns], op.name, result)


def _common_divisor(readers: tuple[Op, ...]) -> npt.NDArray[np.int64] | None:
    """Return what all readers divide by and nothing else is added to, if there is such."""
    divisors = [
        reader.divisor
        for reader in readers
        if isinstance(reader, Rescale) and len(reader.inputs) == 1
    ]
    is_common = len(divisors) == len(readers) and bool(divisors)
    if not is_common or any(not np.array_equal(d, divisors[0]) for d in divisors):
        return None
    return divisors[0]


def _has_ties(reader: Op) -> bool:
    """Return whether a rescaled sum can lie half-way between two integers.

    NOTE: ONNX Runtime's fused pools get ties wrong where they can be avoided here: the global one
    multiplies by a rounded 1/7, the other one rounds after it has added the zero point, which
    turns even to odd where that is odd.
    """
    return isinstance(reader, Rescale) and bool((reader.multiplier % 2**TIE_ZEROS == 0).any())


def _is_power_of_two(divisor: npt.NDArray[np.int64]) -> bool:
    return bool((divisor & (divisor - 1) == 0).all())


def _is_count(divisor: npt.NDArray[np.int64], windows: Windows) -> bool:
    return bool((np.broadcast_to(divisor, windows.output_size) == windows.counts).all())


def _membership(spans: tuple[tuple[int, int], ...], size: int) -> npt.NDArray[np.float32]:
    """Return a matrix that has a one where an input (column) belongs to a window (row)."""
    index = np.arange(size)
    return np.array([(index >= a) & (index < b) for a, b in spans], dtype=np.float32)


def _attributes(regular: RegularWindows) -> dict[str, Any]:
    return {"kernel_shape": regular.kernel, "strides": regular.stride, "pads": regular.pads}
