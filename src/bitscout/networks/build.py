# SPDX-License-Identifier: Apache-2.0
"""From an architecture's specification to a module, whatever kind of specification it is."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from bitscout.errors import UnsupportedError
from bitscout.networks.initialization import seeded
from bitscout.networks.mobilenetv2 import mobilenet
from bitscout.space import MobileNetSpec, ModelArchitecture

__all__ = ["build_network"]


@singledispatch
def build_network(spec: object, *, generator_seed: int) -> nn.Module:
    """Return the network of `spec` on the CPU, in training mode, with initial weights.

    The weights are a function of `spec` and `generator_seed`, or those of a given network;
    PyTorch's global random state is as before. A new kind of specification registers its
    builder: ``@build_network.register``.

    Args:
        spec: What ``SearchSpace.architecture`` returns.
        generator_seed: In ``[0, 2**63)``.

    Raises:
        UnsupportedError: If no builder is known for the type of `spec`.
    """
    known = ", ".join(sorted(cls.__name__ for cls in build_network.registry if cls is not object))
    msg = (
        f"Cannot build a network from a {type(spec).__name__}; known: {known}. Pass what "
        "`space.architecture(values)` returns, or register a builder for the type."
    )
    raise UnsupportedError(msg)


@build_network.register
def _(spec: MobileNetSpec, *, generator_seed: int) -> nn.Module:
    return seeded(lambda: mobilenet(spec), generator_seed)


@build_network.register
def _(spec: ModelArchitecture, *, generator_seed: int) -> nn.Module:
    del generator_seed  # The weights are those of the given network.
    if spec.builder is None:
        msg = (
            f"{spec.description.name} is known by its description alone, which has no weights. "
            "Build the space with the network: builder=GivenNetwork(module, description)."
        )
        raise UnsupportedError(msg)
    network = spec.builder.build(spec.widths)
    assert isinstance(network, nn.Module), "a builder makes networks"
    return network
