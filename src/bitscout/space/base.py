# SPDX-License-Identifier: Apache-2.0
"""The interface of a search space.

Notation: ``D`` is the number of choices. A point is written in two ways: *values*, a mapping from
choice name to value, for people and files; *indices*, an integer array of shape ``(D,)`` holding
the position of each value in its choice, for searchers. A batch of points is ``(n, D)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Protocol, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitscout.core import Candidate, LayerGraph, QuantPolicy, Value, Values
from bitscout.errors import ConfigError
from bitscout.space.choice import Choice
from bitscout.space.layer_table import LayerTable, LayerVariants
from bitscout.space.summary import LayerSummary, SpaceSummary

__all__ = ["Architecture", "IndexArray", "SearchSpace"]

IndexArray = NDArray[np.int64]


class Architecture(Protocol):
    """A network without its bit-widths, as immutable data a builder understands."""

    @property
    def key(self) -> str:
        """Text that is equal for two architectures exactly if their networks are the same."""
        ...

    def layers(self) -> LayerGraph:
        """Return every layer and node, computed without building the network."""
        ...


class SearchSpace(ABC):
    """Everything that may be chosen, as ordinal choices.

    A space says what its choices are, which of them are inactive where, and what network and
    policy a point stands for. The rest follows and is final.
    """

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """Every choice with more than one value, architecture first."""

    @abstractmethod
    def canonical_indices(self, indices: ArrayLike) -> IndexArray:
        """Return points in which everything that does not change the network is at its default.

        Idempotent, and leaves the network and the bits of all its layers as they are.

        Args:
            indices: Shape ``(n, D)``.

        Returns:
            New array of shape ``(n, D)``.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """

    @abstractmethod
    def architecture(self, values: Values) -> Architecture:
        """Return the network `values` describe, without its bits.

        Raises:
            ConfigError: If `values` is no point of this space.
        """

    @abstractmethod
    def policy(self, values: Values) -> QuantPolicy:
        """Return the bits of every layer of the network `values` describe.

        Raises:
            ConfigError: If `values` is no point of this space.
        """

    @abstractmethod
    def weight_bits(self, indices: ArrayLike) -> IndexArray:
        """Return the bits of all weights of each network; exact, costs O(n).

        Args:
            indices: Shape ``(n, D)``.

        Returns:
            Shape ``(n,)``, in bits.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """

    @abstractmethod
    def size_bits(self, indices: ArrayLike) -> IndexArray:
        """Return `weight_bits` plus 32 bits for each bias after batch-norm folding.

        Args:
            indices: Shape ``(n, D)``.

        Returns:
            Shape ``(n,)``, in bits.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """

    @abstractmethod
    def tabulate(self, indices: ArrayLike) -> LayerTable:
        """Return layers, bits and skip connections of many networks as arrays.

        The same networks as `layers` and `policy`, some hundred times as fast a network.

        Args:
            indices: Shape ``(n, D)``.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """

    @abstractmethod
    def layer_variants(self) -> LayerVariants:
        """Return every layer that any network of the space may have: rows of a look-up table."""

    @property
    def is_chain(self) -> bool:
        """Whether what `tabulate` gives is the whole network: a chain with skip connections.

        Where it is not, memory is known network by network, from `layers`, and not in batches.
        """
        return True

    @abstractmethod
    def describe(self) -> SpaceSummary:
        """Return the size of the space."""

    @abstractmethod
    def explain_layers(self) -> tuple[LayerSummary, ...]:
        """Return what is searched and what is fixed, layer by layer; names every choice."""

    def uniform_policy(self, values: Values, bits: int) -> QuantPolicy:
        """Return the policy that a search of bits is compared with: one weight bit-width.

        Activations have the most bits that the seed network's have.

        Raises:
            ConfigError: If `values` is no point of this space.
            PolicyError: If no layer can have `bits`.
        """
        seed = self.policy(self.seed_values())
        act_bits = max(layer.act_bits for layer in seed.values())
        return QuantPolicy.uniform(self.layers(values).names, bits, act_bits)

    # --- what follows from the above, the same for every space

    @final
    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """Return a point drawn uniformly over all choices, then made canonical."""
        return self.decode(self.sample_indices(rng, 1)[0])

    @final
    def sample_indices(self, rng: np.random.Generator, n: int) -> IndexArray:
        """Return `n` independent points as `sample` draws them, shape ``(n, D)``."""
        lengths = [len(choice.values) for choice in self.choices]
        return self.canonical_indices(rng.integers(lengths, size=(n, len(lengths))))

    @final
    def contains(self, values: Mapping[str, object]) -> bool:
        """Return whether `values` gives every choice, and no other key, an allowed value."""
        try:
            self.validate(values)
        except ConfigError:
            return False
        return True

    @final
    def validate(self, values: Mapping[str, object]) -> None:
        """Check that `values` gives every choice, and no other key, an allowed value.

        Raises:
            ConfigError: Naming the key, what is allowed and what came.
        """
        self._index_list(values)

    @final
    def encode(self, values: Mapping[str, object]) -> IndexArray:
        """Return the index of each value in its choice, shape ``(D,)``.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        return np.array(self._index_list(values), dtype=np.int64)

    @final
    def decode(self, indices: ArrayLike) -> dict[str, Value]:
        """Return the values at `indices`, shape ``(D,)``; the inverse of `encode`.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """
        row = self.check_indices(np.asarray(indices)[None])[0]
        return {
            choice.name: choice.values[index]
            for choice, index in zip(self.choices, row.tolist(), strict=True)
        }

    @final
    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """Return `values` with everything that does not change the network at its default.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        return self.decode(self.canonical_indices(self.encode(values)[None])[0])

    @final
    def neighbour_indices(self, indices: ArrayLike) -> IndexArray:
        """Return the canonical points one exchange away from `indices`, shape ``(D,)``.

        One choice of the canonical form of `indices` takes another of its values, then the
        result is made canonical. The point itself is left out and no row comes twice; rows come
        in the order of the choices and their values.

        NOTE: the relation is not symmetric. Removing a block forgets its kernel, and putting it
        back gives it the default one.

        Returns:
            Shape ``(n_neighbours, D)``.

        Raises:
            ConfigError: If the shape does not fit or an index is out of range.
        """
        point = self.canonical_indices(np.asarray(indices)[None])[0]
        lengths = [len(choice.values) for choice in self.choices]
        exchanged: IndexArray = np.repeat(point[None], sum(lengths), axis=0)
        columns = np.repeat(np.arange(len(lengths)), lengths)
        exchanged[np.arange(len(columns)), columns] = np.concatenate([*map(np.arange, lengths)])
        rows = self.canonical_indices(exchanged)
        rows = rows[(rows != point).any(axis=1)]
        _, first = np.unique(rows, axis=0, return_index=True)
        unique: IndexArray = rows[np.sort(first)]
        return unique

    @final
    def neighbours(self, values: Mapping[str, object]) -> list[dict[str, Value]]:
        """Return `neighbour_indices` as values.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        return [self.decode(row) for row in self.neighbour_indices(self.encode(values))]

    @final
    def seed_indices(self) -> IndexArray:
        """Return the seed network, shape ``(D,)``."""
        return np.array([choice.default for choice in self.choices], dtype=np.int64)

    @final
    def seed_values(self) -> dict[str, Value]:
        """Return the seed network: every choice at its default."""
        return self.decode(self.seed_indices())

    @final
    def layers(self, values: Values) -> LayerGraph:
        """Return every layer and node of the network `values` describe, without building it.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        return self.architecture(values).layers()

    @final
    def architecture_key(self, values: Values) -> str:
        """Return text that is equal exactly for points with the same network; bits do not count.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        return self.architecture(values).key

    @final
    def candidate(self, values: Mapping[str, object]) -> Candidate:
        """Return the canonical values with their policy.

        Raises:
            ConfigError: If `values` is no point of this space.
        """
        canonical = self.canonical(values)
        return Candidate(canonical, self.policy(canonical))

    @final
    def check_indices(self, indices: ArrayLike) -> IndexArray:
        """Return `indices` as an array of shape ``(n, D)`` after checking it.

        Raises:
            ConfigError: If the shape does not fit, an index is no integer or out of range.
        """
        array = np.asarray(indices)
        n_choices = len(self.choices)
        if array.ndim != 2 or array.shape[1] != n_choices:
            msg = f"Expected indices of shape (n, {n_choices}), got {array.shape}."
            raise ConfigError(msg)
        if array.dtype.kind not in "iu":
            msg = f"Indices must be integers, got an array of {array.dtype}."
            raise ConfigError(msg)
        lengths = np.array([len(choice.values) for choice in self.choices])
        bad = np.argwhere((array < 0) | (array >= lengths))
        if len(bad):
            row, column = bad[0]
            choice = self.choices[column]
            msg = (
                f"Index of `{choice.name}` must be in [0, {len(choice.values) - 1}], "
                f"got {array[row, column]} in row {row}."
            )
            raise ConfigError(msg)
        return array.astype(np.int64)

    def _index_list(self, values: Mapping[str, object]) -> list[int]:
        names = [choice.name for choice in self.choices]
        unknown = sorted(set(values) - set(names))
        if unknown:
            nearest = get_close_matches(unknown[0], names, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
            msg = f"This space has no choice `{unknown[0]}`.{hint}"
            raise ConfigError(msg)
        missing = [name for name in names if name not in values]
        if missing:
            msg = f"A value is missing for {', '.join(f'`{name}`' for name in missing)}."
            raise ConfigError(msg)
        return [choice.index(values[choice.name]) for choice in self.choices]
