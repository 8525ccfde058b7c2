# SPDX-License-Identifier: Apache-2.0
"""A QONNX model of any integer graph, exact in QONNX's own executor.

The executor computes in floating point, so real values ``s q`` with ordinary steps would round
in every product and move some 1e-5 of the activations to the next code. Here tensors hold the
integers themselves, less their zero point, as after QONNX's `ExtractQuantScaleZeroPt`: Quant nodes
have scale 1 and only round and clamp, and steps appear as factors between the layers.

A convolution adds integer products in float32, exact as long as sums stay below 2**24; a bias that
could take them beyond is added in float64. A rescale multiplies by ``M / 2**S`` in float64, which
holds that number exactly. The product is rounded, but never past a number half way between two
codes: a code could be wrong only where the exact quotient is nearer to half way than 2**-45, and
not there, which needs a factor below 2**-14. Where float32 is exact, as with powers of two and
the steps of few bits that `bitscout.quantization` chooses, it stays with that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    FloatArray,
    Grid,
    Input,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    Shape,
    SumPool,
)
from bitscout.export.hls4ml_profile import is_power_of_two
from bitscout.export.qonnx_nodes import (
    INPUT,
    OUTPUT,
    QonnxNodes,
    Tensor,
    conv_attributes,
    quant_range,
)
from bitscout.export.qonnx_windows import max_windows, sum_windows

__all__ = ["IntegerEmitter", "per_channel"]

EXACT_FLOAT32 = 2**24
INT32_MAX = 2**31 - 1


class IntegerEmitter:
    """Adds the nodes of one operation after the other.

    Args:
        nodes: Where to add them.
    """

    def __init__(self, nodes: QonnxNodes) -> None:
        self._nodes = nodes
        self._tensors: dict[str, Tensor] = {}

    def emit(self, graph: IntegerGraph) -> None:
        """Add the whole network; its output is the real one, in float32."""
        for op in graph:
            self._tensors[op.name] = self._add(op)
        output = graph[graph.output]
        integers, scale = self._tensors[output.name], per_channel(output.grid.scale, output.shape)
        is_single = not integers.is_double and bool((scale.astype(np.float32) == scale).all())
        if is_single:
            step = self._nodes.constant(scale.astype(np.float32), "output_step")
            self._nodes.add("Mul", [integers.name, step], replace(integers, name=OUTPUT))
            return
        integers = self._nodes.double(integers)
        step = self._nodes.constant(scale, "output_step")
        real = replace(integers, name="output_double")
        self._nodes.single(self._nodes.add("Mul", [integers.name, step], real), name=OUTPUT)

    def _add(self, op: Op) -> Tensor:  # noqa: C901  # a case for every kind of operation
        match op:
            case Input():
                return self._input(op)
            case Conv() | Linear():
                return self._layer(op)
            case Rescale():
                return self._rescale(op)
            case SumPool():
                x = self._tensors[op.inputs[0]]
                if x.bound * op.windows.counts.max() >= EXACT_FLOAT32:
                    x = self._nodes.double(x)
                return sum_windows(self._nodes, x, op.windows, op.name)
            case MaxPool():
                return max_windows(self._nodes, self._tensors[op.inputs[0]], op.windows, op.name)
            case Relu():
                x = self._tensors[op.inputs[0]]
                return self._nodes.add("Relu", [x.name], replace(x, name=op.name))
            case Concat():
                return self._concat(op)
            case PadChannels():
                return self._pad_channels(op)
            case Flatten():
                x = self._tensors[op.inputs[0]]
                flat = replace(x, name=op.name, shape=op.shape)
                return self._nodes.add("Flatten", [x.name], flat, axis=1)

    def _input(self, op: Input) -> Tensor:
        image = Tensor(INPUT, op.shape)
        scale = self._nodes.number(float(op.grid.scale), image)
        scaled = replace(image, name=f"{op.name}_scaled")
        return self._codes(self._nodes.add("Div", [INPUT, scale], scaled), op.grid, op.name)

    def _layer(self, op: Conv | Linear) -> Tensor:
        nodes, x = self._nodes, self._tensors[op.inputs[0]]
        magnitudes = np.abs(op.weight.reshape(len(op.weight), -1).astype(np.int64)).sum(axis=1)
        bias = np.zeros(1) if op.bias is None else op.bias
        sums = Tensor(op.name, op.shape, bound=float((magnitudes * x.bound + abs(bias)).max()))
        # One name for the layer's weight in all files, whatever the framework called it.
        codes = op.weight if isinstance(op, Conv) else op.weight.T
        weight = self._parameter(codes, op.weight_bits, f"{op.name}.weight")
        is_exact = sums.bound < EXACT_FLOAT32
        inputs = [x.name, weight]
        if isinstance(op, Conv):
            if op.bias is not None and is_exact:
                inputs.append(self._parameter(op.bias, 32, f"{op.name}.bias"))
            result = nodes.add("Conv", inputs, sums, **conv_attributes(op))
        else:
            result = nodes.add("MatMul", inputs, sums)
        is_added = op.bias is not None and (isinstance(op, Linear) or not is_exact)
        return self._with_bias(op, result, is_exact=is_exact) if is_added else result

    def _with_bias(self, op: Conv | Linear, x: Tensor, *, is_exact: bool) -> Tensor:
        assert op.bias is not None
        if is_exact:
            bias = self._parameter(op.bias, 32, f"{op.name}.bias")
        else:
            # No Quant node: its result would be float32.
            x = self._nodes.double(x)
            values = per_channel(op.bias.astype(np.float64), op.shape)
            bias = self._nodes.stored(values, f"{op.name}.bias")
        return self._nodes.add("Add", [x.name, bias], replace(x, name=f"{op.name}_biased"))

    def _parameter(self, codes: np.ndarray, bit_width: int, name: str) -> str:
        """Return integers of a weight or bias behind a Quant node that says how many bits."""
        values = self._nodes.stored(codes.astype(np.float32), name)
        is_narrow = bool(codes.min(initial=0) > -(2 ** (bit_width - 1)))
        result = Tensor(f"{name}_quant", codes.shape)
        return self._nodes.quant(
            values, result, bit_width, is_signed=True, is_narrow=is_narrow, is_parameter=True
        ).name

    def _rescale(self, op: Rescale) -> Tensor:
        operands = [self._tensors[name] for name in op.inputs]
        factors = np.ldexp(op.multiplier.astype(np.float64), -op.shift)
        is_double = not _is_exact_in_float32(operands, op)
        terms = [
            self._times(self._nodes.double(x) if is_double else x, factor, op.name)
            for x, factor in zip(operands, factors, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            added = replace(total, name=f"{op.name}_sum", bound=total.bound + term.bound)
            total = self._nodes.add("Add", [total.name, term.name], added)
        if (op.divisor != 1).any():
            divisor = self._nodes.constant(op.divisor.astype(_dtype(total)), "divisor")
            total = replace(total, bound=total.bound / op.divisor.min())
            quotient = replace(total, name=f"{op.name}_mean")
            total = self._nodes.add("Div", [total.name, divisor], quotient)
        if op.grid.is_sums:
            return self._sums(total, op.name)
        return self._codes(total, op.grid, op.name)

    def _times(self, x: Tensor, factor: FloatArray, name: str) -> Tensor:
        if (factor == 1).all():
            return x
        values = per_channel(factor, x.shape).astype(_dtype(x))
        constant = self._nodes.constant(values, f"{name}.factor")
        bound = x.bound * float(factor.max())
        result = replace(x, name=f"{name}_scaled", bound=bound)
        return self._nodes.add("Mul", [x.name, constant], result)

    def _sums(self, x: Tensor, name: str) -> Tensor:
        """Round to int32."""
        if x.bound > INT32_MAX:
            ends = [self._nodes.number(end, x) for end in (-INT32_MAX, INT32_MAX)]
            x = replace(x, name=f"{name}_clipped", bound=INT32_MAX)
            x = self._nodes.add("Clip", [x.name, *ends], x)
        return self._nodes.add("Round", [x.name], replace(x, name=name, bound=x.bound + 1))

    def _codes(self, x: Tensor, grid: Grid, name: str) -> Tensor:
        """Round to codes and return them less their zero point."""
        nodes, zero = self._nodes, grid.zero_point
        if zero:
            # Rounded before it is moved: an odd zero point would turn ties the other way.
            x = nodes.add("Round", [x.name], replace(x, name=f"{name}_rounded"))
            moved = replace(x, name=f"{name}_moved")
            x = nodes.add("Add", [x.name, nodes.number(zero, x)], moved)
        is_narrow = grid.quant_min > -(2 ** (grid.bit_width - 1))
        ends = grid.quant_min, grid.quant_max
        if ends != quant_range(grid.bit_width, is_signed=grid.is_signed, is_narrow=is_narrow):
            limits = [nodes.number(end, x) for end in ends]
            x = nodes.add("Clip", [x.name, *limits], replace(x, name=f"{name}_clipped"))
        bound = max(grid.quant_max - zero, zero - grid.quant_min)
        codes = Tensor(f"{name}_codes" if zero else name, x.shape, bound=bound)
        codes = nodes.quant(
            x.name,
            codes,
            grid.bit_width,
            is_signed=grid.is_signed,
            is_narrow=grid.is_signed and is_narrow,
        )
        if not zero:
            return codes
        return nodes.add("Sub", [codes.name, nodes.number(zero, codes)], replace(codes, name=name))

    def _concat(self, op: Concat) -> Tensor:
        parts = [self._tensors[name] for name in op.inputs]
        if any(part.is_double for part in parts):
            parts = [self._nodes.double(part) for part in parts]
        bound = max(part.bound for part in parts)
        whole = replace(parts[0], name=op.name, shape=op.shape, bound=bound)
        return self._nodes.add("Concat", [part.name for part in parts], whole, axis=1)

    def _pad_channels(self, op: PadChannels) -> Tensor:
        x = self._tensors[op.inputs[0]]
        pads = np.zeros((2, len(op.shape) + 1), dtype=np.int64)
        pads[:, 1] = op.before, op.shape[0] - op.before - x.shape[0]
        # Codes are those of their zero point less here, so that zeros are zeros.
        inputs = [x.name, self._nodes.constant(pads.ravel(), "pads"), self._nodes.number(0, x)]
        return self._nodes.add("Pad", inputs, replace(x, name=op.name, shape=op.shape))


def per_channel(values: FloatArray, shape: Shape) -> FloatArray:
    """Return values of the channels such that they broadcast to a tensor of `shape`."""
    return values.reshape(-1, *[1] * (len(shape) - 1)) if values.size > 1 else values


def _is_exact_in_float32(operands: list[Tensor], op: Rescale) -> bool:
    """Whether products, sum and quotient need no more than float32's 24 bits."""
    if any(x.is_double for x in operands) or not is_power_of_two(op.divisor.astype(np.float64)):
        return False
    # The largest power of two that divides the factors of a channel; a factor of 0 has any.
    lowest = np.where(op.multiplier == 0, 2**62, op.multiplier & -op.multiplier)
    bounds = np.array([[max(x.bound, 1.0)] for x in operands])
    in_units = (bounds * (op.multiplier / lowest.min(axis=0))).sum(axis=0)
    return bool((in_units < EXACT_FLOAT32).all())


def _dtype(x: Tensor) -> type[np.float32 | np.float64]:
    return np.float64 if x.is_double else np.float32
