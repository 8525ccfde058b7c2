# SPDX-License-Identifier: Apache-2.0
"""Sections of a configuration: what is learned, and what may be chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bitscout.pipeline.config_section import BitWidth, PositiveFloat, PositiveInt, Section

__all__ = ["DatasetConfig", "SpaceConfig"]


class DatasetConfig(Section):
    """What to learn.

    Attributes:
        name: ``digits`` (embedded), ``npz``, ``imagefolder``, ``cifar10`` or ``cifar100``;
            ``custom`` stands for data handed over in Python.
        path: File or folder of the data; not needed for ``digits``.
        validation: Fraction of the training part that judges candidates.
        limit: Keep this many training images, a stratified seeded choice; null keeps all.
        resize: Edge in pixels to which an image folder is resized; null demands equal sizes.
    """

    name: Literal["digits", "npz", "imagefolder", "cifar10", "cifar100", "custom"] = "digits"
    path: str | None = None
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    limit: PositiveInt | None = None
    resize: PositiveInt | None = None


class SpaceConfig(Section):
    """What may be chosen.

    Attributes:
        name: ``bomp``, Table I of BOMP-NAS; ``custom`` stands for a space handed over in Python.
        widths: Width multipliers: ``cifar10``, ``cifar100`` (the paper's two sets) or a list.
        bits: Weight bit-widths to choose from, ascending; one value fixes them.
        act_bits: Bit-width of every activation.
        channel_divisor: Channels are rounded to multiples of this: 8, or 1 for exact widths.
        kernels: Kernel sizes of the depthwise convolutions, ascending.
        expansions: Expansion factors of blocks 2 to 7, ascending.
        repetitions: Repetitions of blocks 2 to 6, ascending; 0 leaves a block out.
        filters: Filters of the last convolution, ascending.
    """

    name: Literal["bomp", "custom"] = "bomp"
    widths: Literal["cifar10", "cifar100"] | list[PositiveFloat] = "cifar10"
    bits: list[BitWidth] = [4, 5, 6, 7, 8]
    act_bits: BitWidth = 8
    channel_divisor: PositiveInt = 8
    kernels: list[int] = [2, 3, 4, 5, 6, 7]
    expansions: list[int] = [1, 2, 3, 4, 5, 6]
    repetitions: list[int] = [0, 1, 2, 3, 4, 5]
    filters: list[int] = [128, 256, 512, 1024, 1280]
