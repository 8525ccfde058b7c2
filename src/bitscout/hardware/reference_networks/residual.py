# SPDX-License-Identifier: Apache-2.0
"""Residual networks.

References:
    .. [He2016] K. He et al. Deep Residual Learning for Image Recognition. CVPR 2016.
       https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from bitscout.core import LayerGraph
from bitscout.errors import ConfigError
from bitscout.hardware.reference_networks.builder import GraphBuilder

__all__ = ["resnet18", "resnet20", "resnet50"]

EXPANSION = 4  # Outputs of a bottleneck per channel of its 3x3, Table 1 of [He2016].


def resnet18(
    input_shape: tuple[int, int, int] = (3, 224, 224), n_classes: int = 1000
) -> LayerGraph:
    """Return ResNet-18 of [He2016]_, Table 1, with torchvision's names.

    Raises:
        ConfigError: If a number is below 1.
    """
    net = GraphBuilder("resnet18", input_shape)
    _stem(net)
    for stage in range(4):
        for block in range(2):
            _basic_block(net, f"layer{stage + 1}.{block}", 64 * 2**stage)
    return _classified(net, n_classes)


def resnet50(
    input_shape: tuple[int, int, int] = (3, 224, 224), n_classes: int = 1000
) -> LayerGraph:
    """Return ResNet-50, version 1.5, with torchvision's names.

    Deviation from [He2016]_, as in torchvision: the 3x3 convolution of a stage's first block has
    the stride, not the 1x1 before it.

    Raises:
        ConfigError: If a number is below 1.
    """
    net = GraphBuilder("resnet50", input_shape)
    _stem(net)
    for stage, n_blocks in enumerate((3, 4, 6, 3)):
        for block in range(n_blocks):
            _bottleneck(net, f"layer{stage + 1}.{block}", 64 * 2**stage)
    return _classified(net, n_classes)


def resnet20(
    input_shape: tuple[int, int, int] = (3, 32, 32),
    n_classes: int = 10,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
) -> LayerGraph:
    """Return ResNet-20 for CIFAR of [He2016]_, Section 4.2, with the names of `networks.resnet`.

    Shortcuts have no parameters (option A): where a stage changes the shape, every second pixel
    is taken (``stage2.0.shortcut``, a 1x1 pool with stride 2) and new channels are zero.

    Args:
        input_shape: Channels, height and width.
        n_classes: Outputs of the classifier.
        widths: Channels of the stem and first stage, the second, and the third.

    Raises:
        ConfigError: If `widths` are not three, fall, or a number is below 1.
    """
    if len(widths) != 3 or list(widths) != sorted(widths):
        msg = (
            "`widths` of resnet20 must be one number for each of 3 stages, none smaller than the "
            f"one before it, since its shortcuts can only add channels; got {widths}."
        )
        raise ConfigError(msg)
    net = GraphBuilder("resnet20", input_shape)
    net.conv("stem.conv", widths[0], 3)
    for stage, width in enumerate(widths):
        for block in range(3):
            name = f"stage{stage + 1}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            source = net.last
            net.conv(f"{name}.first.conv", width, 3, stride=stride)
            result = net.conv(f"{name}.second.conv", width, 3)
            if stride > 1:
                source = net.pool(f"{name}.shortcut", "max_pool", 1, stride=stride, source=source)
            net.add(f"{name}.add", source, result)
    net.adaptive_pool("pool")
    net.flatten()
    net.linear("classifier", n_classes)
    return net.graph()


def _stem(net: GraphBuilder) -> None:
    net.conv("conv1", 64, 7, stride=2)
    net.pool("maxpool", "max_pool", 3, stride=2, padding=1)


def _basic_block(net: GraphBuilder, name: str, width: int) -> None:
    source, stride = net.last, _stride(name)
    changes_shape = stride > 1 or net.channels != width
    net.conv(f"{name}.conv1", width, 3, stride=stride)
    result = net.conv(f"{name}.conv2", width, 3)
    if changes_shape:
        source = net.conv(f"{name}.downsample.0", width, stride=stride, source=source)
    net.add(f"{name}.add", result, source)


def _bottleneck(net: GraphBuilder, name: str, width: int) -> None:
    source, stride = net.last, _stride(name)
    changes_shape = stride > 1 or net.channels != width * EXPANSION
    net.conv(f"{name}.conv1", width)
    net.conv(f"{name}.conv2", width, 3, stride=stride)
    result = net.conv(f"{name}.conv3", width * EXPANSION)
    if changes_shape:
        source = net.conv(f"{name}.downsample.0", width * EXPANSION, stride=stride, source=source)
    net.add(f"{name}.add", result, source)


def _stride(block: str) -> int:
    """Return the stride of ``layerX.Y``: 2 in the first block of a stage but the first."""
    stage, _, position = block.partition(".")
    return 2 if position == "0" and stage != "layer1" else 1


def _classified(net: GraphBuilder, n_classes: int) -> LayerGraph:
    net.adaptive_pool("avgpool")
    net.flatten()
    net.linear("fc", n_classes)
    return net.graph()
