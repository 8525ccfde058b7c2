# SPDX-License-Identifier: Apache-2.0
"""The sizes PyTorch's own modules keep of their weights."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

__all__ = ["update_sizes"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def update_sizes(module: nn.Module, paths: Iterable[str]) -> None:
    """Let the modules at `paths` say the sizes their weights have, in place.

    A convolution whose every input channel was filtered by itself stays one.
    """
    for path in paths:
        part = module.get_submodule(path)
        if isinstance(part, _CONVS):
            _update_conv(part)
        elif isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        elif isinstance(part, _NORMS):
            tensor: Tensor | None = part.weight if part.affine else part.running_mean
            part.num_features = part.num_features if tensor is None else len(tensor)
        elif isinstance(part, nn.PReLU):
            part.num_parameters = len(part.weight)


def _update_conv(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
    out_channels, per_group = conv.weight.shape[:2]
    if conv.groups == conv.in_channels > 1:
        conv.groups = out_channels // (conv.out_channels // conv.groups)
    conv.out_channels = out_channels
    conv.in_channels = per_group * conv.groups
