# SPDX-License-Identifier: Apache-2.0
"""The BOMP space in words: which choices shape which layer."""

from __future__ import annotations

from collections.abc import Mapping

from bitscout.core import Value
from bitscout.space.bomp_table import BIT_CHOICES
from bitscout.space.choice import Choice
from bitscout.space.mobilenet_spec import STEM_KERNEL
from bitscout.space.summary import LayerSummary

__all__ = ["explain_rows"]

# What shapes each layer of a block, beside the repetitions and the layer's own bits.
_SHAPED_BY = {
    "expand": ("expansion",),
    "depthwise": ("kernel", "expansion"),
    "project": ("width", "expansion"),
}


def explain_rows(table: Mapping[str, Choice], act_bits: int) -> tuple[LayerSummary, ...]:
    """Return one entry per bit variable of the BOMP space, in the order of the network.

    Args:
        table: Every row of Table I by name, rows with one value included.
        act_bits: Activation bits of every layer.
    """
    return tuple(_explain(name, table, act_bits) for name in BIT_CHOICES)


def _explain(bit_choice: str, table: Mapping[str, Choice], act_bits: int) -> LayerSummary:
    layer = bit_choice.removesuffix(".bits")
    rows, fixed = _rows_and_constants(layer)
    choices: dict[str, tuple[Value, ...]] = {}
    for name in (*rows, bit_choice):
        values = table[name].values
        if len(values) > 1:
            choices[name] = values
        else:
            fixed[name] = values[0]
    fixed["act_bits"] = act_bits
    return LayerSummary(
        name=_layer_name(layer),
        kind="linear" if layer == "classifier" else "conv",
        state="searched" if choices else "fixed",
        reason=_reason(layer, table, choices),
        choices=choices,
        fixed=fixed,
    )


def _rows_and_constants(layer: str) -> tuple[tuple[str, ...], dict[str, Value]]:
    """Return the rows of the table that shape `layer`, and what no row changes."""
    if layer == "stem":
        return ("block1.width",), {"kernel": STEM_KERNEL, "stride": 1}
    if layer == "conv2":
        return ("conv2.filters",), {"kernel": 1, "stride": 1}
    if layer == "classifier":
        return ("conv2.filters",), {}
    block, part = layer.split(".")
    rows = tuple(f"{block}.{row}" for row in (*_SHAPED_BY[part], "repetitions"))
    return rows, {} if part == "depthwise" else {"kernel": 1}


def _layer_name(layer: str) -> str:
    """Return the module path of the layers `layer` stands for."""
    if layer == "classifier":
        return layer
    block, _, part = layer.partition(".")
    return f"{block}.*.{part}.conv" if part else f"{block}.conv"


def _reason(
    layer: str, table: Mapping[str, Choice], choices: Mapping[str, tuple[Value, ...]]
) -> str:
    if not choices:
        return "Every list that shapes it has one value."
    block, _, part = layer.partition(".")
    if not part:
        return "Always present." if layer != "stem" else "Always present; 32 x width filters."
    allowed = table[f"{block}.repetitions"].values
    most = allowed[-1]
    shared = f"shared by up to {most} repetitions" if most != 1 else "one repetition"
    absent = f"; absent where {block}.repetitions is 0" if 0 in allowed else ""
    return f"{shared.capitalize()}{absent}."
