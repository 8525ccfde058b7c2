# SPDX-License-Identifier: Apache-2.0
"""Well-known networks as tables of layers, without PyTorch and without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

from bitscout.core import LayerGraph
from bitscout.errors import ConfigError
from bitscout.hardware.reference_networks.mobile import mobilenet_v1, mobilenet_v2
from bitscout.hardware.reference_networks.plain import alexnet, vgg16
from bitscout.hardware.reference_networks.residual import resnet18, resnet20, resnet50

__all__ = [
    "REFERENCE_NETWORKS",
    "alexnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "reference_network",
    "resnet18",
    "resnet20",
    "resnet50",
    "vgg16",
]

_TABLES: Final[Mapping[str, tuple[Callable[..., LayerGraph], str]]] = {
    "alexnet": (alexnet, "AlexNet with one tower as in torchvision, ImageNet"),
    "mobilenet_v1": (mobilenet_v1, "MobileNetV1 1.0, ImageNet"),
    "mobilenet_v2": (mobilenet_v2, "MobileNetV2 1.0, ImageNet"),
    "resnet18": (resnet18, "ResNet-18, ImageNet"),
    "resnet20": (resnet20, "ResNet-20 with parameter-free shortcuts, CIFAR-10"),
    "resnet50": (resnet50, "ResNet-50 v1.5 (stride in the 3x3), ImageNet"),
    "vgg16": (vgg16, "VGG-16, ImageNet"),
}

REFERENCE_NETWORKS: Final[Mapping[str, str]] = MappingProxyType(
    {name: description for name, (_, description) in _TABLES.items()}
)
"""Every name `reference_network` knows, with one line about each."""


def reference_network(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
) -> LayerGraph:
    """Return the layers and nodes of a well-known network, batch norms folded.

    Args:
        name: One of `REFERENCE_NETWORKS`.
        input_shape: Channels, height and width; None for those of its data set, 3x224x224 or
            3x32x32.
        n_classes: Outputs of the classifier; None for those of its data set, 1000 or 10.

    Raises:
        ConfigError: If the name is unknown, a number is below 1 or the input too small.

    Example:
        >>> reference_network("mobilenet_v2").macs
        300774272
    """
    if name not in _TABLES:
        nearest = get_close_matches(name, _TABLES, n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        msg = f"No reference network is called {name!r}. {hint}Known: {', '.join(_TABLES)}."
        raise ConfigError(msg)
    given: dict[str, Any] = {"input_shape": input_shape, "n_classes": n_classes}
    return _TABLES[name][0](**{key: value for key, value in given.items() if value is not None})
