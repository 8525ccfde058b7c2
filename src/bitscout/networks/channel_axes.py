# SPDX-License-Identifier: Apache-2.0
"""Which channels of which tensors are the same channels.

Every dimension that can have channels is an array of *entries*, integers: the channel each place
of the dimension belongs to. A layer that writes new channels writes new entries; what passes
channels on passes its array on; a concatenation joins arrays, flattening repeats each entry, and
an addition says that two arrays are the same, place by place. `None` is a dimension without
channels: the batch, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bitscout.networks.calls import Call, Value

__all__ = ["ChannelAxes", "Dims", "Entries"]

Entries = NDArray[np.int64]
Dims = list[Entries | None]


class ChannelAxes:
    """The entries of every value's dimensions, and what is known about them.

    Attributes:
        dims: By index of a value: the entries of each of its dimensions.
        values: By index: the value.
    """

    def __init__(self) -> None:
        self.dims: dict[int, Dims] = {}
        self.values: dict[int, Value] = {}
        self._n_entries = 0
        self._same: list[tuple[Entries, Entries]] = []
        self._reasons: list[tuple[Entries, str]] = []
        self._names: list[tuple[int, str]] = []

    def of(self, value: Value) -> Dims:
        """Return the entries of a value's dimensions.

        A parameter or buffer gets entries of its own when it first comes up, for every dimension:
        what becomes of it will say which of them are channels.
        """
        if value.index not in self.dims:
            self.values[value.index] = value
            self.dims[value.index] = [
                self.fresh(size, value.name) if value.name else None for size in value.shape
            ]
        return self.dims[value.index]

    def put(self, value: Value, dims: Sequence[Entries | None]) -> None:
        """Say what the dimensions of `value` are."""
        sizes = zip(dims, value.shape, strict=True)
        assert all(entries is None or len(entries) == size for entries, size in sizes)
        self.values[value.index] = value
        self.dims[value.index] = list(dims)

    def fresh(self, size: int, name: str) -> Entries:
        """Return new entries.

        Args:
            size: How many.
            name: Who made them, for messages.
        """
        start = self._n_entries
        self._n_entries += size
        self._names.append((start, name))
        return np.arange(start, start + size)

    def same(self, a: Entries | None, b: Entries | None) -> None:
        """Say that two dimensions are the same channels, place by place."""
        if a is None or b is None or a is b:
            return
        if len(a) == len(b):
            self._same.append((a, b))

    def fix(self, entries: Entries | None, reason: str, *, is_first: bool = False) -> None:
        """Say that the number of these channels cannot change, and why.

        Of several reasons the first is told; `is_first` puts this one before all others.
        """
        if entries is not None and len(entries):
            self._reasons.insert(0 if is_first else len(self._reasons), (entries, reason))

    def lose(self, call: Call, problem: str) -> None:
        """Say that `call` does something with channels that is not followed.

        What it read and what it made stays as it is.
        """
        reason = reason_of(call, problem)
        for value in call.reads:
            for entries in self.of(value):
                self.fix(entries, reason)
        for value in call.writes:
            is_batched = value.origin == "input"
            dims: Dims = [
                None if size == 1 or (is_batched and dim == 0) else self.fresh(size, call.path)
                for dim, size in enumerate(value.shape)
            ]
            self.put(value, dims)
            for entries in dims:
                self.fix(entries, reason)

    def labels(self) -> tuple[Entries, dict[int, str]]:
        """Return a label for every entry, equal for the same channels, and labels that are fixed.

        Returns:
            Labels of the entries, and by label why its number cannot change.
        """
        empty = [np.zeros(0, np.int64)]
        rows = np.concatenate([a for a, _ in self._same] or empty)
        columns = np.concatenate([b for _, b in self._same] or empty)
        shape = (self._n_entries, self._n_entries)
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape)
        labels = connected_components(links, directed=False)[1].astype(np.int64)
        reasons: dict[int, str] = {}
        for entries, reason in self._reasons:
            for label in np.unique(labels[entries]):
                reasons.setdefault(int(label), reason)
        return labels, reasons

    def name_of(self, entry: int) -> str:
        """Return who made an entry."""
        starts = [start for start, _ in self._names]
        return self._names[int(np.searchsorted(starts, entry, side="right")) - 1][1]


def reason_of(call: Call, problem: str) -> str:
    """Return a sentence: what `call` does with the channels, and where."""
    return f"`{call.function}` in {call.where} {problem}."


def axis_number(value: Value, dim: Any) -> int:  # noqa: ANN401  # as PyTorch takes it
    """Return a dimension as a number >= 0."""
    return int(dim) % max(len(value.shape), 1)
