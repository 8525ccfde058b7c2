# SPDX-License-Identifier: Apache-2.0
"""Running statistics of batch norms, estimated anew."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["recalibrate_batch_norm"]


@torch.no_grad()
def recalibrate_batch_norm(module: nn.Module, batches: Iterable[Tensor] | Tensor) -> None:
    """Estimate the running statistics of every batch norm anew, in place.

    After narrowing they are those of the wider network: sums over fewer channels have other
    means and variances. Each statistic becomes the plain average over the batches, whatever the
    momentum; only batch norms run in training mode, so dropout stays off. Modes and momenta are
    left as they were; batch norms that keep no statistics are left alone.

    Args:
        module: The network.
        batches: Images, a batch of shape ``(n, C, H, W)`` each, on the module's device; a tensor
            is one batch. Equal sizes make the average one over images. Without any batch nothing
            happens.
    """
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
    ]
    if not norms:
        return
    training = {part: part.training for part in module.modules()}
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.train()
    try:
        for index, images in enumerate([batches] if isinstance(batches, Tensor) else batches):
            # The k-th of the batches weighs 1 / k: a running average that starts from nothing.
            for norm in norms:
                norm.momentum = 1 / (index + 1)
            module(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, was_training in training.items():
            part.training = was_training
