# SPDX-License-Identifier: Apache-2.0
"""From the axes of a description to the entries of a network's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from bitscout.errors import ConfigError
from bitscout.space import Axis, ModelDescription

__all__ = ["axis_entries", "given_weights", "n_entries"]


def n_entries(axis: Axis, widths: Sequence[int]) -> int:
    """Return the number of entries of `axis` when its groups have these widths."""
    return sum(widths[segment.group] * segment.factor for segment in axis)


def axis_entries(axis: Axis, widths: Sequence[int], sources: Mapping[int, Tensor]) -> Tensor:
    """Return the entries of `axis` that the channels `sources` of its groups stand for.

    Args:
        axis: Groups with factors, in order.
        widths: Channels of every group.
        sources: Of some groups: channels, shape ``(n,)``; the others keep all of theirs.

    Returns:
        Shape ``(n_entries,)``, int64.

    Example:
        >>> from bitscout.space import Segment
        >>> axis = (Segment(0, factor=2), Segment(1))
        >>> axis_entries(axis, (3, 2), {0: torch.tensor([0, 2])})
        tensor([0, 1, 4, 5, 6, 7])
    """
    start = 0
    parts = []
    for group, factor in axis:
        channels = sources.get(group)
        if channels is None:
            channels = torch.arange(widths[group])
        parts.append((start + channels.unsqueeze(1) * factor + torch.arange(factor)).flatten())
        start += widths[group] * factor
    return torch.cat(parts)


def given_weights(module: nn.Module, description: ModelDescription) -> dict[str, Tensor]:
    """Return the weights `description` names, checked to be of this module.

    Returns:
        The parameters and buffers themselves, by name.

    Raises:
        ConfigError: If one is missing or has another shape than the description says.
    """
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    found: dict[str, Tensor] = {}
    for given in description.weights:
        tensor = tensors.get(given.name)
        shape = None if tensor is None else tuple(tensor.shape)
        if tensor is None or shape != _shape(given.axes, tensor, description, given.groups):
            msg = (
                f"The description of {description.name} is of another network: it expects "
                f"{given.name!r} of other size than {shape}. Describe this module anew."
            )
            raise ConfigError(msg)
        found[given.name] = tensor
    return found


def _shape(
    axes: tuple[Axis, ...], tensor: Tensor, description: ModelDescription, groups: int
) -> tuple[int, ...]:
    """Return the shape the axes say; where they say nothing, that of the tensor."""
    shape = []
    for dim, axis in enumerate(axes[: tensor.dim()]):
        size = n_entries(axis, description.widths) if axis else tensor.shape[dim]
        shape.append(size // groups if axis and dim == 1 else size)
    return tuple(shape) if len(axes) == tensor.dim() else ()
