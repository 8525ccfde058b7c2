# SPDX-License-Identifier: Apache-2.0
"""Which layers of a given network share a choice."""

from __future__ import annotations

from typing import Literal

from bitscout.space.model_description import ModelDescription

__all__ = ["bit_labels", "width_labels"]


def bit_labels(
    description: ModelDescription, tie: Literal["layer", "block", "stage"]
) -> dict[str, tuple[str, ...]]:
    """Return the layers that share their bits, by label, in execution order.

    The first and the last layer never share: they see the image and give the classes. Fixed
    layers are left out.

    Args:
        description: The network; at least one layer.
        tie: ``"layer"`` ties nothing.
    """
    layers = [given for given in description.layers if given.state != "fixed"]
    names = [given.layer.name for given in layers]
    edges = {names[0], names[-1]}
    found: dict[str, list[str]] = {}
    for given in layers:
        name = given.layer.name
        label = {"layer": name, "block": given.block, "stage": given.stage}[tie]
        if name in edges:
            label = name
        elif label in edges:
            label = f"{label}.others"
        found.setdefault(label, []).append(name)
    return {label: tuple(layers) for label, layers in found.items()}


def width_labels(
    description: ModelDescription, tie: Literal["group", "stage"]
) -> dict[str, tuple[int, ...]]:
    """Return the channel groups that share a multiplier, by label; fixed groups are left out.

    A group belongs to the stage of the last layer that writes it: the stream of a residual stage
    begins in a stem of another resolution.

    Args:
        description: The network.
        tie: ``"group"`` ties nothing.
    """
    stages: dict[int, str] = {}  # In the order in which groups are first written.
    for given in description.layers:
        # A norm of its own does not write the channels it reads.
        for segment in given.outputs if given.state != "fixed" else ():
            stages[segment.group] = given.stage
    found: dict[str, list[int]] = {}
    for index, stage in stages.items():
        group = description.groups[index]
        if group.fixed is None:
            found.setdefault(stage if tie == "stage" else group.name, []).append(index)
    return {label: tuple(groups) for label, groups in found.items()}
