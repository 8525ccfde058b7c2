# SPDX-License-Identifier: Apache-2.0
"""Plain chains: AlexNet and VGG-16.

References:
    .. [Krizhevsky2014] A. Krizhevsky. One Weird Trick for Parallelizing Convolutional Neural
       Networks. https://arxiv.org/abs/1404.5997
    .. [Simonyan2015] K. Simonyan, A. Zisserman. Very Deep Convolutional Networks for Large-Scale
       Image Recognition. ICLR 2015. https://arxiv.org/abs/1409.1556
"""

from __future__ import annotations

from bitscout.core import LayerGraph
from bitscout.hardware.reference_networks.builder import GraphBuilder

__all__ = ["alexnet", "vgg16"]

N_HIDDEN = 4096  # Outputs of the first two linear layers of both.


def alexnet(
    input_shape: tuple[int, int, int] = (3, 224, 224), n_classes: int = 1000
) -> LayerGraph:
    """Return torchvision's AlexNet: the one-tower network of [Krizhevsky2014]_, no groups.

    Not the two-tower network of 2012, nor the double-width one of Bit Fusion's benchmarks.

    Raises:
        ConfigError: If a number is below 1 or the input too small.
    """
    net = GraphBuilder("alexnet", input_shape)
    net.conv("features.0", 64, 11, stride=4, padding=2)
    net.pool("features.2", "max_pool", 3, stride=2)
    net.conv("features.3", 192, 5)
    net.pool("features.5", "max_pool", 3, stride=2)
    for position, outputs in ((6, 384), (8, 256), (10, 256)):
        net.conv(f"features.{position}", outputs, 3)
    net.pool("features.12", "max_pool", 3, stride=2)
    return _classified(net, 6, (1, 4, 6), n_classes)


def vgg16(input_shape: tuple[int, int, int] = (3, 224, 224), n_classes: int = 1000) -> LayerGraph:
    """Return VGG-16 of [Simonyan2015]_, configuration D, with torchvision's names.

    Raises:
        ConfigError: If a number is below 1 or the input too small.
    """
    net = GraphBuilder("vgg16", input_shape)
    position = 0
    for outputs, n_convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n_convs):
            net.conv(f"features.{position}", outputs, 3)
            position += 2  # An activation follows.
        net.pool(f"features.{position}", "max_pool", 2, stride=2)
        position += 1
    return _classified(net, 7, (0, 3, 6), n_classes)


def _classified(
    net: GraphBuilder, size: int, positions: tuple[int, int, int], n_classes: int
) -> LayerGraph:
    """Append the pool to `size` x `size` pixels and three linear layers."""
    net.adaptive_pool("avgpool", size)
    net.flatten()
    for position, outputs in zip(positions, (N_HIDDEN, N_HIDDEN, n_classes), strict=True):
        net.linear(f"classifier.{position}", outputs)
    return net.graph()
