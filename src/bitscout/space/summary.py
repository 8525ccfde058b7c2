# SPDX-License-Identifier: Apache-2.0
"""How large a space is and what it lets a search choose, for people and for ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from typing import Any, Literal

from bitscout.core import LayerKind, Value

__all__ = ["LayerState", "LayerSummary", "SpaceSummary"]

LayerState = Literal["searched", "fixed", "unsupported"]


@dataclass(frozen=True, slots=True)
class SpaceSummary:
    """Exact counts of a space.

    Attributes:
        n_dimensions: Choices with more than one value.
        n_bit_variables: Those of them that are bit-widths.
        n_architectures: Product of the lengths of the architecture choices, as papers count.
        n_policies: Product of the lengths of the bit choices.
        n_layouts: Architectures that differ once inactive choices are ignored.
        n_networks: Architectures that differ once inactive choices are ignored and widths that
            round to the same channels are counted once.
    """

    n_dimensions: int
    n_bit_variables: int
    n_architectures: int
    n_policies: int
    n_layouts: int
    n_networks: int

    @property
    def log10_architectures(self) -> float:
        """Decimal logarithm of `n_architectures`."""
        return log10(self.n_architectures)

    @property
    def log10_policies(self) -> float:
        """Decimal logarithm of `n_policies`."""
        return log10(self.n_policies)

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of architectures times policies."""
        return log10(self.n_architectures * self.n_policies)

    @property
    def log10_layouts(self) -> float:
        """Decimal logarithm of `n_layouts`."""
        return log10(self.n_layouts)

    @property
    def log10_networks(self) -> float:
        """Decimal logarithm of `n_networks`."""
        return log10(self.n_networks)

    def to_json(self) -> dict[str, int | float]:
        """Return the numbers ``explain`` prints, logarithms to three decimals."""
        return {
            "n_dimensions": self.n_dimensions,
            "n_bit_variables": self.n_bit_variables,
            "log10_architectures": round(self.log10_architectures, 3),
            "log10_policies": round(self.log10_policies, 3),
            "log10_size": round(self.log10_size, 3),
            "log10_layouts": round(self.log10_layouts, 3),
            "log10_networks": round(self.log10_networks, 3),
        }


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What a search may choose about one layer, or about layers that share their choices.

    Attributes:
        name: Layer name; ``*`` stands for the repetitions that share every choice.
        kind: ``"conv"`` or ``"linear"``.
        state: ``"searched"`` if anything about it is chosen, ``"fixed"`` if nothing is,
            ``"unsupported"`` if it cannot be quantized.
        reason: One sentence.
        choices: Allowed values of every choice that shapes this layer, by choice name.
        fixed: What cannot be chosen, with its value.
    """

    name: str
    kind: LayerKind
    state: LayerState
    reason: str
    choices: Mapping[str, tuple[Value, ...]]
    fixed: Mapping[str, Value]

    def to_json(self) -> dict[str, Any]:
        """Return one entry of ``layers`` in the document of ``explain``."""
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "reason": self.reason,
            "choices": {name: list(values) for name, values in self.choices.items()},
            "fixed": dict(self.fixed),
        }
