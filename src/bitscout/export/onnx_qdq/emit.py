# SPDX-License-Identifier: Apache-2.0
"""From the operations of an integer graph to ONNX nodes.

Codes travel as uint8, signed ones 2**(b - 1) higher, so that a runtime can fuse every layer:
its integer kernels want input and output in one type. Sums travel as real numbers in float32. Each
reader of codes has a DequantizeLinear of its own: runtimes fuse those with one reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.onnx_qdq.nodes import INPUT, OUTPUT, Nodes, as_float32
from bitscout.export.onnx_qdq.pools import average_pool, divide, exact_sums, max_pool
from bitscout.export.onnx_qdq.storage import Storage, store_weight

__all__ = ["QdqEmitter"]

MAX_BYTE = 255


@dataclass(frozen=True)
class _Codes:
    """Codes as the file has them.

    Attributes:
        scale: Name of the step.
        zero_point: Name of the zero point, uint8.
        offset: What was added to make every code positive.
    """

    scale: str
    zero_point: str
    offset: int


class QdqEmitter:
    """Adds the nodes of a whole graph.

    Args:
        graph: The network.
        storage: How weights lie in the file.

    Attributes:
        nodes: What was added.
        layers: For every layer its bits and the names of its constants.
    """

    def __init__(self, graph: IntegerGraph, storage: Storage) -> None:
        self.nodes = Nodes()
        self.layers: dict[str, dict[str, Any]] = {}
        self._graph, self._storage = graph, storage
        self._names: dict[str, str] = {}
        self._codes: dict[str, _Codes] = {}
        # Pools that divide by themselves; their readers do not.
        self._averages: set[str] = set()

    def emit(self) -> None:
        """Add everything."""
        for op in self._graph:
            is_result = op.name == self._graph.output and op.grid.is_sums
            self._names[op.name] = OUTPUT if is_result else self.nodes.unique(op.name)
            self._emit(op)
        if not self._graph[self._graph.output].grid.is_sums:
            self._real(self._graph.output, self._graph.output, OUTPUT)

    def _emit(self, op: Op) -> None:
        match op:
            case Input():
                self._quantize(op, INPUT)
            case Conv() | Linear():
                self._layer(op)
            case Rescale():
                self._rescale(op)
            case SumPool():
                self._sum_pool(op)
            case MaxPool():
                self._pass_on(op)
                max_pool(self.nodes, op, self._values(op)[0], self._names[op.name])
            case Relu() | Concat() | PadChannels() | Flatten():
                self._pass_on(op)
                self._simple(op)

    def _simple(self, op: Relu | Concat | PadChannels | Flatten) -> None:
        values = self._values(op)
        match op:
            case Concat():
                self._add("Concat", values, op, axis=1)
            case PadChannels():
                channels = self._graph[op.inputs[0]].shape[0]
                pads = np.zeros((2, len(op.shape) + 1), dtype=np.int64)
                pads[:, 1] = op.before, op.shape[0] - op.before - channels
                zero = np.array(op.grid.zero_point + self._codes[op.name].offset, dtype=np.uint8)
                constants = [self.nodes.shared(pads.ravel()), self.nodes.shared(zero)]
                self._add("Pad", [*values, *constants], op)
            case Flatten():
                self._add("Flatten", values, op, axis=1)
            case Relu() if op.grid.is_sums:
                self._add("Relu", values, op)
            case Relu():
                offset = self._codes[op.name].offset
                self._clip(op, values[0], op.grid.zero_point + offset, MAX_BYTE)

    def _layer(self, op: Conv | Linear) -> None:
        source = self._graph[op.inputs[0]].grid
        offset = self._codes[op.inputs[0]].offset
        stored = store_weight(self.nodes, op, self._storage, source.quant_max + offset)
        record: dict[str, Any] = {"weight_bits": op.weight_bits, "weight": stored.initializer}
        record["stored_as"] = stored.form
        scale = self._steps(op, "weight", op.weight_scale)
        inputs = [self._real(op.inputs[0], op.name)]
        inputs.append(
            self.nodes.add(
                "DequantizeLinear", [stored.codes, scale, stored.zero_points], op.name, axis=0
            )
        )
        if op.bias is not None:
            bias = self.nodes.constant(f"{op.name}.bias", op.bias.astype(np.int32))
            record["bias"] = bias
            steps = np.broadcast_to(source.scale * op.weight_scale, op.bias.shape)
            scale = self._steps(op, "bias", steps)
            zeros = self.nodes.shared(np.zeros(op.bias.shape, dtype=np.int32))
            inputs.append(
                self.nodes.add("DequantizeLinear", [bias, scale, zeros], op.name, axis=0)
            )
        self.layers[op.name] = record
        if isinstance(op, Linear):
            # NOTE: Not MatMul: ONNX Runtime would make it one with 8-bit dynamic inputs.
            self._add("Gemm", inputs, op, transB=1)
            return
        self._add(
            "Conv",
            inputs,
            op,
            kernel_shape=op.weight.shape[2:],
            strides=op.stride,
            pads=op.pads,
            dilations=op.dilation,
            group=op.groups,
        )

    def _rescale(self, op: Rescale) -> None:
        def plus(a: str, b: str) -> str:
            return self.nodes.add("Add", [a, b], op.name)

        total = reduce(plus, [self._real(name, op.name) for name in op.inputs])
        if (op.divisor != 1).any() and op.inputs[0] not in self._averages:
            total = divide(self.nodes, op, total)
        if not op.grid.is_sums:
            self._quantize(op, total)
            return
        # Sums on other steps: whole numbers of them.
        steps = as_float32(np.asarray(op.grid.scale), op.name)
        if steps.ndim:
            steps = steps.reshape(-1, *[1] * (len(op.shape) - 1))
        step = self.nodes.shared(steps)
        whole = self.nodes.add("Round", [self.nodes.add("Div", [total, step], op.name)], op.name)
        self._add("Mul", [whole, step], op)

    def _sum_pool(self, op: SumPool) -> None:
        value, name = self._real(op.inputs[0], op.name), self._names[op.name]
        readers = self._graph.readers(op.name)
        is_read = op.name != self._graph.output
        if is_read and average_pool(self.nodes, op, readers, value, name):
            self._averages.add(op.name)
        else:
            exact_sums(self.nodes, op, value, name)

    def _quantize(self, op: Input | Rescale, real: str) -> None:
        grid = op.grid
        offset = 2 ** (grid.bit_width - 1) if grid.is_signed else 0
        scale = self._steps(op, "", grid.scale)
        zero_point = self.nodes.shared(np.array(grid.zero_point + offset, dtype=np.uint8))
        self._codes[op.name] = _Codes(scale, zero_point, offset)
        inputs = [real, scale, zero_point]
        low, high = grid.quant_min + offset, grid.quant_max + offset
        if (low, high) == (0, MAX_BYTE) and not self._is_rescaled(op):
            self._add("QuantizeLinear", inputs, op)
            return
        codes = self.nodes.add("QuantizeLinear", inputs, op.name)
        self._clip(op, codes, low, high)

    def _is_rescaled(self, op: Op) -> bool:
        """Return whether these codes are brought to other codes by themselves.

        NOTE: A clip that changes nothing then keeps ONNX Runtime from making one quantization
        of the two, which rounds once instead of twice.
        """
        readers = self._graph.readers(op.name)
        return any(isinstance(reader, Rescale) and len(reader.inputs) == 1 for reader in readers)

    def _clip(self, op: Op, codes: str, low: int, high: int) -> None:
        limits = [self.nodes.shared(np.array(limit, dtype=np.uint8)) for limit in (low, high)]
        self._add("Clip", [codes, *limits], op)

    def _real(self, name: str, owner: str, result: str | None = None) -> str:
        """Return the name of a tensor's real values, made for this reader."""
        if name not in self._codes:
            return self._names[name]
        codes = self._codes[name]
        inputs = [self._names[name], codes.scale, codes.zero_point]
        return self.nodes.add("DequantizeLinear", inputs, owner, result)

    def _values(self, op: Op) -> list[str]:
        """Return what an operation reads that works on codes and on sums alike."""
        if op.grid.is_sums:
            return [self._real(name, op.name) for name in op.inputs]
        return [self._names[name] for name in op.inputs]

    def _pass_on(self, op: Op) -> None:
        """Record that the codes of `op` are on the grid of those it reads."""
        if not op.grid.is_sums:
            self._codes[op.name] = self._codes[op.inputs[0]]

    def _steps(self, op: Op, what: str, scale: npt.NDArray[np.float64]) -> str:
        name = ".".join(part for part in (op.name, what) if part)
        return self.nodes.constant(f"{name}.scale", as_float32(np.asarray(scale), name))

    def _add(self, kind: str, inputs: list[str], op: Op, **attributes: Any) -> None:  # noqa: ANN401
        self.nodes.add(kind, inputs, op.name, self._names[op.name], **attributes)
