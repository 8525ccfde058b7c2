# SPDX-License-Identifier: Apache-2.0
"""Penalties whose weight follows the trials: the dual problem of a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import ConfigError

__all__ = ["DualAscent"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class DualAscent:
    """A multiplier that grows while trials are over budget and shrinks while they are within.

    ``multiplier <- max(0, multiplier + rate violation)`` after each complete trial, where the
    violation is ``cost / limit - 1`` as `SpaceHooks.violation` says. The paper solves "the
    Lagrangian dual problem" with large multipliers: that is a `rate` of 0.

    Attributes:
        start: Multiplier before any trial: what 100 % over the limit costs, in the objective's
            unit; >= 0.
        rate: Step of the ascent, >= 0.

    Raises:
        ConfigError: If a number is negative or not finite.

    Example:
        >>> DualAscent(start=1.0, rate=0.5).multiplier(np.array([1.0, -0.5, -4.0]))
        0.0
        >>> DualAscent(start=1.0, rate=0.5).multiplier(np.array([1.0, -0.5]))
        1.25
    """

    start: float = 1.0
    rate: float = 0.1

    def __post_init__(self) -> None:
        """Reject multipliers that reward a violation."""
        for name in ("start", "rate"):
            number = getattr(self, name)
            if not (np.isfinite(number) and number >= 0):
                msg = f"`{name}` must be finite and >= 0, got {number}."
                raise ConfigError(msg)

    def multiplier(self, violations: FloatArray) -> float:
        """Return the multiplier after trials with `violations`, oldest first, shape ``(n,)``."""
        multiplier = self.start
        for violation in violations.tolist():
            multiplier = max(0.0, multiplier + self.rate * violation)
        return multiplier

    def penalties(self, violations: FloatArray) -> FloatArray:
        """Return what each trial's objective is worse by now, >= 0, shape ``(n,)``."""
        return self.multiplier(violations) * np.maximum(violations, 0.0)
