# SPDX-License-Identifier: Apache-2.0
"""A given network with its description: what a search over its widths builds from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from bitscout.networks.importance import Importance
from bitscout.networks.resize import copied, resize
from bitscout.space import ModelDescription

__all__ = ["GivenNetwork"]

# Copies that start out the same stay the same; unequal shares let them grow apart while the
# function stays. Their size is of no account as long as it is not small.
NOISE: Final = 0.5


@dataclass(frozen=True, eq=False)
class GivenNetwork:
    """A network and its description.

    Attributes:
        module: The network, with the weights to inherit; `build` never changes it. Whoever has
            it may train it before anything is built.
        description: Of this network.
        importance: Which channels a narrower network keeps, see `channel_importance`.
        noise: How unequally the copies of a channel share the weights that read it, see `resize`.
    """

    module: nn.Module
    description: ModelDescription
    importance: Importance = "flow"
    noise: float = NOISE

    def build(self, widths: Sequence[int] | None = None) -> nn.Module:
        """Return a new network with these widths, its weights inherited.

        The same for the same widths, to the bit.

        Args:
            widths: Channels of every group; by default, and where they are those given, a deep
                copy of the module.

        Raises:
            ConfigError: If the network cannot have these widths.
            UnsupportedError: If the module cannot be copied.
        """
        if widths is None or tuple(widths) == self.description.widths:
            return copied(self.module)
        return resize(
            self.module,
            self.description,
            widths,
            importance=self.importance,
            noise=self.noise,
        )
