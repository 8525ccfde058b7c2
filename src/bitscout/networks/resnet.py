# SPDX-License-Identifier: Apache-2.0
"""Residual networks for small images."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.errors import ConfigError, shown
from bitscout.networks.initialization import seeded
from bitscout.networks.model_options import ModelOptions, Stem
from bitscout.quantization import Add

__all__ = ["Shortcut", "resnet"]

Shortcut = Literal["projection", "padding"]


def resnet(
    depth: int = 8,
    *,
    n_classes: int = 10,
    in_channels: int = 3,
    base_width: int = 16,
    generator_seed: int = 0,
    shortcut: Shortcut = "projection",
    stem: Stem = "cifar",
) -> nn.Module:
    """Return the CIFAR residual network of [He2016]_, Section 4.2, with ``depth = 6 n + 2``.

    3x3 stem, three stages of ``n`` basic blocks with `base_width`, twice and four times as many
    channels, the first convolution of the second and third stage with stride 2, global average
    pool, linear classifier.

    Args:
        depth: 8, 14, 20, 26, 32, ...
        n_classes: >= 1.
        in_channels: Channels of the image, >= 1.
        base_width: Channels of the first stage, >= 1.
        generator_seed: Seed of the initial weights, in ``[0, 2**63)``.
        shortcut: Where a stage changes the shape. ``"padding"``: every second pixel, and zeros
            for the new channels, as the paper for CIFAR (option A). ``"projection"``: a 1x1
            convolution with batch norm (option B, as in MLPerf Tiny's ResNet-8); the depth then
            counts two layers less than there are.
        stem: ``"imagenet"`` begins with 7x7 at stride 2 and a max pool.

    Raises:
        ConfigError: If `depth` is not ``6 n + 2`` with ``n >= 1``, a number is below 1, or a word
            is unknown.

    References:
        .. [He2016] K. He et al. Deep Residual Learning for Image Recognition. CVPR 2016.
           https://arxiv.org/abs/1512.03385
    """
    if depth < 8 or depth % 6 != 2:
        msg = f"`depth` must be 6 n + 2 with n >= 1 (8, 14, 20, ...), got {depth}."
        raise ConfigError(msg)
    if base_width < 1:
        msg = f"`base_width` must be >= 1, got {base_width}."
        raise ConfigError(msg)
    if shortcut not in get_args(Shortcut):
        msg = f"`shortcut` must be 'projection' or 'padding', got {shown(shortcut)}."
        raise ConfigError(msg)
    options = ModelOptions(n_classes=n_classes, in_channels=in_channels, stem=stem)

    def build() -> nn.Module:
        return _resnet(depth // 6, base_width, shortcut, options)

    return seeded(build, generator_seed)


def _resnet(
    n_blocks: int, base_width: int, shortcut: Shortcut, options: ModelOptions
) -> nn.Sequential:
    network = nn.Sequential()
    if options.has_cifar_stem:
        network.add_module("stem", _conv_bn(options.in_channels, base_width, 3))
        network.add_module("act", nn.ReLU())
    else:
        network.add_module("stem", _conv_bn(options.in_channels, base_width, 7, 2))
        network.add_module("act", nn.ReLU())
        network.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    channels = base_width
    for stage in range(3):
        width = base_width * 2**stage
        blocks = nn.Sequential()
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(_BasicBlock(channels, width, stride, shortcut))
            channels = width
        network.add_module(f"stage{stage + 1}", blocks)
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(channels, options.n_classes))
    return network


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    module = nn.Sequential()
    module.add_module(
        "conv", nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    )
    module.add_module("norm", nn.BatchNorm2d(out_channels))
    return module


class _PaddingShortcut(nn.Module):
    """Take every second pixel, and zeros for channels that are not there: no parameters.

    How many zeros follows from the tensors, so that the widths of the stages may change.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """Return `x`, shape ``(N, C, H, W)``, with `out_channels` channels."""
        pixels = F.max_pool2d(x, 1, self.stride)
        return F.pad(pixels, (0, 0, 0, 0, 0, out_channels - x.shape[1]))


class _BasicBlock(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.first = _conv_bn(in_channels, out_channels, 3, stride)
        self.first_act = nn.ReLU()
        self.second = _conv_bn(out_channels, out_channels, 3)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = (
                _PaddingShortcut(stride)
                if shortcut == "padding"
                else _conv_bn(in_channels, out_channels, 1, stride)
            )
        self.add = Add()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first_act(self.first(x)))
        if isinstance(self.shortcut, _PaddingShortcut):
            x = self.shortcut(x, y.shape[1])
        else:
            x = self.shortcut(x)
        result: Tensor = self.act(self.add(x, y))
        return result
