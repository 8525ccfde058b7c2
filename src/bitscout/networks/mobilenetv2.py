# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2-like networks, built from `bitscout.space.MobileNetSpec`."""

from __future__ import annotations

from itertools import groupby

from torch import nn

from bitscout.networks.blocks import ConvBnAct, InvertedResidual
from bitscout.space import STEM_KERNEL, MobileNetSpec

__all__ = ["mobilenet"]


def mobilenet(spec: MobileNetSpec) -> nn.Module:
    """Return the network of `spec`, with PyTorch's initial weights.

    A sequence of ``stem``, ``blockN`` (a sequence of inverted residuals, for each block that
    exists), ``conv2``, ``pool``, ``flatten``, ``classifier``. The layers' module paths are the
    names in ``spec.layers()``.

    NOTE: padding is made for ``spec.input_shape``. Other image sizes run, but where the stride is
    above 1 their padding may be shifted by a pixel against TensorFlow's.
    """
    network = nn.Sequential()
    network.add_module("stem", ConvBnAct(spec.input_shape[0], spec.stem_channels, STEM_KERNEL))
    for block, units in groupby(spec.units(), key=lambda unit: unit.name.partition(".")[0]):
        network.add_module(block, nn.Sequential(*map(InvertedResidual, units)))
    network.add_module("conv2", ConvBnAct(spec.last_channels, spec.head_channels))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(spec.head_channels, spec.n_classes))
    return network
