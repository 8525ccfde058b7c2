# SPDX-License-Identifier: Apache-2.0
"""What a hardware model answers: every quantity with its unit, for each layer and in total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CostReport", "LayerCost"]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer costs.

    Attributes:
        name: The layer's name.
        kind: ``conv``, ``depthwise``, ``grouped`` or ``linear``.
        macs: Multiply-accumulates for one input.
        weight_bits: Bits of each weight.
        act_bits: Bits of each element of the layer's input.
        costs: The model's quantities by name.
    """

    name: str
    kind: str
    macs: int
    weight_bits: int
    act_bits: int
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CostReport:
    """What a network costs on one target.

    Attributes:
        hardware: The model with its options, as `load_hardware` reads them.
        batch: Inputs that are computed together; every quantity is for all of them.
        units: Unit of each quantity, by name.
        total: Each quantity of the whole network.
        layers: One entry a layer, in execution order. Quantities that only the whole network has
            are missing here.
        notes: What a reader of the figures must know.
        description: One line about the target; empty where nobody gave one.
    """

    hardware: str
    batch: int
    units: Mapping[str, str]
    total: Mapping[str, float]
    layers: tuple[LayerCost, ...]
    notes: tuple[str, ...] = field(default=())
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout cost --json``."""
        return {
            "hardware": self.hardware,
            "description": self.description,
            "batch": self.batch,
            "units": dict(self.units),
            "total": dict(self.total),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "macs": layer.macs,
                    "weight_bits": layer.weight_bits,
                    "act_bits": layer.act_bits,
                    **layer.costs,
                }
                for layer in self.layers
            ],
            "notes": list(self.notes),
        }
