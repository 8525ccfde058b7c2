# SPDX-License-Identifier: Apache-2.0
"""Sections of a configuration: what is learned, and what may be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bitscout.pipeline.config_section import BitWidth, PositiveFloat, PositiveInt, Section

__all__ = ["DatasetConfig", "ModelSpaceConfig", "SpaceConfig", "space_tag"]


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


class ModelSpaceConfig(Section):
    """What may be chosen about a given network.

    Attributes:
        name: ``model``.
        model: A built-in network (``bitscout list models``), or the import path of a function,
            class or module, ``pkg.mod:make_net``; null where it is handed over in Python.
        options: Arguments of that function, such as ``{depth: 20}``.
        checkpoint: Weights to start from: safetensors, or a state dict that PyTorch reads with
            ``weights_only``. Null starts from random weights, which `pretrain` trains.
        input: Shape of one image, ``CxHxW``; null takes that of the data.
        weight_bits: Bit-widths of weights to choose from, ascending.
        act_bits: Bit-widths of the layers' inputs: ``same`` as the weights (as the paper), one
            number, or a list, which is searched for itself.
        widths: Multipliers of the channels to choose from, ascending; ``[1]`` leaves them.
        tie: Layers that share their bits: those of a residual ``block``, of a ``stage``, or none
            (``layer``).
        width_tie: Channel groups that share their multiplier: those of a ``stage``, or none
            (``group``).
        edge_bits: Bit-widths of the first and the last layer; empty for the two largest.
    """

    name: Literal["model"]
    model: str | None = None
    options: dict[str, Any] = {}
    checkpoint: str | None = None
    input: Annotated[str, Field(pattern=r"^\d+(x\d+)*$")] | None = None
    weight_bits: list[BitWidth] = [2, 3, 4, 6, 8]
    act_bits: Literal["same"] | BitWidth | list[BitWidth] = "same"
    widths: list[PositiveFloat] = [0.75, 0.875, 1.0, 1.125, 1.25]
    tie: Literal["layer", "block", "stage"] = "block"
    width_tie: Literal["group", "stage"] = "stage"
    edge_bits: list[BitWidth] = []

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one image where it is given."""
        return None if self.input is None else tuple(map(int, self.input.split("x")))

    @field_validator("widths", mode="before")
    @classmethod
    def _whole_widths(cls, widths: object) -> object:
        """Take ``[1]`` for ``[1.0]``, as YAML's users write it."""
        if isinstance(widths, list):
            return [float(w) if type(w) is int else w for w in widths]
        return widths


def space_tag(section: object) -> str:
    """Return which kind of space a ``space`` section is: ``model``, or ``bomp`` for the others."""
    name = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    return "model" if name == "model" else "bomp"
