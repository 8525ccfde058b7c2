# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 and MobileNetV2 as published; V2 with the module names of torchvision.

The networks that BOMP-NAS searches are in `bitscout.networks.mobilenetv2`. All activations are
ReLU6, as in the authors' code, torchvision and timm.

References:
    .. [Howard2017] A. Howard et al. MobileNets: Efficient Convolutional Neural Networks for
       Mobile Vision Applications. https://arxiv.org/abs/1704.04861
    .. [Sandler2018] M. Sandler et al. MobileNetV2: Inverted Residuals and Linear Bottlenecks.
       CVPR 2018. https://arxiv.org/abs/1801.04381
"""

from __future__ import annotations

from typing import Final, cast

from torch import Tensor, nn

from bitscout.networks.model_options import ModelOptions
from bitscout.quantization import Add

__all__ = ["mobilenet_v1", "mobilenet_v2"]

# Outputs and stride of each depthwise-separable block: Table 1 of [Howard2017].
V1_BLOCKS: Final = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
# Expansion, outputs, repetitions, stride: Table 2 of [Sandler2018].
V2_BLOCKS: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, V2_HEAD = 32, 1280
V2_DIVISOR = 8  # Channels are multiples of it, as in torchvision.
V2_DROPOUT = 0.2  # Before the classifier, as in torchvision.


def mobilenet_v1(options: ModelOptions) -> nn.Module:
    """Return MobileNetV1 of [Howard2017]_, Table 1.

    With a CIFAR stem neither the first convolution nor the first block with a stride has one.
    """
    features = nn.Sequential()
    channels = max(1, int(STEM_CHANNELS * options.width))
    halvings = _Halvings(options)
    features.append(_conv_bn_act(options.in_channels, channels, 3, stride=halvings.stride(2)))
    for outputs, stride in V1_BLOCKS:
        width = max(1, int(outputs * options.width))
        block = nn.Sequential()
        depthwise = _conv_bn_act(
            channels, channels, 3, stride=halvings.stride(stride), groups=channels
        )
        block.add_module("depthwise", depthwise)
        block.add_module("pointwise", _conv_bn_act(channels, width))
        features.append(block)
        channels = width
    return _MobileNet(features, nn.Linear(channels, options.n_classes))


def mobilenet_v2(options: ModelOptions) -> nn.Module:
    """Return MobileNetV2 of [Sandler2018]_, Table 2.

    With a CIFAR stem neither the first convolution nor the first block with a stride has one.
    """
    channels = _rounded(STEM_CHANNELS * options.width)
    halvings = _Halvings(options)
    features = nn.Sequential(
        _conv_bn_act(options.in_channels, channels, 3, stride=halvings.stride(2))
    )
    for expansion, outputs, repetitions, first_stride in V2_BLOCKS:
        width = _rounded(outputs * options.width)
        for repetition in range(repetitions):
            stride = halvings.stride(first_stride if repetition == 0 else 1)
            features.append(_InvertedResidual(channels, width, stride, expansion))
            channels = width
    head = _rounded(V2_HEAD * max(1.0, options.width))
    features.append(_conv_bn_act(channels, head))
    classifier = nn.Sequential(nn.Dropout(V2_DROPOUT), nn.Linear(head, options.n_classes))
    return _MobileNet(features, classifier)


class _Halvings:
    """Leaves out the first two strides of 2 where the stem is for CIFAR."""

    def __init__(self, options: ModelOptions) -> None:
        self._n_left_out = 2 if options.has_cifar_stem else 0

    def stride(self, published: int) -> int:
        """Return the stride to use for the `published` one; ask in the order of the layers."""
        if published == 1 or not self._n_left_out:
            return published
        self._n_left_out -= 1
        return 1


class _MobileNet(nn.Module):
    def __init__(self, features: nn.Sequential, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.avg_pool(self.features(x)))
        return cast("Tensor", self.classifier(x))


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.conv = nn.Sequential()
        if expansion > 1:
            self.conv.append(_conv_bn_act(in_channels, hidden))
        self.conv.append(_conv_bn_act(hidden, hidden, 3, stride=stride, groups=hidden))
        self.conv.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(out_channels))
        self.add = Add() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y if self.add is None else self.add(x, y)


def _conv_bn_act(
    in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


def _rounded(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8, and the next one if over 10 % are lost."""
    nearest = max(V2_DIVISOR, int(channels + V2_DIVISOR / 2) // V2_DIVISOR * V2_DIVISOR)
    return nearest + V2_DIVISOR if nearest < 0.9 * channels else nearest
