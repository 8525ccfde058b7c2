# SPDX-License-Identifier: Apache-2.0
"""A copy of a trained network with other widths, its weights inherited.

Notation: a group of ``C`` channels becomes ``C'`` channels; ``s[j]`` is the channel of the given
network that the new channel ``j`` takes after, ``n[c] = |{j : s[j] = c}|`` how often ``c`` is
taken.

Narrowing keeps the most important channels, in order (`channel_importance`). Widening replicates
them: whatever is written per channel is copied, ``W'[j] = W[s[j]]``, and what reads the channels
shares its weights among the copies, ``W'[:, j] = W[:, s[j]] / n[s[j]]``, so that every sum, and
with it the network's function, stays what it was: Net2WiderNet, Eqs. (2) and (3) of [Chen2016]_.
A copy has its original's batch norm, so this holds in evaluation mode, and in training mode too.

Deviation: the copied channels are not drawn at random, but the most important are copied first,
one after the other, each as often as any other up to one.

References:
    .. [Chen2016] T. Chen, I. Goodfellow, J. Shlens. Net2Net: Accelerating Learning via Knowledge
       Transfer. ICLR 2016. https://arxiv.org/abs/1511.05641
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bitscout.errors import ConfigError, UnsupportedError
from bitscout.networks.importance import Importance, channel_importance
from bitscout.networks.resized_modules import update_sizes
from bitscout.networks.widths import axis_entries, given_weights
from bitscout.space import Axis, GivenWeight, ModelDescription

__all__ = ["copied", "resize"]


@torch.no_grad()
def resize(
    module: nn.Module,
    description: ModelDescription,
    widths: Sequence[int],
    *,
    importance: Importance = "flow",
    noise: float = 0.0,
    generator_seed: int = 0,
) -> nn.Module:
    """Return a deep copy of `module` with other widths, its weights inherited.

    The copy runs by the module's own ``forward``. Shared weights stay shared; devices, dtypes,
    modes, hooks and ``requires_grad`` stay, gradients are left behind. Only tensors and the sizes
    PyTorch's own modules keep of them (``Conv2d.in_channels``) change: numbers of channels in
    attributes of your own modules do not, and a ``forward`` that uses them may no longer run.

    Args:
        module: The network that `description` describes; stays as it is.
        description: Its layers, channel groups and weights.
        widths: Channels of every group; those of `description.widths` give a plain copy.
        importance: How channels are ranked, see `channel_importance`.
        noise: How unequally the copies of a channel share the weights that read it, in
            ``[0, 1)``: shares are drawn from ``1 +- noise`` and then made to sum to one, so the
            function stays. With 0 the copies are the same for ever, also under training: they
            get the same gradients.
        generator_seed: Seed of that draw.

    Raises:
        ConfigError: If the network cannot have these widths, `noise` is out of range, or the
            description is of another network.
        UnsupportedError: If a weight that has to change is computed by a parametrization, or the
            module cannot be copied.
    """
    description.check(widths)
    if not 0 <= noise < 1:
        msg = f"`noise` must be in [0, 1), got {noise}."
        raise ConfigError(msg)
    weights = given_weights(module, description)
    sources = _sources(module, description, widths, importance)
    if not sources:
        return copied(module)
    resized = [given for given in description.weights if _changes(given, sources)]
    for given in resized:
        _check_plain(given, weights)
    inherit = _Inheritance(description.widths, widths, sources, noise, generator_seed)
    # A tensor that is in the memo is not copied: the new one takes its place, wherever it is.
    memo: dict[int, object] = {}
    for given in resized:
        old = weights[given.name]
        new = inherit(old.detach(), given)
        memo[id(old)] = nn.Parameter(new, old.requires_grad) if _is_parameter(old) else new
    result = copied(module, memo)
    update_sizes(result, {given.name.rpartition(".")[0] for given in resized})
    return result


def copied(module: nn.Module, memo: dict[int, object] | None = None) -> nn.Module:
    """Return a deep copy of a network; what `memo` holds by `id` takes the place of a copy.

    Raises:
        UnsupportedError: If Python cannot copy it.
    """
    try:
        return copy.deepcopy(module, memo)
    except (RuntimeError, TypeError, AttributeError) as error:
        msg = (
            f"The network cannot be copied: {error} Look for tensors that are computed outside of "
            "the forward and kept in an attribute (torch.nn.utils.weight_norm does so: remove it "
            "with remove_weight_norm), and for attributes that cannot be copied, such as files."
        )
        raise UnsupportedError(msg) from error


class _Inheritance:
    """Makes the tensors of the new widths from those of the given ones."""

    def __init__(
        self,
        old_widths: Sequence[int],
        new_widths: Sequence[int],
        sources: Mapping[int, Tensor],
        noise: float,
        generator_seed: int,
    ) -> None:
        self._old_widths = old_widths
        self._new_widths = new_widths
        self._sources = sources
        self._noise = noise
        self._generator = torch.Generator().manual_seed(generator_seed)
        self._entries: dict[Axis, Tensor | None] = {}

    def __call__(self, old: Tensor, given: GivenWeight) -> Tensor:
        """Return the tensor with the new widths."""
        new = old
        for dim, axis in enumerate(given.axes):
            entries = self._entries_of(axis)
            if entries is None:
                continue
            if dim != given.reads:
                new = new.index_select(dim, entries.to(new.device))
            else:
                new = self._read(new, dim, entries.to(new.device), given.groups)
        return new.contiguous(memory_format=_memory_format(old))

    def _entries_of(self, axis: Axis) -> Tensor | None:
        """Return the old entry each entry of the new axis takes after; None if all stay."""
        if axis not in self._entries:
            changes = any(segment.group in self._sources for segment in axis)
            self._entries[axis] = (
                axis_entries(axis, self._old_widths, self._sources) if changes else None
            )
        return self._entries[axis]

    def _read(self, old: Tensor, dim: int, entries: Tensor, groups: int) -> Tensor:
        """Return the weights that read the new channels: each copy has its share.

        Args:
            old: Weights; with the new output channels already.
            dim: The dimension over which they sum; 1 where `groups` is above 1.
            entries: Old entry of each new one, of all `groups` together.
            groups: Equal parts of the entries; the output channels have as many.
        """
        size = old.shape[dim]
        # Position of each new entry in its own part of the old ones: shape (groups, new size).
        local = entries.view(groups, -1) - size * torch.arange(
            groups, device=old.device
        ).unsqueeze(1)
        parts = []
        for rows, places in zip(old.chunk(groups), local, strict=True):
            new = rows.index_select(dim, places)
            counts = torch.bincount(places, minlength=size)[places]
            if (counts > 1).any():
                shares = self._shares(new.shape[1 - dim], places, counts).to(new.dtype)
                shares = shares.t() if dim else shares
                new.mul_(shares.reshape(*shares.shape, *[1] * (new.dim() - 2)))
            parts.append(new)
        return parts[0] if groups == 1 else torch.cat(parts)

    def _shares(self, n_rows: int, places: Tensor, counts: Tensor) -> Tensor:
        """Return what to multiply new weights with, so that the copies of an entry share them.

        Args:
            n_rows: How many read the entries.
            places: Old entry of each new one, shape ``(n,)``.
            counts: How often that is taken, shape ``(n,)``.

        Returns:
            Shape ``(n, n_rows)``, or ``(n, 1)`` where all rows have the same.
        """
        if not self._noise:
            return (1.0 / counts).unsqueeze(1)
        drawn = torch.rand((len(places), n_rows), generator=self._generator)
        drawn = (1 + self._noise * (2 * drawn - 1)).to(places.device)
        total = torch.zeros_like(drawn).index_add_(0, places, drawn)
        return drawn / total[places]


def _sources(
    module: nn.Module,
    description: ModelDescription,
    widths: Sequence[int],
    importance: Importance,
) -> dict[int, Tensor]:
    """Return, for every group that changes, the given channel each new channel takes after."""
    changed = {
        index
        for index, (old, new) in enumerate(zip(description.widths, widths, strict=True))
        if old != new
    }
    scores = channel_importance(module, description, changed, importance)
    return {
        index: _taken(scores[index], widths[index], description.groups[index].multiple)
        for index in sorted(changed)
    }


def _taken(scores: Tensor, width: int, n_parts: int) -> Tensor:
    """Return the channels to take, in order; copies come after the originals.

    Args:
        scores: Importance of each channel, shape ``(C,)``.
        width: ``C'``, a multiple of `n_parts`.
        n_parts: As many equal runs of channels stay as many and equal: grouped convolutions.

    Returns:
        Shape ``(C',)``.
    """
    parts = scores.view(n_parts, -1)
    # The best first; a stable sort keeps equal ones by index.
    ranked = parts.argsort(dim=1, descending=True, stable=True)
    size, new_size = parts.shape[1], width // n_parts
    if new_size < size:
        taken = ranked[:, :new_size].sort(dim=1).values
    else:
        n_rounds = -(-new_size // size)
        copies = ranked.repeat(1, n_rounds)[:, : new_size - size]
        taken = torch.cat([torch.arange(size).expand(n_parts, -1), copies], dim=1)
    return (taken + size * torch.arange(n_parts).unsqueeze(1)).flatten()


def _changes(given: GivenWeight, sources: Mapping[int, Tensor]) -> bool:
    return any(segment.group in sources for axis in given.axes for segment in axis)


def _check_plain(given: GivenWeight, weights: Mapping[str, Tensor]) -> None:
    layer, _, rest = given.name.partition(".parametrizations.")
    if rest or not weights[given.name].is_leaf:
        msg = (
            f"{given.name!r} is computed from other weights, so its width cannot change. Remove "
            f"the parametrization first: torch.nn.utils.parametrize.remove_parametrizations on "
            f"{layer!r}."
        )
        raise UnsupportedError(msg)


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _memory_format(old: Tensor) -> torch.memory_format:
    is_last = old.dim() == 4 and not old.is_contiguous()
    if is_last and old.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
