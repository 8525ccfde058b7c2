# SPDX-License-Identifier: Apache-2.0
"""Pooling windows of any kind as nodes: sums are exact, and no padding is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitscout.export.graph import Shape
from bitscout.export.qonnx_nodes import QonnxNodes, Tensor, geometry
from bitscout.export.windows import Span, Windows

__all__ = ["max_windows", "sum_windows"]


def sum_windows(nodes: QonnxNodes, x: Tensor, windows: Windows, name: str) -> Tensor:
    """Return the sums over the windows of `x`, ``(C, H, W)``.

    Not an AveragePool: its division rounds, and its result would have to be multiplied back.
    """
    if windows.is_global:
        axes = nodes.constant(np.array([2, 3], dtype=np.int64))
        height, width = windows.input_size
        result = replace(x, name=name, shape=(x.shape[0], 1, 1), bound=x.bound * height * width)
        return nodes.add("ReduceSum", [x.name, axes], result, keepdims=1)
    for axis, spans in ((2, windows.rows), (3, windows.columns)):
        longest = max(stop - start for start, stop in spans)
        x = _along(nodes, replace(x, bound=x.bound * longest), spans, axis, "ReduceSum", name)
    return x


def max_windows(nodes: QonnxNodes, x: Tensor, windows: Windows, name: str) -> Tensor:
    """Return the largest value in every window of `x`, ``(C, H, W)``."""
    regular = windows.regular()
    if regular is not None:
        result = replace(x, name=name, shape=(x.shape[0], *windows.output_size))
        return nodes.add(
            "MaxPool",
            [x.name],
            result,
            ceil_mode=0,
            **geometry(regular.kernel, regular.stride, regular.pads),
        )
    for axis, spans in ((2, windows.rows), (3, windows.columns)):
        x = _along(nodes, x, spans, axis, "ReduceMax", name)
    return x


def _along(
    nodes: QonnxNodes, x: Tensor, spans: tuple[Span, ...], axis: int, kind: str, name: str
) -> Tensor:
    """Return `x` with `axis` reduced to one element for every span."""

    def sized(length: int) -> Shape:
        return (*x.shape[: axis - 1], length, *x.shape[axis:])

    axes = nodes.constant(np.array([axis], dtype=np.int64))
    parts = []
    for start, stop in spans:
        ends = [nodes.constant(np.array([end], dtype=np.int64)) for end in (start, stop)]
        part = replace(x, name=f"{name}_slice", shape=sized(stop - start))
        part = nodes.add("Slice", [x.name, *ends, axes], part)
        result = replace(x, name=f"{name}_part", shape=sized(1))
        # The axes of ReduceMax became an input only in opset 18.
        if kind == "ReduceSum":
            part = nodes.add(kind, [part.name, axes], result, keepdims=1)
        else:
            part = nodes.add(kind, [part.name], result, keepdims=1, axes=[axis])
        parts.append(part.name)
    whole = replace(x, name=name, shape=sized(len(spans)))
    return nodes.add("Concat", parts, whole, axis=axis)
