# SPDX-License-Identifier: Apache-2.0
"""Quantized modules as operations of an integer graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from bitscout.errors import UnsupportedError
from bitscout.export.assemble import Assembler
from bitscout.export.expressions import Clamped, Expr, Padded, Term, Total
from bitscout.export.graph import Conv, Grid, Linear
from bitscout.export.pools import Averaged, adaptive_avg_pool2d, avg_pool2d
from bitscout.quantization import (
    ActivationQuantizer,
    QuantAdd,
    QuantAvgPool,
    QuantConv2d,
    QuantizedLayer,
    QuantLinear,
    QuantModule,
)

__all__ = ["Read", "lower_module"]

Shape = tuple[int, ...]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Read:
    """What a quantized module reads, as codes.

    Attributes:
        tensor: Name in the graph.
        pads: Zeros that the network puts around it before the module: top, left, bottom, right.
    """

    tensor: str
    pads: Pads = (0, 0, 0, 0)


def lower_module(
    graph: Assembler, module: QuantModule, sources: list[Expr], shape: Shape
) -> tuple[Total | Averaged, tuple[Read, ...]]:
    """Add the operations of a quantized module.

    Args:
        graph: Gets the operations.
        module: The module.
        sources: What it reads.
        shape: Of its result, without the batch.

    Returns:
        Its result, and the tensors it reads.

    Raises:
        UnsupportedError: If it has no exact integer form; says why, not where.
    """
    match module, sources:
        case QuantConv2d() as layer, [source]:
            return _conv(graph, layer, source, shape)
        case QuantLinear() as layer, [source]:
            return _linear(graph, layer, source, shape)
        case QuantAdd() as add, [_, _]:
            return _add(graph, add, sources, shape)
        case QuantAvgPool() as pool, [source]:
            return _pool(graph, pool, source, shape)
    msg = f"a {type(module).__name__} of {len(sources)} tensors has no integer form."
    raise UnsupportedError(msg)


def _conv(
    graph: Assembler, layer: QuantConv2d, source: Expr, shape: Shape
) -> tuple[Total, tuple[Read]]:
    if layer.padding_mode != "zeros":
        msg = f"it pads by {layer.padding_mode!r}. Use padding_mode='zeros'."
        raise UnsupportedError(msg)
    if len(source.shape) != 3:
        msg = f"it reads shape {source.shape} without a batch. Give it (n, C, H, W)."
        raise UnsupportedError(msg)
    left, right, top, bottom = layer.explicit_padding
    vertical, horizontal = layer.padding
    own = vertical + top, horizontal + left, vertical + bottom, horizontal + right
    source, outer = _without_padding(source)
    name = graph.free_name(layer.name or "conv")
    x = _quantize(graph, source, layer.input_quantizer, f"{name}.input")
    grid = Grid.sums(layer.bias_steps().cpu().numpy())
    tensor = graph.add(
        Conv(
            name=name,
            inputs=(x,),
            shape=shape,
            grid=grid,
            weight=layer.weight_codes().cpu().numpy(),
            weight_bits=layer.weight_quantizer.bit_width,
            weight_scale=_weight_scale(layer),
            bias=_bias(layer),
            stride=layer.stride,
            pads=_added(own, outer),
            dilation=layer.dilation,
            groups=layer.groups,
        )
    )
    return Total(shape, (Term(tensor, grid.scale),)), (Read(x, outer),)


def _linear(
    graph: Assembler, layer: QuantLinear, source: Expr, shape: Shape
) -> tuple[Total, tuple[Read]]:
    if len(source.shape) != 1:
        msg = f"it reads shape {source.shape}. Flatten to (n, features) before a Linear."
        raise UnsupportedError(msg)
    if layer.weight.shape[1:] != source.shape:
        msg = f"it reads rows of a tensor. Flatten to (n, {source.shape[0]}) before a Linear."
        raise UnsupportedError(msg)
    name = graph.free_name(layer.name or "linear")
    x = _quantize(graph, source, layer.input_quantizer, f"{name}.input")
    grid = Grid.sums(layer.bias_steps().cpu().numpy())
    tensor = graph.add(
        Linear(
            name=name,
            inputs=(x,),
            shape=shape,
            grid=grid,
            weight=layer.weight_codes().cpu().numpy(),
            weight_bits=layer.weight_quantizer.bit_width,
            weight_scale=_weight_scale(layer),
            bias=_bias(layer),
        )
    )
    return Total(shape, (Term(tensor, grid.scale),)), (Read(x),)


def _add(
    graph: Assembler, add: QuantAdd, sources: list[Expr], shape: Shape
) -> tuple[Total, tuple[Read, ...]]:
    if sources[0].shape != sources[1].shape:
        msg = f"it adds shapes {sources[0].shape} and {sources[1].shape}. Make them equal."
        raise UnsupportedError(msg)
    tensors = [
        _quantize(graph, source, quantizer, f"{add.name or 'add'}.{side}")
        for source, quantizer, side in zip(sources, add.input_quantizers(), "ab", strict=True)
    ]
    terms = tuple(Term(name, graph[name].grid.scale) for name in tensors)
    return Total(shape, terms), tuple(Read(name) for name in tensors)


def _pool(
    graph: Assembler, pool: QuantAvgPool, source: Expr, shape: Shape
) -> tuple[Averaged, tuple[Read]]:
    x = _quantize(graph, source, pool.input_quantizer, f"{pool.name or 'pool'}.input")
    codes = Total(source.shape, (Term(x, graph[x].grid.scale),))
    inner = pool.pool
    if isinstance(inner, nn.AdaptiveAvgPool2d):
        average = adaptive_avg_pool2d(shape, codes)
    else:
        average = avg_pool2d(
            shape,
            codes,
            inner.kernel_size,
            inner.stride,
            inner.padding,
            inner.ceil_mode,
            inner.count_include_pad,
            inner.divisor_override,
        )
    return average, (Read(x),)


def _quantize(graph: Assembler, expr: Expr, quantizer: ActivationQuantizer, name: str) -> str:
    step, low, high = quantizer.grid()
    if not (math.isfinite(step) and step > 0):
        msg = f"its input has a step of {step}. Calibrate again."
        raise UnsupportedError(msg)
    return graph.quantize(expr, Grid(np.array(step), quantizer.bit_width, low, high), name)


def _without_padding(expr: Expr) -> tuple[Expr, Pads]:
    """Take padding off what a convolution reads; a ReLU leaves zeros as they are."""
    if isinstance(expr, Padded):
        source, inner = _without_padding(expr.source)
        return source, _added(expr.pads, inner)
    if isinstance(expr, Clamped) and expr.low <= 0 <= expr.high:
        source, pads = _without_padding(expr.source)
        if any(pads):
            return Clamped(source.shape, source, expr.low, expr.high), pads
    return expr, (0, 0, 0, 0)


def _added(first: Pads, second: Pads) -> Pads:
    top, left, bottom, right = (a + b for a, b in zip(first, second, strict=True))
    return top, left, bottom, right


def _weight_scale(layer: QuantizedLayer) -> npt.NDArray[np.float64]:
    scale: npt.NDArray[np.float64] = layer.weight_quantizer.steps().detach().double().cpu().numpy()
    return scale


def _bias(layer: QuantizedLayer) -> npt.NDArray[np.int64] | None:
    codes = layer.bias_codes()
    return None if codes is None else codes.cpu().numpy()
