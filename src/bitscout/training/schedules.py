# SPDX-License-Identifier: Apache-2.0
"""Learning rates over a training, as shares of the peak."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

from bitscout.errors import ConfigError

__all__ = ["Cosine", "OneCycle", "Schedule", "Triangular"]


@dataclass(frozen=True)
class Triangular:
    """One cycle: linearly up from 0 to the peak, then linearly down to 0.

    Attributes:
        warmup: Share of the steps on the way up, in ``[0, 1)``.

    Raises:
        ConfigError: If `warmup` is out of range.
    """

    warmup: float = 0.2

    def __post_init__(self) -> None:
        """Reject a schedule that never comes down."""
        if not 0 <= self.warmup < 1:
            msg = f"`warmup` must be in [0, 1), got {self.warmup}."
            raise ConfigError(msg)

    def __call__(self, progress: float) -> float:
        """Return the share of the peak learning rate at `progress` in ``[0, 1]``."""
        if progress < self.warmup:
            return progress / self.warmup
        return (1 - progress) / (1 - self.warmup)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak down to 0."""

    def __call__(self, progress: float) -> float:
        """Return the share of the peak learning rate at `progress` in ``[0, 1]``."""
        return 0.5 * (1 + cos(pi * progress))


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up from a 25th of the peak, then half a cosine down to next to nothing.

    `torch.optim.lr_scheduler.OneCycleLR` with its defaults, which the paper of k-means TPE uses,
    but for the momentum, which stays: PyTorch's would sink from 0.95 to 0.85 and rise again.
    """

    warmup: ClassVar[float] = 0.3
    initial: ClassVar[float] = 1 / 25
    final: ClassVar[float] = 1 / 25 / 1e4

    def __call__(self, progress: float) -> float:
        """Return the share of the peak learning rate at `progress` in ``[0, 1]``."""
        if progress < self.warmup:
            return self._between(self.initial, 1.0, progress / self.warmup)
        return self._between(1.0, self.final, (progress - self.warmup) / (1 - self.warmup))

    @staticmethod
    def _between(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2 * (1 + cos(pi * share))


Schedule = Triangular | Cosine | OneCycle
