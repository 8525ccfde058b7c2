# SPDX-License-Identifier: Apache-2.0
"""A given network from its configuration: made, loaded, described and checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.networks import (
    GivenNetwork,
    check_classes,
    describe,
    load_checkpoint,
    load_model,
    model_names,
)
from bitscout.pipeline.config import ModelSpaceConfig
from bitscout.quantization import QuantConfig, post_training_quantize
from bitscout.training import torch_generator

__all__ = ["export_problem", "load_given"]

EDGE_BITS: Final = 8  # Whichever: operations are looked at, not values.
SMALL: Final = 64  # Images with edges up to this get the stem for small images.


def load_given(
    section: ModelSpaceConfig,
    input_shape: Sequence[int],
    n_classes: int | None,
    *,
    module: nn.Module | None = None,
    seed: int = 0,
) -> GivenNetwork:
    """Return the network of a ``space`` section, with its checkpoint's weights.

    Args:
        section: What it is and where its weights are.
        input_shape: ``(C, H, W)`` of the data.
        n_classes: Classes of the data; `None` does not check.
        module: The network, where the section leaves it to Python.
        seed: Of a built-in network's initial weights.

    Raises:
        ConfigError: If the network cannot be made or does not fit the data, or the checkpoint not
            the network.
        DataError: If the checkpoint is missing or damaged.
        UnsupportedError: If the network cannot be traced.
    """
    shape = tuple(input_shape)
    if section.input_shape not in (None, shape):
        msg = (
            f"`space.input` is {section.input}, but the data's images are "
            f"{'x'.join(map(str, shape))}. Leave it out, or take other data."
        )
        raise ConfigError(msg)
    if module is None:
        if section.model is None:
            msg = (
                "`space.model` is empty: name a built-in network (`bitscout list models`) or an "
                "import path, pkg.mod:make_net. A network that was handed over in Python has to "
                "be handed over again: bitscout.search(model=..., resume=True)."
            )
            raise ConfigError(msg)
        module = load_model(
            section.model,
            options=_options(section, shape, n_classes),
            seed=seed,
        )
    else:
        module = copy.deepcopy(module)  # The search trains it; the caller's stays as it is.
    if section.checkpoint is not None:
        load_checkpoint(module, Path(section.checkpoint), section.model)
    name = section.model or type(module).__name__
    description = describe(module, shape, name=name)
    if n_classes is not None:
        check_classes(module, shape, n_classes)
    return GivenNetwork(module, description)


def export_problem(given: GivenNetwork, input_shape: Sequence[int]) -> str | None:
    """Return why networks of a given one cannot be files of integers; `None` where they can.

    Found by trying, on random images: whether an operation has an integer form does not depend on
    weights or bits.
    """
    from bitscout.export import lower  # ONNX: only where it is used

    images = torch.rand(2, *input_shape, generator=torch_generator(0))
    names = [layer.layer.name for layer in given.description.layers if layer.state == "searched"]
    module = given.build()
    try:
        config = QuantConfig(bias_correction=False)
        quantized = post_training_quantize(
            module.cpu().eval(), QuantPolicy.uniform(names, EDGE_BITS), images, config
        )
        lower(quantized, images[:1])
    except UnsupportedError as error:
        return (
            f"It can be searched, but not exported as integers: {str(error).rstrip('.')}. A "
            "search ends without its files; certificate.enabled=false leaves them out."
        )
    return None


def _options(
    section: ModelSpaceConfig, input_shape: Sequence[int], n_classes: int | None
) -> dict[str, Any]:
    """Return the arguments of the network's function: those given, and what the data says.

    Only built-in networks are told of the data: what another function takes is not known.
    """
    assert section.model is not None, "only named networks have a function"
    if section.model not in model_names():
        return dict(section.options)
    channels, height, width = input_shape
    of_the_data: dict[str, Any] = {
        "in_channels": channels,
        "stem": "cifar" if max(height, width) <= SMALL else "imagenet",
    }
    if n_classes is not None:
        of_the_data["n_classes"] = n_classes
    return {**of_the_data, **section.options}
