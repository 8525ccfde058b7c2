# SPDX-License-Identifier: Apache-2.0
"""From a configuration to its search space, without PyTorch where that can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitscout.errors import ConfigError
from bitscout.pipeline.config import ModelSpaceConfig, RunConfig, SpaceConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.space import BompSpace, ModelDescription, ModelSpace, NetworkBuilder, SearchSpace

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KNOWN_SHAPES", "build_space", "model_space", "run_space"]

# Image shape and classes of data sets known by name, so that their spaces can be laid out without
# the data.
KNOWN_SHAPES: Final = {
    "digits": ((1, 8, 8), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}


def build_space(
    config: RunConfig,
    input_shape: tuple[int, int, int],
    n_classes: int,
    *,
    module: nn.Module | None = None,
    has_weights: bool = False,
) -> SearchSpace:
    """Return the space of the configuration for images of this shape.

    That of a given network has all its bit-widths; what sensitivities leave of them is known once
    a run has begun (`run_space`).

    Args:
        config: The configuration.
        input_shape: ``(C, H, W)`` of the data.
        n_classes: Of the data.
        module: The given network, where `config` does not say how to make it.
        has_weights: Whether its weights come from elsewhere, so that its checkpoint is not read.

    Raises:
        ConfigError: If it was handed over in Python and is not here now, or is empty; if a given
            network cannot be made, or does not fit the data.
        UnsupportedError: If a given network cannot be traced.
    """
    section = config.space
    if isinstance(section, ModelSpaceConfig):
        from bitscout.pipeline.given import load_given  # PyTorch: only where it is needed

        if has_weights:
            section = section.model_copy(update={"checkpoint": None})
        given = load_given(section, input_shape, n_classes, module=module, seed=config.seed)
        return model_space(section, given.description, given)
    if section.name == "custom":
        msg = (
            "`space.name` is custom: the space was handed over in Python. Hand it over again: "
            "bitscout.search(space=..., resume=True)."
        )
        raise ConfigError(msg)
    return _bomp_space(section, input_shape, n_classes)


def run_space(
    directory: str | Path,
    config: RunConfig,
    dataset: Mapping[str, Any],
    *,
    module: nn.Module | None = None,
) -> SearchSpace:
    """Return the space of a run, as the run itself saw it.

    A given network's is read from the run; its module is made only where a network is built.

    Args:
        directory: The run directory.
        config: The run's configuration.
        dataset: The run's ``dataset.json``.
        module: The given network, where it was handed over in Python and one of its networks is
            to be built.

    Raises:
        ConfigError: If the space was handed over in Python, or cannot be had any more.
    """
    shape, n_classes = dataset.get("input_shape"), dataset.get("n_classes")
    if shape is None or n_classes is None:
        msg = "dataset.json of the run says neither the images' shape nor their classes."
        raise ConfigError(msg)
    run, section = RunDirectory(directory), config.space
    if not isinstance(section, ModelSpaceConfig) or not run.model_space.is_file():
        return build_space(config, tuple(shape), n_classes, module=module)
    document = run.read_json(run.model_space)
    description = ModelDescription.from_json(document["description"])
    subsets = {label: tuple(bits) for label, bits in document["subsets"].items()}
    builder = _LateNetwork(section, tuple(shape), n_classes, module)
    return model_space(section, description, builder, subsets=subsets)


def model_space(
    section: ModelSpaceConfig,
    description: ModelDescription,
    builder: NetworkBuilder | None = None,
    *,
    subsets: Mapping[str, tuple[int, ...]] | None = None,
) -> ModelSpace:
    """Return the space of a given network.

    Args:
        section: What may be chosen.
        description: The network.
        builder: What builds its networks.
        subsets: Bits that are left of each tie, all by default.

    Raises:
        ConfigError: If a list is out of order, or nothing is left to choose.
    """
    act_bits = section.act_bits
    return ModelSpace(
        description,
        bits=tuple(section.weight_bits),
        act_bits=tuple(act_bits) if isinstance(act_bits, list) else act_bits,
        widths=tuple(section.widths),
        tie=section.tie,
        width_tie=section.width_tie,
        edge_bits=tuple(section.edge_bits),
        subsets=subsets or {},
        builder=builder,
    )


@dataclass
class _LateNetwork:
    """Makes the module of a given network when one of its networks is first built.

    The weights are those of the module's own beginning: who asks loads others into the network.
    """

    section: ModelSpaceConfig
    input_shape: tuple[int, int, int]
    n_classes: int
    module: nn.Module | None
    given: NetworkBuilder | None = None

    def build(self, widths: Sequence[int]) -> object:
        """Return the network with `widths`."""
        if self.given is None:
            from bitscout.pipeline.given import load_given

            untrained = self.section.model_copy(update={"checkpoint": None})
            self.given = load_given(
                untrained, self.input_shape, self.n_classes, module=self.module
            )
        return self.given.build(widths)


def _bomp_space(
    section: SpaceConfig, input_shape: tuple[int, int, int], n_classes: int
) -> BompSpace:
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
