# SPDX-License-Identifier: Apache-2.0
"""What the built-in networks have in common: classes, channels, stem, width."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from bitscout.errors import ConfigError, shown

__all__ = ["ModelOptions", "Stem"]

Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a built-in network is made.

    Attributes:
        n_classes: Outputs, >= 1.
        in_channels: Channels of the image, >= 1.
        stem: ``"imagenet"`` for the first two halvings of the published network, ``"cifar"`` for
            none of them: a first convolution of 3x3 with stride 1, no max pool.
        width: Multiplier of all channels but the image's, finite and > 0.

    Raises:
        ConfigError: If a value is out of range.
    """

    n_classes: int
    in_channels: int = 3
    stem: Stem = "imagenet"
    width: float = 1.0

    def __post_init__(self) -> None:
        """Reject values no network can have."""
        for name in ("n_classes", "in_channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                msg = f"`{name}` must be an integer of at least 1, got {shown(value)}."
                raise ConfigError(msg)
        if self.stem not in get_args(Stem):
            msg = f"`stem` must be 'cifar' or 'imagenet', got {shown(self.stem)}."
            raise ConfigError(msg)
        if not (isfinite(self.width) and self.width > 0):
            msg = f"`width` must be finite and > 0, got {self.width}."
            raise ConfigError(msg)

    @property
    def has_cifar_stem(self) -> bool:
        """Whether the image's resolution is kept where ImageNet's is halved twice."""
        return self.stem == "cifar"
