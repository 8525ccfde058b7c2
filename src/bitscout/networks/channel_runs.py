# SPDX-License-Identifier: Apache-2.0
"""Channels in runs that nothing tells apart: what a group is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bitscout.networks.channel_axes import Entries
from bitscout.space import Axis, Segment

__all__ = ["ChannelRuns"]


class ChannelRuns:
    """Labels in longest runs that are never told apart.

    Args:
        labels: Of every entry.
        reasons: By label: why its number cannot change.
        arrays: The entries of every dimension that has any.
        ordered: Those of layers, in the order that numbers the groups. What no layer reads or
            writes has no group.

    Attributes:
        chains: The labels of every group's channels, in order.
    """

    def __init__(
        self,
        labels: Entries,
        reasons: Mapping[int, str],
        arrays: Iterable[Entries],
        ordered: Iterable[Entries],
    ) -> None:
        self._labels = labels
        self._reasons = reasons
        self._axes: dict[int, Axis] = {}
        ordered = list(ordered)
        is_layer = np.zeros(len(labels) + 1, bool)
        for entries in ordered:
            is_layer[labels[entries]] = True
        follows = _followers(labels, _distinct(arrays), is_layer)
        self.chains: list[list[int]] = []
        # By label: its group and its place in it.
        self._places: dict[int, tuple[int, int]] = {}
        for entries in _distinct(ordered):
            for label in _compressed(labels[entries])[0].tolist():
                if label not in self._places:
                    self._add_chain(label, follows)

    def _add_chain(self, label: int, follows: tuple[Mapping[int, int], Mapping[int, int]]) -> None:
        after, before = follows
        while label in before:
            label = before[label]
        chain = [label]
        while label in after:
            label = after[label]
            chain.append(label)
        for place, member in enumerate(chain):
            self._places[member] = len(self.chains), place
        self.chains.append(chain)

    def axis(self, entries: Entries | None) -> Axis:
        """Return the segments of one dimension."""
        if entries is None or not len(entries):
            return ()
        labels, counts = _compressed(self._labels[entries])
        segments = []
        for label, factor in zip(labels.tolist(), counts.tolist(), strict=True):
            group, place = self._places.get(label, (-1, 0))
            if group < 0:
                return ()
            if place == 0:
                segments.append(Segment(group, factor))
        return tuple(segments)

    def reason(self, group: int) -> str | None:
        """Return why the number of a group's channels cannot change."""
        found = (self._reasons.get(label) for label in self.chains[group])
        return next((reason for reason in found if reason is not None), None)

    def first_entry(self, label: int) -> int:
        """Return the first entry with a label."""
        return int(np.argmax(self._labels == label))


def _followers(
    labels: Entries, arrays: Iterable[Entries], is_layer: NDArray[np.bool_]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return, for labels that always have the same one after them, and it them before, which.

    Returns:
        By label: the next; by label: the one before.
    """
    end = len(labels)  # Stands for whatever cuts a run.
    pairs = []
    for entries in arrays:
        run, counts = _compressed(labels[entries])
        if not is_layer[run].all():
            continue
        padded = np.concatenate([[end], run, [end]])
        first, second = padded[:-1].copy(), padded[1:].copy()
        # Another factor is another segment: cut there, from both sides.
        cuts = np.flatnonzero(np.diff(counts)) + 1
        pairs += [np.stack([np.delete(first, cuts), np.delete(second, cuts)])]
        pairs += [np.stack([first[cuts], np.full(len(cuts), end)])]
        pairs += [np.stack([np.full(len(cuts), end), second[cuts]])]
    if not pairs:
        return {}, {}
    unique = np.unique(np.concatenate(pairs, axis=1), axis=1)
    n_after = np.bincount(unique[0], minlength=end + 1)
    n_before = np.bincount(unique[1], minlength=end + 1)
    n_after[end] = n_before[end] = 2
    keep = (n_after[unique[0]] == 1) & (n_before[unique[1]] == 1)
    kept = unique[:, keep].T.tolist()
    return dict(kept), {second: first for first, second in kept}


def _compressed(labels: Entries) -> tuple[Entries, Entries]:
    """Return labels without repetitions in a row, and how often each is repeated."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1])
    return labels[starts], np.diff(np.concatenate([starts, [len(labels)]]))


def _distinct(arrays: Iterable[Entries]) -> list[Entries]:
    """Return every array object once."""
    return list({id(entries): entries for entries in arrays if len(entries)}.values())
