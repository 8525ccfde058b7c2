# SPDX-License-Identifier: Apache-2.0
"""Residual networks for small images, for tests and benchmarks."""

from __future__ import annotations

from torch import Tensor, nn

from bitscout.errors import ConfigError
from bitscout.networks.initialization import seeded
from bitscout.quantization import Add

__all__ = ["resnet"]


def resnet(
    depth: int = 8,
    *,
    n_classes: int = 10,
    in_channels: int = 3,
    base_width: int = 16,
    generator_seed: int = 0,
) -> nn.Module:
    """Return the CIFAR residual network of [He2016]_, Section 4.2, with ``depth = 6 n + 2``.

    3x3 stem, three stages of ``n`` basic blocks with `base_width`, twice and four times as many
    channels, the first convolution of the second and third stage with stride 2, global average
    pool, linear classifier. Deviation: where a stage changes the shape, the shortcut is a 1x1
    convolution with batch norm (option B, as in MLPerf Tiny's ResNet-8), not subsampling with
    zero channels, so the depth counts two layers less than there are.

    Args:
        depth: 8, 14, 20, 26, 32, ...
        n_classes: >= 1.
        in_channels: Channels of the image, >= 1.
        base_width: Channels of the first stage, >= 1.
        generator_seed: Seed of the initial weights, in ``[0, 2**63)``.

    Raises:
        ConfigError: If `depth` is not ``6 n + 2`` with ``n >= 1``, or a number is below 1.

    References:
        .. [He2016] K. He et al. Deep Residual Learning for Image Recognition. CVPR 2016.
           https://arxiv.org/abs/1512.03385
    """
    if depth < 8 or depth % 6 != 2:
        msg = f"`depth` must be 6 n + 2 with n >= 1 (8, 14, 20, ...), got {depth}."
        raise ConfigError(msg)
    for name, value in (
        ("n_classes", n_classes),
        ("in_channels", in_channels),
        ("base_width", base_width),
    ):
        if value < 1:
            msg = f"`{name}` must be >= 1, got {value}."
            raise ConfigError(msg)

    def build() -> nn.Module:
        return _resnet(depth // 6, n_classes, in_channels, base_width)

    return seeded(build, generator_seed)


def _resnet(n_blocks: int, n_classes: int, in_channels: int, base_width: int) -> nn.Sequential:
    network = nn.Sequential()
    network.add_module("stem", _conv_bn(in_channels, base_width, 3))
    network.add_module("act", nn.ReLU())
    channels = base_width
    for stage in range(3):
        width = base_width * 2**stage
        blocks = nn.Sequential()
        for block in range(n_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(_BasicBlock(channels, width, stride))
            channels = width
        network.add_module(f"stage{stage + 1}", blocks)
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(channels, n_classes))
    return network


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    module = nn.Sequential()
    module.add_module(
        "conv", nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    )
    module.add_module("norm", nn.BatchNorm2d(out_channels))
    return module


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_bn(in_channels, out_channels, 3, stride)
        self.first_act = nn.ReLU()
        self.second = _conv_bn(out_channels, out_channels, 3)
        has_same_shape = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = (
            nn.Identity() if has_same_shape else _conv_bn(in_channels, out_channels, 1, stride)
        )
        self.add = Add()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first_act(self.first(x)))
        result: Tensor = self.act(self.add(self.shortcut(x), y))
        return result
