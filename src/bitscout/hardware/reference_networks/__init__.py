# SPDX-License-Identifier: Apache-2.0
"""Well-known networks as tables of layers, without PyTorch and without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from types import MappingProxyType
from typing import Any, Final

from bitscout.core import LayerGraph
from bitscout.errors import ConfigError, shown
from bitscout.hardware.options import split_options
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


def _integers(value: Any) -> tuple[int, ...]:  # noqa: ANN401  # text or anything
    """Return ``8+16`` or a sequence as integers; raises TypeError or ValueError."""
    parts = value.split("+") if isinstance(value, str) else value
    return tuple(int(part) for part in parts)


# How an option is read, from text or as it is, and what it must be.
_OPTIONS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "n_classes": (int, "a whole number"),
    "width": (float, "a number"),
    "widths": (_integers, "whole numbers (joined by + in text)"),
}


def reference_network(
    name: str,
    input_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
    **options: float | tuple[int, ...],
) -> LayerGraph:
    """Return the layers and nodes of a well-known network, batch norms folded.

    Args:
        name: One of `REFERENCE_NETWORKS`, or with options ``mobilenet_v1:width=0.5``.
        input_shape: Channels, height and width; None for those of its data set, 3x224x224 or
            3x32x32.
        n_classes: Outputs of the classifier; None for those of its data set, 1000 or 10.
        **options: What this network has besides: ``width`` of the MobileNets, ``widths`` of
            ResNet-20.

    Raises:
        ConfigError: If the name or an option is unknown, a number is out of range or the input
            too small.

    Example:
        >>> reference_network("mobilenet_v2").macs
        300774272
        >>> reference_network("resnet20:widths=16+24+48").n_weights
        158160
    """
    name, _, text = name.partition(":")
    if name not in _TABLES:
        nearest = get_close_matches(name, _TABLES, n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        msg = f"No reference network is called {shown(name)}. {hint}Known: {', '.join(_TABLES)}."
        raise ConfigError(msg)
    make = _TABLES[name][0]
    known = [option for option in signature(make).parameters if option in _OPTIONS]
    given: dict[str, Any] = dict(split_options(text)) | options
    for option in given:
        if option not in known:
            msg = f"{name} has no option {shown(option)}. It has {', '.join(known)}."
            raise ConfigError(msg)
    given = {option: _read(name, option, value) for option, value in given.items()}
    given |= {} if input_shape is None else {"input_shape": input_shape}
    given |= {} if n_classes is None else {"n_classes": n_classes}
    return make(**given)


def _read(name: str, option: str, value: object) -> Any:  # noqa: ANN401  # of the option's type
    read, expected = _OPTIONS[option]
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        msg = f"`{option}` of {name} must be {expected}, got {shown(value)}."
        raise ConfigError(msg) from error
