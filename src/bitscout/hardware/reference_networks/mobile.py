# SPDX-License-Identifier: Apache-2.0
"""MobileNets.

References:
    .. [Howard2017] A. Howard et al. MobileNets: Efficient Convolutional Neural Networks for
       Mobile Vision Applications. https://arxiv.org/abs/1704.04861
    .. [Sandler2018] M. Sandler et al. MobileNetV2: Inverted Residuals and Linear Bottlenecks.
       CVPR 2018. https://arxiv.org/abs/1801.04381
"""

from __future__ import annotations

from typing import Final

from bitscout.core import LayerGraph
from bitscout.errors import ConfigError
from bitscout.hardware.reference_networks.builder import GraphBuilder

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
V2_STEM, V2_HEAD = 32, 1280
V2_DIVISOR = 8  # Channels are multiples of it, as in torchvision.


def mobilenet_v1(
    input_shape: tuple[int, int, int] = (3, 224, 224),
    n_classes: int = 1000,
    *,
    width: float = 1.0,
) -> LayerGraph:
    """Return MobileNetV1 of [Howard2017]_, Table 1.

    torchvision has none; layers are named ``features.3.depthwise.0`` and
    ``features.3.pointwise.0``.

    Args:
        input_shape: Channels, height and width.
        n_classes: Outputs of the classifier.
        width: Multiplier of all channels, > 0; products are rounded down, at least 1.

    Raises:
        ConfigError: If a number is out of range.
    """
    _check_width("mobilenet_v1", width)
    net = GraphBuilder("mobilenet_v1", input_shape)
    net.conv("features.0.0", max(1, int(32 * width)), 3, stride=2)
    for position, (outputs, stride) in enumerate(V1_BLOCKS, 1):
        name, channels = f"features.{position}", net.channels
        net.conv(f"{name}.depthwise.0", channels, 3, stride=stride, groups=channels)
        net.conv(f"{name}.pointwise.0", max(1, int(outputs * width)))
    net.adaptive_pool("avg_pool")
    net.flatten()
    net.linear("classifier", n_classes)
    return net.graph()


def mobilenet_v2(
    input_shape: tuple[int, int, int] = (3, 224, 224),
    n_classes: int = 1000,
    *,
    width: float = 1.0,
) -> LayerGraph:
    """Return MobileNetV2 of [Sandler2018]_, Table 2, with torchvision's names.

    Args:
        input_shape: Channels, height and width.
        n_classes: Outputs of the classifier.
        width: Multiplier of all channels, > 0; products are rounded to multiples of 8, and the
            last convolution does not become narrower, as in torchvision.

    Raises:
        ConfigError: If a number is out of range.
    """
    _check_width("mobilenet_v2", width)
    net = GraphBuilder("mobilenet_v2", input_shape)
    net.conv("features.0.0", _rounded(V2_STEM * width), 3, stride=2)
    position = 1
    for expansion, outputs, repetitions, first_stride in V2_BLOCKS:
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            _inverted_residual(
                net, f"features.{position}", expansion, _rounded(outputs * width), stride
            )
            position += 1
    net.conv(f"features.{position}.0", _rounded(V2_HEAD * max(1.0, width)))
    net.adaptive_pool("avg_pool")
    net.flatten()
    net.linear("classifier.1", n_classes)
    return net.graph()


def _inverted_residual(
    net: GraphBuilder, name: str, expansion: int, outputs: int, stride: int
) -> None:
    source, inputs = net.last, net.channels
    hidden = inputs * expansion
    position = 0
    if expansion > 1:
        net.conv(f"{name}.conv.0.0", hidden)
        position = 1
    net.conv(f"{name}.conv.{position}.0", hidden, 3, stride=stride, groups=hidden)
    result = net.conv(f"{name}.conv.{position + 1}", outputs)
    if stride == 1 and inputs == outputs:
        # As torchvision writes it: `x + self.conv(x)`.
        net.add(f"{name}.add", source, result)


def _rounded(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8, and the next one if over 10 % are lost."""
    nearest = max(V2_DIVISOR, int(channels + V2_DIVISOR / 2) // V2_DIVISOR * V2_DIVISOR)
    return nearest + V2_DIVISOR if nearest < 0.9 * channels else nearest


def _check_width(network: str, width: float) -> None:
    if not 0 < width < float("inf"):
        msg = f"`width` of {network} must be a positive number, got {width}."
        raise ConfigError(msg)
