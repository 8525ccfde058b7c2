# SPDX-License-Identifier: Apache-2.0
"""The space of a given network in words: what is chosen about each layer, and why not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitscout.core import Value
from bitscout.space.choice import Choice
from bitscout.space.model_description import ChannelGroup, GivenLayer, ModelDescription
from bitscout.space.summary import LayerState, LayerSummary

__all__ = ["ModelTies", "explain_model"]


@dataclass(frozen=True)
class ModelTies:
    """Which choices shape which layers.

    Attributes:
        bit_label: Label of the bits of each layer.
        width_label: Label of the multiplier of each channel group that has one.
        bits: Weight bits of each bit label.
        act_bits: ``"same"``, one number, or a list to choose from.
    """

    bit_label: Mapping[str, str]
    width_label: Mapping[int, str]
    bits: Mapping[str, tuple[int, ...]]
    act_bits: str | int | tuple[int, ...]


def explain_model(
    description: ModelDescription, choices: Sequence[Choice], ties: ModelTies
) -> tuple[LayerSummary, ...]:
    """Return one entry per layer of the network, in execution order."""
    known = {choice.name: choice.values for choice in choices}
    return tuple(_explain(given, description, known, ties) for given in description.layers)


def _explain(
    given: GivenLayer,
    description: ModelDescription,
    known: Mapping[str, tuple[Value, ...]],
    ties: ModelTies,
) -> LayerSummary:
    layer = given.layer
    fixed: dict[str, Value] = {}
    if layer.kind == "conv":
        fixed = {
            "kernel": "x".join(map(str, layer.kernel)),
            "stride": "x".join(map(str, layer.stride)),
        }
        if layer.groups > 1:
            fixed["groups"] = "depthwise" if layer.is_depthwise else layer.groups
    if given.state != "searched":
        return LayerSummary(layer.name, layer.kind, given.state, given.reason, {}, fixed)
    label = ties.bit_label[layer.name]
    names = [f"{label}.bits", f"{label}.act_bits"]
    written = {segment.group for segment in given.outputs}
    names += [f"{ties.width_label[g]}.width" for g in sorted(written) if g in ties.width_label]
    choices = {name: known[name] for name in names if name in known}
    if f"{label}.bits" not in known:
        fixed["bits"] = ties.bits[label][0]
    if not isinstance(ties.act_bits, tuple):
        fixed["act_bits"] = ties.act_bits
    elif f"{label}.act_bits" not in known:
        fixed["act_bits"] = ties.act_bits[0]
    state: LayerState = "searched" if choices else "fixed"
    reason = _reason(given, [description.groups[g] for g in sorted(written)], choices, label)
    return LayerSummary(layer.name, layer.kind, state, reason, choices, fixed)


def _reason(
    given: GivenLayer,
    groups: Sequence[ChannelGroup],
    choices: Mapping[str, tuple[Value, ...]],
    label: str,
) -> str:
    bits = f"bits chosen for {label!r}" if f"{label}.bits" in choices else "one bit-width allowed"
    if label == given.layer.name:
        bits = "bits of its own" if f"{label}.bits" in choices else "one bit-width allowed"
    width = next((name for name in choices if name.endswith(".width")), None)
    if width is not None:
        return f"{bits.capitalize()}; width chosen for {width.removesuffix('.width')!r}."
    why = next((group.fixed for group in groups if group.fixed), None)
    if why is None:
        return f"{bits.capitalize()}."
    return f"{bits.capitalize()}; {given.layer.out_channels} channels stay: {why}"
