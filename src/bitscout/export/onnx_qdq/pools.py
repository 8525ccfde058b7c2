# SPDX-License-Identifier: Apache-2.0
"""Pools, regular or not, as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import MaxPool, Op, Rescale, SumPool
from bitscout.export.onnx_qdq.nodes import Nodes
from bitscout.export.windows import RegularWindows, Windows

__all__ = ["average_pool", "divide", "exact_sums", "max_pool"]

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
    dividing, regular = _dividing(readers), op.windows.regular()
    if not dividing or regular is None:
        return False
    divisor = dividing[0].divisor
    is_counted = _is_count(divisor, op.windows)
    area = regular.kernel[0] * regular.kernel[1]
    is_global = op.windows.is_global and is_counted
    may_miss = any(_misses_ties(reader, is_global=is_global) for reader in dividing)
    if may_miss or not (is_counted or (divisor == area).all()):
        return False
    if is_global:
        nodes.add("GlobalAveragePool", [values], op.name, result)
        return True
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


def divide(nodes: Nodes, op: Rescale, sums: str) -> str:
    """Add the quotient of sums and the divisor, with ties as they are.

    NOTE: In float64, because ONNX Runtime merges a float32 division with the product before it,
    and then multiplies by a rounded 1/7.
    """
    from onnx import TensorProto

    double = nodes.add("Cast", [sums], op.name, to=TensorProto.DOUBLE)
    divisor = nodes.shared(op.divisor.astype(np.float64))
    quotient = nodes.add("Div", [double, divisor], op.name)
    return nodes.add("Cast", [quotient], op.name, to=TensorProto.FLOAT)


def _dividing(readers: tuple[Op, ...]) -> list[Rescale]:
    """Return the readers if all of them divide this one tensor by the same, else none."""
    found = [r for r in readers if isinstance(r, Rescale) and len(r.inputs) == 1]
    is_same = all(np.array_equal(r.divisor, found[0].divisor) for r in found)
    return found if is_same and len(found) == len(readers) else []


def _misses_ties(reader: Rescale, *, is_global: bool) -> bool:
    """Return whether a runtime's average could round half-way cases to the wrong side.

    NOTE: ONNX Runtime's fused pools multiply by a rounded 1/7; and all but the global one round
    after they have added the zero point, which turns even to odd where that is odd.
    """
    has_ties = bool((reader.multiplier % 2**TIE_ZEROS == 0).any())
    is_power_of_two = bool((reader.divisor & (reader.divisor - 1) == 0).all())
    is_odd = reader.grid.zero_point % 2 == 1
    return has_ties and not (is_power_of_two and (is_global or not is_odd))


def _is_count(divisor: npt.NDArray[np.int64], windows: Windows) -> bool:
    return bool((np.broadcast_to(divisor, windows.output_size) == windows.counts).all())


def _membership(spans: tuple[tuple[int, int], ...], size: int) -> npt.NDArray[np.float32]:
    """Return a matrix that has a one where an input (column) belongs to a window (row)."""
    index = np.arange(size)
    return np.array([(index >= a) & (index < b) for a, b in spans], dtype=np.float32)


def _attributes(regular: RegularWindows) -> dict[str, Any]:
    return {"kernel_shape": regular.kernel, "strides": regular.stride, "pads": regular.pads}
