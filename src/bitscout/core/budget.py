# SPDX-License-Identifier: Apache-2.0
"""Upper bounds on what a candidate may cost, in the device's units."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from bitscout.core.metrics import Metrics
from bitscout.errors import ConfigError

__all__ = ["Budget"]

# Budget field -> (metric, metric units per budget unit). 1 kB is 1000 bytes, as in the papers.
_BOUNDS = {
    "size_kb": ("size_bytes", 1000.0),
    "peak_memory_kb": ("peak_memory_bytes", 1000.0),
    "flash_kb": ("flash_bytes", 1000.0),
    "latency_ms": ("latency_ms", 1.0),
    "energy_mj": ("energy_mj", 1.0),
    "macs": ("macs", 1.0),
    "bops": ("bops", 1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper bounds, inclusive; `None` means no bound.

    Attributes:
        size_kb: Weights and int32 biases, in units of 1000 bytes.
        peak_memory_kb: Live activations, in units of 1000 bytes.
        flash_kb: Constants on a microcontroller, in units of 1000 bytes.
        latency_ms: Time for one batch of the hardware model, in milliseconds.
        energy_mj: Energy for one batch of the hardware model, in millijoules.
        macs: Multiply-accumulates for one input.
        bops: Bit operations for one input.

    Raises:
        ConfigError: If a bound is not finite and positive.
    """

    size_kb: float | None = None
    peak_memory_kb: float | None = None
    flash_kb: float | None = None
    latency_ms: float | None = None
    energy_mj: float | None = None
    macs: float | None = None
    bops: float | None = None

    def __post_init__(self) -> None:
        """Reject bounds nothing can meet."""
        for name, bound in self.bounds().items():
            if not (isfinite(bound) and bound > 0):
                msg = f"Budget `{name}` must be finite and > 0, got {bound}."
                raise ConfigError(msg)

    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set, by field name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: bound for name, bound in pairs if bound is not None}

    def limits(self) -> dict[str, tuple[str, float]]:
        """Return metric and largest allowed value, in the metric's unit, of every bound."""
        return {
            name: (_BOUNDS[name][0], bound * _BOUNDS[name][1])
            for name, bound in self.bounds().items()
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that must be known to judge a candidate."""
        return tuple(metric for metric, _ in self.limits().values())

    def constraints(self, metrics: Metrics) -> dict[str, float]:
        """Return ``value / bound - 1`` for every bound whose metric is known.

        A candidate is feasible if and only if all are known and <= 0.
        """
        known = metrics.to_json()
        return {
            name: known[metric] / limit - 1.0
            for name, (metric, limit) in self.limits().items()
            if metric in known
        }

    def reason(self, metrics: Metrics) -> str | None:
        """Return why `metrics` are over budget, or `None` if those that are known are not.

        Example:
            >>> Budget(size_kb=4).reason(Metrics(size_bytes=5000))
            'size_kb 5 is over the budget of 4'
        """
        over = []
        for name, violation in self.constraints(metrics).items():
            if violation > 0:
                metric, unit = _BOUNDS[name]
                bound = self.bounds()[name]
                over.append(f"{name} {metrics[metric] / unit:.6g} is over the budget of {bound:g}")
        return "; ".join(over) or None
