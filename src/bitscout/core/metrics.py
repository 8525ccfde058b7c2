# SPDX-License-Identifier: Apache-2.0
"""What was measured or computed about one candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite

from bitscout.errors import ConfigError

__all__ = ["METRIC_DIRECTIONS", "Metrics"]

METRIC_DIRECTIONS: dict[str, int] = {
    # +1: larger is better, -1: smaller is better.
    "val_accuracy": 1,
    "test_accuracy": 1,
    "size_bytes": -1,
    "weight_bytes": -1,
    "macs": -1,
    "bops": -1,
    "cycles": -1,
    "latency_ms": -1,
    "energy_mj": -1,
    "peak_memory_bytes": -1,
    "flash_bytes": -1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The quantities of one evaluated candidate; `None` where a quantity was not computed.

    Attributes:
        val_accuracy: Fraction of the validation split classified correctly, in ``[0, 1]``.
        test_accuracy: The same on the test set; set for final networks only.
        size_bytes: Weights at their bit-widths and int32 biases, in bytes (definition W+B).
        weight_bytes: Weights at their bit-widths alone, in bytes (definition W).
        macs: Multiply-accumulates for one input.
        bops: Sum of MACs x weight bits x activation bits.
        cycles: Clock cycles on the device, for one batch of its hardware model.
        latency_ms: Time for one batch, in milliseconds.
        energy_mj: Energy for one batch, in millijoules.
        peak_memory_bytes: Largest sum of live activations, in bytes.
        flash_bytes: What the constants of the network take on a microcontroller, in bytes.

    Raises:
        ConfigError: If a value is not finite, negative, or an accuracy exceeds 1.
    """

    val_accuracy: float | None = None
    test_accuracy: float | None = None
    size_bytes: float | None = None
    weight_bytes: float | None = None
    macs: int | None = None
    bops: int | None = None
    cycles: int | None = None
    latency_ms: float | None = None
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None
    flash_bytes: int | None = None

    def __post_init__(self) -> None:
        """Reject values no measurement can have."""
        for name, value in self.to_json().items():
            upper = 1.0 if name.endswith("_accuracy") else float("inf")
            if not isfinite(value) or not 0 <= value <= upper:
                msg = f"Metric `{name}` must be finite and in [0, {upper}], got {value}."
                raise ConfigError(msg)

    def to_json(self) -> dict[str, float]:
        """Return the quantities that are known, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, float]) -> Metrics:
        """Return the metrics written by `to_json`; unknown keys are ignored.

        Keys may be added by later versions, so an old reader must not fail on them.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in document.items() if key in known})  # type: ignore[arg-type]  # JSON numbers

    def __getitem__(self, name: str) -> float:
        """Return the quantity called `name`.

        Raises:
            ConfigError: If there is no such quantity or it was not computed.
        """
        known = self.to_json()
        if name not in known:
            msg = f"Metric `{name}` is not known here; known: {', '.join(known) or 'none'}."
            raise ConfigError(msg)
        return known[name]
