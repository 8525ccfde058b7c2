# SPDX-License-Identifier: Apache-2.0
"""A QONNX model in real values and channels last, as hls4ml reads it: steps are powers of two.

Quant nodes carry the steps; hls4ml makes each a fixed-point type, in which its arithmetic is that
of the integers. It dictates the rest (measured with hls4ml 1.3.0 and qonnx 1.0.0):

- Channels last from the start: qonnx's `ConvertToChannelsLastAndClean` changes what a network with
  residual additions computes, and hls4ml takes nothing else.
- A bias goes through a Quant node, and an average is a depthwise convolution: hls4ml fails without
  the former and computes something else, without a word, for a GlobalAveragePool.
- Sums with several readers go through a Quant node wide enough to change nothing: hls4ml would
  take the type of one reader for the sums themselves.
- A range that ends below a power of two, at a ReLU6, is ``c - relu(c - x)``: there is no Clip.
- No two nodes share a constant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from bitscout.errors import UnsupportedError
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    FloatArray,
    Grid,
    Input,
    IntArray,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.qonnx_nodes import (
    INPUT,
    OUTPUT,
    QonnxNodes,
    Tensor,
    conv_attributes,
    geometry,
    quant_range,
)
from bitscout.export.windows import RegularWindows

__all__ = ["RealEmitter"]


class RealEmitter:
    """Adds the nodes of one operation after the other.

    Args:
        nodes: Where to add them; constants must not be shared.
        graph: A network that `check_hls4ml` accepts.
    """

    def __init__(self, nodes: QonnxNodes, graph: IntegerGraph) -> None:
        self._nodes = nodes
        self._graph = graph
        self._tensors: dict[str, Tensor] = {}
        # Where each feature behind a Flatten is in the order of channels first.
        self._orders: dict[str, IntArray] = {}
        self._sums: dict[tuple[str, ...], Tensor] = {}

    def emit(self) -> None:
        """Add the whole network."""
        last = self._graph[self._graph.output]
        if isinstance(last, Rescale) and _changes_nothing(last):
            last = self._graph[last.inputs[0]]
        for op in self._graph:
            is_behind = isinstance(op, Rescale) and _changes_nothing(op)
            name = OUTPUT if op is last else op.name
            x = self._tensors[op.inputs[0]] if op.inputs else Tensor(INPUT, _last(op.shape))
            result = x if is_behind else self._add(op, x, name)
            if op.grid.is_sums and len(self._graph.readers(op.name)) > 1 and not is_behind:
                result = self._kept(result, op)
            self._tensors[op.name] = result
            if op.inputs and not isinstance(op, Flatten | Linear):
                self._orders[op.name] = self._orders.get(op.inputs[0], np.arange(0))

    def _add(  # noqa: C901  # a case for every kind of operation
        self, op: Op, x: Tensor, name: str
    ) -> Tensor:
        result = replace(x, name=name, shape=_last(op.shape))
        match op:
            case Input():
                return self._codes(x, op.grid, name)
            case Conv():
                return self._convolution(op, x, result)
            case Linear():
                return self._linear(op, x, result)
            case Rescale():
                return self._rescale(op, name)
            case SumPool():
                return self._mean(op, x, result)
            case MaxPool():
                pool = cast("RegularWindows", op.windows.regular())
                return self._nodes.add(
                    "MaxPool",
                    [x.name],
                    result,
                    is_channels_last=True,
                    ceil_mode=0,
                    **geometry(pool.kernel, pool.stride, pool.pads),
                )
            case Relu():
                return self._nodes.add("Relu", [x.name], result)
            case Concat():
                parts = [self._tensors[part].name for part in op.inputs]
                return self._nodes.add("Concat", parts, result, axis=len(op.shape))
            case PadChannels():
                msg = f"Channels of zeros, in {op.name!r}, have no form in hls4ml."
                raise UnsupportedError(msg)
            case Flatten():
                shape = self._graph[op.inputs[0]].shape
                order = np.arange(np.prod(shape)).reshape(shape)
                self._orders[op.name] = np.moveaxis(order, 0, -1).ravel()
                return self._nodes.add("Flatten", [x.name], result, axis=1)

    def _convolution(self, op: Conv, x: Tensor, result: Tensor) -> Tensor:
        inputs = [x.name, self._weight(op, np.moveaxis(op.weight, 1, -1))]
        if op.bias is not None:
            inputs.append(self._bias(op, op.bias))
        return self._nodes.add(
            "Conv", inputs, result, is_channels_last=True, **conv_attributes(op)
        )

    def _linear(self, op: Linear, x: Tensor, result: Tensor) -> Tensor:
        order = self._orders.get(op.inputs[0], np.arange(0))
        codes = op.weight[:, order] if order.size else op.weight
        product = result if op.bias is None else replace(result, name=f"{op.name}_product")
        product = self._nodes.add("MatMul", [x.name, self._weight(op, codes.T)], product)
        if op.bias is None:
            return product
        return self._nodes.add("Add", [product.name, self._bias(op, op.bias)], result)

    def _weight(self, op: Conv | Linear, codes: np.ndarray) -> str:
        return self._parameter(
            codes, float(op.weight_scale.flat[0]), op.weight_bits, f"{op.name}_weight"
        )

    def _bias(self, op: Conv | Linear, codes: np.ndarray) -> str:
        bits = max(2, _signed_bits(int(abs(codes).max())))
        return self._parameter(codes, float(op.grid.scale.flat[0]), bits, f"{op.name}_bias")

    def _parameter(self, codes: np.ndarray, scale: float, bit_width: int, name: str) -> str:
        """Return real weights behind a Quant node."""
        values = self._nodes.stored((codes * scale).astype(np.float32), name)
        is_narrow = bool(codes.min() > -(2 ** (bit_width - 1)))
        return self._nodes.quant(
            values,
            Tensor(f"{name}_quant", codes.shape),
            bit_width,
            is_signed=True,
            is_narrow=is_narrow,
            scale=scale,
            is_parameter=True,
        ).name

    def _rescale(self, op: Rescale, name: str) -> Tensor:
        total = self._tensors[op.inputs[0]]
        for count in range(2, len(op.inputs) + 1):
            key = op.inputs[:count]
            if key not in self._sums:
                term = self._tensors[op.inputs[count - 1]]
                added = replace(total, name=f"{op.name}_sum")
                self._sums[key] = self._nodes.add("Add", [total.name, term.name], added)
            total = self._sums[key]
        return self._codes(total, op.grid, name)

    def _codes(self, x: Tensor, grid: Grid, name: str) -> Tensor:
        """Round to the grid, in real values."""
        is_narrow = grid.is_signed and grid.quant_min > -(2 ** (grid.bit_width - 1))
        scale = float(grid.scale)

        def rounded(x: Tensor, name: str) -> Tensor:
            return self._nodes.quant(
                x.name,
                replace(x, name=name),
                grid.bit_width,
                is_signed=grid.is_signed,
                is_narrow=is_narrow,
                scale=scale,
            )

        _, high = quant_range(grid.bit_width, is_signed=grid.is_signed, is_narrow=is_narrow)
        if grid.quant_max == high:
            return rounded(x, name)
        x = rounded(x, f"{name}_uncut")
        for index in range(2):
            top = self._nodes.number(scale * grid.quant_max, x)
            x = self._nodes.add("Sub", [top, x.name], replace(x, name=f"{name}_from_top"))
            if not index:
                x = self._nodes.add("Relu", [x.name], replace(x, name=f"{name}_below_top"))
                x = rounded(x, f"{name}_below")
        return rounded(x, name)

    def _kept(self, x: Tensor, op: Op) -> Tensor:
        """Return sums behind a Quant node that holds every int32."""
        scale = float(op.grid.scale.min())
        if isinstance(op, SumPool):
            scale /= self._divisor(op)
        return self._nodes.quant(
            x.name,
            replace(x, name=f"{op.name}_kept"),
            32,
            is_signed=True,
            is_narrow=False,
            scale=scale,
        )

    def _divisor(self, op: SumPool) -> int:
        """Return what every reader of the sums divides them by."""
        return int(cast("Rescale", self._graph.readers(op.name)[0]).divisor)

    def _mean(self, op: SumPool, x: Tensor, result: Tensor) -> Tensor:
        pool = cast("RegularWindows", op.windows.regular())
        channels = op.shape[0]
        ones = np.ones((channels, *pool.kernel, 1), dtype=np.int64)
        weight = self._parameter(ones, 1 / self._divisor(op), 2, f"{op.name}_weight")
        return self._nodes.add(
            "Conv",
            [x.name, weight],
            result,
            is_channels_last=True,
            group=channels,
            **geometry(pool.kernel, pool.stride, pool.pads),
        )


def _changes_nothing(op: Rescale) -> bool:
    """Whether this only states that sums have one step."""
    return op.grid.is_sums and len(op.inputs) == 1 and bool((_factors(op) == 1).all())


def _factors(op: Rescale) -> FloatArray:
    factors: FloatArray = np.ldexp(op.multiplier.astype(np.float64), -op.shift) / op.divisor.max()
    return factors


def _signed_bits(magnitude: int) -> int:
    return magnitude.bit_length() + 1


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])
