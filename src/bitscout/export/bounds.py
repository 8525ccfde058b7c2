# SPDX-License-Identifier: Apache-2.0
"""How large every integer of a graph can become: proved from the weights, not sampled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError
from bitscout.export.fixed_point import INT32_MAX
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
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

__all__ = ["check_no_overflow", "magnitudes"]

FloatArray = npt.NDArray[np.float64]
# What `half_even_divide` takes numerators and denominators below.
INT64_HEADROOM = 2.0**62
INT64_LIMIT = 2.0**63


def magnitudes(graph: IntegerGraph) -> dict[str, FloatArray]:
    """Return a bound of ``|x - zero_point|`` for every tensor, by channel, shape ``(C,)``.

    The bound of a sum holds for every partial sum, in any order.
    """
    found: dict[str, FloatArray] = {}
    for op in graph:
        found[op.name] = _magnitude(op, found)
    return found


def check_no_overflow(graph: IntegerGraph) -> None:
    """Check that every sum fits in an int32, and a `Rescale`'s products and divisors in an int64.

    Raises:
        UnsupportedError: Naming the layer, and what its sums can reach.
    """
    found = magnitudes(graph)
    for op in graph:
        largest = float(found[op.name].max())
        if isinstance(op, Rescale):
            _check_products(op, found)
        elif largest > INT32_MAX:
            msg = (
                f"The sums of {op.name!r} can reach {largest:.4g}, more than an int32 holds "
                f"({INT32_MAX}). Give the layer fewer weight or activation bits, or fewer inputs."
            )
            raise UnsupportedError(msg)


def _check_products(op: Rescale, found: Mapping[str, FloatArray]) -> None:
    products = sum(
        found[name] * factor for name, factor in zip(op.inputs, op.multiplier, strict=True)
    )
    if np.max(products) >= INT64_HEADROOM:
        msg = (
            f"Rescaling to {op.name!r} needs products of {np.max(products):.4g}, more than an "
            "int64 holds. Give the layer before fewer weight or activation bits."
        )
        raise UnsupportedError(msg)
    # No rounding of a float64 hides a denominator that is too large: the limit is a float64.
    denominator = float(np.exp2(op.shift.max()) * op.divisor.max())
    if denominator >= INT64_LIMIT:
        msg = (
            f"Rescaling to {op.name!r} divides by {denominator:.4g}, more than an int64 holds. "
            "Use a smaller shift or smaller pooling windows."
        )
        raise UnsupportedError(msg)
    # The last step has no saturation that int32 logits could rely on.
    if op.grid.is_sums:
        largest = float(np.max(products / (np.exp2(op.shift) * op.divisor.min())))
        if largest > INT32_MAX:
            msg = f"The outputs can reach {largest:.4g}, more than an int32 holds ({INT32_MAX})."
            raise UnsupportedError(msg)


def _magnitude(op: Op, found: Mapping[str, FloatArray]) -> FloatArray:
    match op:
        case Input() | Rescale():
            if op.grid.is_sums and isinstance(op, Rescale):
                return _of_outputs(op, found)
            return np.full(op.shape[0], _of_codes(op.grid), dtype=np.float64)
        case Conv():
            x = found[op.inputs[0]].reshape(op.groups, -1)
            per_group = np.repeat(x, op.shape[0] // op.groups, axis=0)
            weight = np.abs(op.weight.astype(np.float64)).sum(axis=(2, 3))
            sums: FloatArray = (weight * per_group).sum(axis=1)
            return sums + _of_bias(op)
        case Linear():
            weight = np.abs(op.weight.astype(np.float64))
            products: FloatArray = weight @ found[op.inputs[0]]
            return products + _of_bias(op)
        case SumPool():
            return found[op.inputs[0]] * float(op.windows.counts.max())
        case MaxPool() | Relu():
            return found[op.inputs[0]]
        case Concat():
            return np.concatenate([found[name] for name in op.inputs])
        case PadChannels():
            x = found[op.inputs[0]]
            return np.pad(x, (op.before, op.shape[0] - op.before - len(x)))
        case Flatten():
            x = found[op.inputs[0]]
            return np.repeat(x, op.shape[0] // len(x))


def _of_codes(grid: Grid) -> float:
    low, high = grid.quant_min - grid.zero_point, grid.quant_max - grid.zero_point
    return float(max(abs(low), abs(high)))


def _of_bias(op: Conv | Linear) -> FloatArray | float:
    return 0.0 if op.bias is None else np.abs(op.bias.astype(np.float64))


def _of_outputs(op: Rescale, found: Mapping[str, FloatArray]) -> FloatArray:
    total = sum(
        found[name] * factor for name, factor in zip(op.inputs, op.multiplier, strict=True)
    )
    result: FloatArray = np.asarray(total) / (np.exp2(op.shift) * op.divisor.min()) + 1
    return result
