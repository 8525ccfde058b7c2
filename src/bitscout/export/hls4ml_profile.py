# SPDX-License-Identifier: Apache-2.0
"""Which networks hls4ml computes exactly."""

from __future__ import annotations

import numpy as np

from bitscout.errors import UnsupportedError
from bitscout.export.graph import (
    Conv,
    FloatArray,
    Grid,
    IntegerGraph,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Rescale,
    SumPool,
)
from bitscout.export.qonnx_nodes import quant_range

__all__ = ["check_hls4ml", "is_power_of_two"]

REMEDY = "Search or quantize with `quantization: {profile: hls4ml}`, which makes such networks."


def check_hls4ml(graph: IntegerGraph) -> None:
    """Refuse a network that hls4ml would not compute exactly.

    Accepted are powers of two for all steps, one per tensor, zero points of 0, ordinary and
    depthwise convolutions, linear layers, additions, max pools without padding, and averages over
    windows of a power of two of elements.

    Raises:
        UnsupportedError: Naming the first operation that does not fit, and what would.
    """
    for op in graph:
        found = _problem(op, graph)
        if found is not None:
            what, remedy = found
            msg = f"hls4ml cannot compute {op.kind} {op.name!r} exactly: {what} {remedy}"
            raise UnsupportedError(msg)
    output = graph[graph.output]
    if len(output.shape) != 1:
        msg = (
            f"hls4ml needs a network that ends in one number per class, but the output "
            f"{output.name!r} has shape {output.shape}. Put a pool and a Flatten behind it."
        )
        raise UnsupportedError(msg)


def is_power_of_two(values: FloatArray) -> bool:
    """Whether all values are powers of two."""
    return bool((np.frexp(values)[0] == 0.5).all())


def _problem(op: Op, graph: IntegerGraph) -> tuple[str, str] | None:
    """Return what does not fit, and the remedy."""
    if isinstance(op, Conv | Linear) and not _is_one_power(op.weight_scale):
        return f"its weights have {_described(op.weight_scale)}, not one power of two.", REMEDY
    if not is_power_of_two(op.grid.scale):
        return f"it has {_described(op.grid.scale)}, not powers of two.", REMEDY
    if op.grid.zero_point:
        return f"its zero point is {op.grid.zero_point}, not 0.", REMEDY
    if not op.grid.is_sums and not _has_type(op.grid):
        ends = f"{op.grid.quant_min} to {op.grid.quant_max}"
        return f"codes from {ends} are no fixed-point type.", REMEDY
    if isinstance(op, PadChannels):
        return "it adds channels of zeros.", "Use shortcuts with a convolution."
    if isinstance(op, Conv):
        return _convolution_problem(op, graph)
    if isinstance(op, MaxPool | SumPool):
        return _pool_problem(op, graph)
    if isinstance(op, Rescale) and (op.divisor != 1).any():
        return _average_problem(op, graph)
    return None


def _average_problem(op: Rescale, graph: IntegerGraph) -> tuple[str, str] | None:
    if op.divisor.size != 1 or not is_power_of_two(op.divisor.astype(np.float64)):
        what = f"it averages over {np.unique(op.divisor).tolist()} elements."
        return what, "Use pools over a power of two of elements, without padding."
    if len(op.inputs) > 1 or not isinstance(graph[op.inputs[0]], SumPool):
        return "it divides more than the sums of a pool.", "Put an addition behind the pool."
    return None


def _convolution_problem(op: Conv, graph: IntegerGraph) -> tuple[str, str] | None:
    channels = graph[op.inputs[0]].shape[0]
    if op.dilation != (1, 1):
        return f"its dilation is {op.dilation}.", "Use a larger kernel instead."
    if op.groups not in (1, channels) or (op.groups > 1 and op.shape[0] != channels):
        what = f"it has {op.groups} groups for {channels} to {op.shape[0]} channels."
        return what, "Use one group, or one for every channel."
    return None


def _pool_problem(op: MaxPool | SumPool, graph: IntegerGraph) -> tuple[str, str] | None:
    regular = op.windows.regular()
    if regular is None or (isinstance(op, MaxPool) and any(regular.pads)):
        return "its windows are padded or uneven.", "Use a pool without padding that divides."
    if isinstance(op, SumPool):
        readers = graph.readers(op.name)
        divisors = {
            tuple(reader.divisor.ravel().tolist()) if isinstance(reader, Rescale) else ()
            for reader in readers
        }
        if len(divisors) != 1 or len(next(iter(divisors))) != 1:
            return "its sums are not divided by one number.", "Use pools without padding."
    return None


def _is_one_power(scale: FloatArray) -> bool:
    return bool((scale == scale.flat[0]).all()) and is_power_of_two(scale)


def _has_type(grid: Grid) -> bool:
    """Whether codes saturate as a fixed-point type, up to a lower end at the top of a ReLU6."""
    is_narrow = grid.is_signed and grid.quant_min > -(2 ** (grid.bit_width - 1))
    low, high = quant_range(grid.bit_width, is_signed=grid.is_signed, is_narrow=is_narrow)
    return grid.quant_min == low and (grid.quant_max == high or not grid.is_signed)


def _described(scale: FloatArray) -> str:
    if (scale == scale.flat[0]).all():
        return f"a step of {scale.flat[0]:.6g}"
    return f"{np.unique(scale).size} steps from {scale.min():.6g} to {scale.max():.6g}"
