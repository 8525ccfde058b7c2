# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 and ResNet-50, with the module names of torchvision and timm.

References:
    .. [He2016] K. He et al. Deep Residual Learning for Image Recognition. CVPR 2016.
       https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from bitscout.networks.model_options import ModelOptions
from bitscout.quantization import Add

__all__ = ["resnet18", "resnet50"]

EXPANSION = 4  # Outputs of a bottleneck per channel of its 3x3, Table 1 of [He2016].
BASE_WIDTH = 64


def resnet18(options: ModelOptions) -> nn.Module:
    """Return ResNet-18 of [He2016]_, Table 1."""
    return _ResNet((2, 2, 2, 2), _BasicBlock, options)


def resnet50(options: ModelOptions) -> nn.Module:
    """Return ResNet-50, version 1.5.

    Deviation from [He2016]_, as in torchvision: the 3x3 convolution of a stage's first block has
    the stride, not the 1x1 before it.
    """
    return _ResNet((3, 4, 6, 3), _Bottleneck, options)


class _ResNet(nn.Module):
    def __init__(
        self,
        repetitions: tuple[int, ...],
        block: type[_BasicBlock] | type[_Bottleneck],
        options: ModelOptions,
    ) -> None:
        super().__init__()
        base = max(1, int(BASE_WIDTH * options.width + 0.5))
        kernel, stride = (3, 1) if options.has_cifar_stem else (7, 2)
        self.conv1 = _conv(options.in_channels, base, kernel, stride)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU()
        self.maxpool: nn.Module = (
            nn.Identity() if options.has_cifar_stem else nn.MaxPool2d(3, 2, 1)
        )
        channels, stages = base, []
        for stage, n_blocks in enumerate(repetitions):
            blocks = nn.Sequential()
            for index in range(n_blocks):
                first_stride = 2 if stage > 0 and index == 0 else 1
                made = block(channels, base * 2**stage, first_stride)
                channels = made.out_channels
                blocks.append(made)
            stages.append(blocks)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, options.n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return cast("Tensor", self.fc(self.flatten(self.avgpool(x))))


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast("Tensor", self.relu(self.add(y, self.downsample(x))))


class _Bottleneck(nn.Module):
    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.out_channels = width * EXPANSION
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = _conv(width, self.out_channels, 1)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.downsample = _shortcut(in_channels, self.out_channels, stride)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return cast("Tensor", self.relu(self.add(y, self.downsample(x))))


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a 1x1 convolution with batch norm where the shape changes (option B)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
