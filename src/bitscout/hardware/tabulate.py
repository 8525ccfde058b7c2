# SPDX-License-Identifier: Apache-2.0
"""What a lookup table is filled with: a layer model evaluated wherever it has a rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.model import LayerModel, layer_kinds

__all__ = ["bit_widths", "describe_layers", "evaluate"]

IntArray = NDArray[np.int64]


def bit_widths(name: str, given: Iterable[int]) -> tuple[int, ...]:
    """Return the different bit-widths of an argument called `name`, ascending."""
    widths = tuple(sorted({int(bits) for bits in given}))
    if not widths or widths[0] < 1:
        msg = f"`{name}` of a table must be positive bit-widths, got {list(widths)}."
        raise ConfigError(msg)
    return widths


def describe_layers(layers: LayerArrays) -> list[str]:
    """Return something to call each of layers that have no name."""
    columns = (
        layer_kinds(layers),
        layers.kernel_height,
        layers.kernel_width,
        layers.in_channels,
        layers.out_channels,
        layers.output_height,
        layers.output_width,
    )
    return [
        f"{kind} {height}x{width}, {inputs} to {outputs} channels, output {rows}x{columns}"
        for kind, height, width, inputs, outputs, rows, columns in zip(*columns, strict=True)
    ]


def evaluate(
    model: LayerModel, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return the costs of layers of shape ``(n,)``, and where the model has a rule.

    Costs are 0 where it has none.
    """
    is_known = model.declares(layers, weight_bits, act_bits)
    found = np.flatnonzero(is_known)
    costs, is_known[found] = _where_accepted(
        model, layers[found], weight_bits[found], act_bits[found]
    )
    scattered = {}
    for name, values in costs.items():
        scattered[name] = np.zeros(len(layers), dtype=values.dtype)
        scattered[name][found] = values
    return scattered, is_known


def _where_accepted(
    model: LayerModel, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return the costs of layers and bits that the model declares, and which it accepts.

    A model refuses all layers of a call if it refuses one, so a refused call is halved until the
    refused layer is alone: about ``2 log2 n`` calls for each.
    """
    try:
        if model.refusal(layers, weight_bits, act_bits) is None:
            costs = model.checked_costs(layers, weight_bits, act_bits)
            return costs, np.ones(len(layers), dtype=np.bool_)
    except UnsupportedError:
        pass  # As a model says that has no `refusal`.
    if len(layers) < 2:
        none = np.zeros(len(layers), dtype=np.int64)
        return dict.fromkeys(model.quantities, none), none.astype(np.bool_)
    middle = len(layers) // 2
    parts = [
        _where_accepted(model, layers[part], weight_bits[part], act_bits[part])
        for part in (slice(None, middle), slice(middle, None))
    ]
    merged = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return merged, np.concatenate([part[1] for part in parts])
