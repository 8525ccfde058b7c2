# SPDX-License-Identifier: Apache-2.0
"""From a configuration to its search space, without PyTorch."""

from __future__ import annotations

from typing import Final

from bitscout.errors import ConfigError
from bitscout.pipeline.config import RunConfig
from bitscout.space import BompSpace, SearchSpace

__all__ = ["KNOWN_SHAPES", "build_space"]

# Image shape and classes of data sets known by name, so that their spaces can be laid out without
# the data.
KNOWN_SHAPES: Final = {
    "digits": ((1, 8, 8), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}


def build_space(
    config: RunConfig, input_shape: tuple[int, int, int], n_classes: int
) -> SearchSpace:
    """Return the space of the configuration for images of this shape.

    Raises:
        ConfigError: If it was handed over in Python and is not here now, or is empty.
    """
    section = config.space
    if section.name == "custom":
        msg = (
            "`space.name` is custom: the space was handed over in Python. Hand it over again: "
            "bitscout.search(space=..., resume=True)."
        )
        raise ConfigError(msg)
    widths = section.widths if isinstance(section.widths, str) else tuple(section.widths)
    return BompSpace(
        widths=widths,
        input_shape=input_shape,
        n_classes=n_classes,
        channel_divisor=section.channel_divisor,
        bits=tuple(section.bits),
        act_bits=section.act_bits,
        kernels=tuple(section.kernels),
        expansions=tuple(section.expansions),
        repetitions=tuple(section.repetitions),
        filters=tuple(section.filters),
    )
