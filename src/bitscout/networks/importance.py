# SPDX-License-Identifier: Apache-2.0
"""How important the channels of a group are, from the weights alone.

Notation: ``W_l`` the weights of layer ``l`` with its batch norm folded, ``b_l`` the folded bias;
``W_l[c]`` those that write channel ``c``, ``W_l[:, c]`` those that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bitscout.errors import ConfigError
from bitscout.networks.widths import n_entries
from bitscout.space import Axis, GivenWeight, ModelDescription

__all__ = ["Importance", "channel_importance"]

Importance = Literal["flow", "writers", "readers"]


@torch.no_grad()
def channel_importance(
    module: nn.Module,
    description: ModelDescription,
    groups: Collection[int],
    importance: Importance = "flow",
) -> dict[int, Tensor]:
    """Return how important every channel of some groups is.

    ``writers`` is the L2 norm of everything that writes the channel, summed over the group's
    layers, each layer measured in units of its own mean channel so that none drowns the others:
    ``w(c)^2 = sum_l |W_l[c], b_l[c]|^2 / mean_c' |W_l[c'], b_l[c']|^2``. A depthwise convolution
    writes its group. ``readers`` is the same over ``W_l[:, c]``. ``flow`` is their product: what
    a channel is written with times what it is read with. It does not change when a channel is
    scaled up and its readers down (which ReLU networks cannot tell apart), and is zero for a
    channel that nothing reads.

    Args:
        module: The network.
        description: Of that network.
        groups: Indices of the groups to rank.
        importance: The criterion.

    Returns:
        By group, shape ``(channels,)``, float64 on the CPU, >= 0.

    Raises:
        ConfigError: If the criterion is none of them.
    """
    if importance not in get_args(Importance):
        msg = f"`importance` must be one of {get_args(Importance)}, got {importance!r}."
        raise ConfigError(msg)
    sizes = description.widths
    written = {g: torch.zeros(sizes[g], dtype=torch.float64) for g in groups}
    read = {g: torch.zeros(sizes[g], dtype=torch.float64) for g in groups}
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    for given in _layers(description):
        folded, bias = _folded(module, tensors, given)
        squares = folded.square()
        rows = given.axes[1 if given.reads == 0 else 0]
        if importance != "readers" and _touches(rows, written):
            _add(written, rows, squares.flatten(1).sum(1) + bias.square(), sizes)
        if importance != "writers" and given.reads is not None:
            axis = given.axes[given.reads]
            if _touches(axis, read):
                _add(read, axis, _columns(squares, given.groups), sizes)
    if importance == "writers":
        return {g: written[g].sqrt() for g in groups}
    if importance == "readers":
        return {g: read[g].sqrt() for g in groups}
    return {g: (written[g] * read[g]).sqrt() for g in groups}


def _layers(description: ModelDescription) -> Iterator[GivenWeight]:
    """Yield the weights of the layers among all weights."""
    names = {given.layer.name for given in description.layers}
    for given in description.weights:
        is_depthwise = given.name.rpartition(".")[0] in names and len(given.axes) > 1
        if given.reads is not None or is_depthwise:
            yield given


def _folded(
    module: nn.Module, tensors: Mapping[str, Tensor], given: GivenWeight
) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a layer with its batch norm folded, in float64 on the CPU.

    The first dimension of the weights writes, the second reads.
    """
    weight = _exact(tensors[given.name], torch.zeros(()))
    weight = weight if given.reads is None else weight.movedim(given.reads, 1)
    bias = tensors.get(f"{given.name.rpartition('.')[0]}.bias")
    shift = _exact(bias, weight.new_zeros(len(weight)))
    if given.norm:
        norm = module.get_submodule(given.norm)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        scale = torch.rsqrt(_exact(norm.running_var, torch.ones_like(shift)) + norm.eps)
        scale = scale * _exact(norm.weight, torch.ones_like(shift))
        shift = (shift - _exact(norm.running_mean, torch.zeros_like(shift))) * scale
        shift = shift + _exact(norm.bias, torch.zeros_like(shift))
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return weight, shift


def _exact(tensor: object, default: Tensor) -> Tensor:
    return tensor.detach().double().cpu() if isinstance(tensor, Tensor) else default


def _columns(squares: Tensor, groups: int) -> Tensor:
    """Return the sum of the squares that read each entry of the axis, shape ``(entries,)``."""
    return (
        squares.reshape(groups, -1, squares.shape[1], squares[0, 0].numel()).sum((1, 3)).flatten()
    )


def _touches(axis: Axis, groups: Collection[int]) -> bool:
    return any(segment.group in groups for segment in axis)


def _add(
    totals: Mapping[int, Tensor], axis: Axis, values: Tensor, widths: tuple[int, ...]
) -> None:
    """Add one layer's squares per entry to the totals per channel of its groups."""
    mean = values.mean()
    if mean > 0:
        values = values / mean
    start = 0
    for segment in axis:
        end = start + n_entries((segment,), widths)
        if segment.group in totals:
            totals[segment.group] += values[start:end].view(-1, segment.factor).sum(1)
        start = end
