# SPDX-License-Identifier: Apache-2.0
"""Built-in networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final, NamedTuple

from torch import nn

from bitscout.errors import ConfigError, shown
from bitscout.networks.initialization import seeded
from bitscout.networks.mobilenets import mobilenet_v1, mobilenet_v2
from bitscout.networks.model_options import ModelOptions, Stem
from bitscout.networks.residual import resnet18, resnet50
from bitscout.networks.resnet import Shortcut, resnet

__all__ = ["build_model", "model_names"]

CIFAR_WIDTH = 16  # Channels of the first stage of [He2016]'s networks for CIFAR.


class _Model(NamedTuple):
    """A built-in network.

    Attributes:
        build: Makes it from options and a seed.
        stem: That of the published network.
        n_classes: Those of the published network.
    """

    build: Callable[[ModelOptions, int], nn.Module]
    stem: Stem
    n_classes: int


def model_names() -> tuple[str, ...]:
    """Return the names `build_model` knows, sorted."""
    return tuple(sorted(_MODELS))


def build_model(
    name: str,
    *,
    n_classes: int | None = None,
    in_channels: int = 3,
    stem: Stem | None = None,
    width: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """Return a built-in network on the CPU, in training mode, with initial weights.

    ``resnet8`` has projections in its shortcuts, as in MLPerf Tiny, ``resnet20`` no parameters,
    as the paper; `bitscout.networks.resnet` makes the others. The weights depend on the arguments
    alone; PyTorch's global random state is as before.

    Args:
        name: One of `model_names`.
        n_classes: Outputs, >= 1; `None` for those of the published network, 10 or 1000.
        in_channels: Channels of the image, >= 1.
        stem: ``"imagenet"`` for the first two halvings of ImageNet's networks, ``"cifar"`` for
            none of them: a first convolution of 3x3 with stride 1 and no max pool. `None` is the
            published one.
        width: Multiplier of all channels, finite and > 0. Products are rounded as published:
            down for MobileNetV1, to multiples of 8 for MobileNetV2 (whose last convolution does
            not become narrower), else to the nearest.
        seed: Of the initial weights, in ``[0, 2**63)``.

    Raises:
        ConfigError: If the name is unknown or a value is out of range.

    Example:
        >>> sum(p.numel() for p in build_model("resnet20").parameters())
        269722
    """
    if name not in _MODELS:
        nearest = get_close_matches(name, _MODELS, n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        msg = f"No built-in network is called {shown(name)}. {hint}Known: {', '.join(_MODELS)}."
        raise ConfigError(msg)
    model = _MODELS[name]
    options = ModelOptions(
        n_classes=model.n_classes if n_classes is None else n_classes,
        in_channels=in_channels,
        stem=model.stem if stem is None else stem,
        width=width,
    )
    return model.build(options, seed)


def _cifar_resnet(depth: int, shortcut: Shortcut) -> _Model:
    def build(options: ModelOptions, seed: int) -> nn.Module:
        return resnet(
            depth,
            n_classes=options.n_classes,
            in_channels=options.in_channels,
            base_width=max(1, int(CIFAR_WIDTH * options.width + 0.5)),
            generator_seed=seed,
            shortcut=shortcut,
            stem=options.stem,
        )

    return _Model(build, "cifar", 10)


def _imagenet(build: Callable[[ModelOptions], nn.Module]) -> _Model:
    return _Model(lambda options, seed: seeded(lambda: build(options), seed), "imagenet", 1000)


_MODELS: Final[Mapping[str, _Model]] = {
    "mobilenet_v1": _imagenet(mobilenet_v1),
    "mobilenet_v2": _imagenet(mobilenet_v2),
    "resnet8": _cifar_resnet(8, "projection"),
    "resnet18": _imagenet(resnet18),
    "resnet20": _cifar_resnet(20, "padding"),
    "resnet50": _imagenet(resnet50),
}
