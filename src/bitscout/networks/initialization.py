# SPDX-License-Identifier: Apache-2.0
"""Random initial weights from one seed, leaving PyTorch's global generator alone."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import nn

__all__ = ["seeded"]

_LINEAR_STD = 0.01  # MobileNetV2's classifier, in torchvision.


def seeded(build: Callable[[], nn.Module], generator_seed: int) -> nn.Module:
    """Return ``build()`` with initial weights that depend on `generator_seed` alone.

    Convolutions: normal with variance ``2 / fan_out`` [He2015]_, biases 0. Linear layers: normal
    with standard deviation 0.01, biases 0. Batch norm: scale 1, shift 0, which is what PyTorch
    gives. ``fan_out`` counts the outputs a weight reaches, ``k * k`` in a depthwise convolution;
    `torch.nn.init.kaiming_normal_` ignores groups, and would start depthwise weights smaller by
    the square root of the channels.

    Args:
        build: Makes the module; whatever it draws is discarded.
        generator_seed: In ``[0, 2**63)``.

    References:
        .. [He2015] K. He et al. Delving Deep into Rectifiers. ICCV 2015.
           https://arxiv.org/abs/1502.01852
    """
    # NOTE: the layers' constructors draw from the global generator; the fork gives it back.
    with torch.random.fork_rng(devices=()):
        module = build()
    generator = torch.Generator().manual_seed(generator_seed)
    with torch.no_grad():
        for layer in module.modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            std = _LINEAR_STD
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.out_channels // layer.groups * prod(layer.kernel_size)
                std = (2 / fan_out) ** 0.5
            layer.weight.normal_(0, std, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    return module
