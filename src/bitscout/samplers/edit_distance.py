# SPDX-License-Identifier: Apache-2.0
"""The edit distance between networks, computed for whole batches.

Notation, used by every function in this module:

    n, m      number of networks on either side
    layer     ``(kind, a_1, ..., a_A)``, non-negative numbers: what it is, and its attributes
              (for a convolution: filters, kernel, stride, bits)
    skip      ``(start, length, kind)``: a connection from layer ``start`` over ``length`` layers
    D         ``D[i, j]``: distance of the first ``i`` layers of one network and the first ``j``
              of the other

The distance is that of AutoKeras 0.4.0 [Jin2019]_ with the bit-width as a further attribute:

* layers: least cost of turning one list into the other; inserting or deleting a layer costs 1,
  substituting one of another kind 1, of the same kind the mean over the attributes of
  ``|a - b| / max(a, b)`` (0 where both are 0). A metric, since each term is one;
* skips: the optimal assignment, a pair of the same kind costing ``(|start_a - start_b| +
  |length_a - length_b|) / (max start + max length)``, of different kinds 1, one left over 1;
* total: layers + skips.

Deviation: attributes enter for every kind, also for linear layers, which AutoKeras takes to be
equal whatever their size; otherwise the classifier's bits would not count.

References:
    .. [Jin2019] H. Jin, Q. Song, X. Hu. Auto-Keras: An Efficient Neural Architecture Search
       System. KDD 2019, Section 3.1. https://arxiv.org/abs/1806.10282
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bitscout.errors import ConfigError

__all__ = ["Descriptors", "edit_distances", "layer_distances", "skip_distances"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# Networks of either side per tile: small enough for the cache, large enough for NumPy.
TILE = 128


@dataclass(frozen=True)
class Descriptors:
    """A batch of `n` networks as padded arrays; entries past the counts are ignored.

    Attributes:
        layers: Shape ``(n, max layers, 1 + A)``: kind and attributes, all >= 0.
        n_layers: Number of layers of each network, shape ``(n,)``.
        skips: Shape ``(n, max skips, 3)``: start, length and kind, all >= 0.
        n_skips: Number of skip connections of each network, shape ``(n,)``.

    Raises:
        ConfigError: If the shapes do not fit together.
    """

    layers: NDArray[np.generic]
    n_layers: IntArray
    skips: NDArray[np.generic]
    n_skips: IntArray

    def __post_init__(self) -> None:
        """Reject arrays of different batches."""
        n = len(self.layers)
        shapes = (self.layers.shape, self.n_layers.shape, self.skips.shape, self.n_skips.shape)
        counts_fit = self.n_layers.shape == self.n_skips.shape == (n,)
        if not counts_fit or self.layers.ndim != 3 or self.skips.shape[::2] != (n, 3):
            msg = (
                "Expected layers (n, L, 1 + A), n_layers (n,), skips (n, S, 3) and n_skips (n,), "
                f"got {', '.join(map(str, shapes))}."
            )
            raise ConfigError(msg)

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self.n_layers)

    @classmethod
    def from_sequences(
        cls,
        layers: Sequence[Sequence[Sequence[float]]],
        skips: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> Descriptors:
        """Return the batch of networks given by lists of layers and, optionally, of skips.

        Example:
            >>> thin, wide = [(0, 32, 3, 1)], [(0, 64, 3, 1)]
            >>> batch = Descriptors.from_sequences([thin, wide])
            >>> edit_distances(batch, batch).round(4)
            array([[0.    , 0.1667],
                   [0.1667, 0.    ]])
        """
        skips = [[] for _ in layers] if skips is None else skips
        width = max((len(layer) for network in layers for layer in network), default=1)
        return cls(*_pad(layers, width), *_pad(skips, 3))


def edit_distances(a: Descriptors, b: Descriptors) -> FloatArray:
    """Return the distances between the networks of `a` and of `b`, shape ``(n, m)``.

    Costs O(n m L**2) for the layers, vectorized over the pairs, and one assignment problem for
    each pair of different lists of skips.
    """
    return layer_distances(a, b) + skip_distances(a, b)


def layer_distances(a: Descriptors, b: Descriptors) -> FloatArray:
    """Return the layers' part of the distance, shape ``(n, m)``.

    The recurrence ``D[i, j] = min(D[i-1, j-1] + cost, D[i-1, j] + 1, D[i, j-1] + 1)`` runs once
    for a tile of pairs, each step for all of them at once. Both sides are sorted by length, so
    that a tile holds pairs of similar lengths. In single precision: a step errs by at most
    1.5e-5 where the distance exceeds 128, far less than an attribute's step.

    Raises:
        ConfigError: If the layers of `a` and of `b` have different numbers of attributes.
    """
    if not a.n_layers.any() or not b.n_layers.any():
        return (a.n_layers[:, None] + b.n_layers[None, :]).astype(float)
    if a.layers.shape[2] != b.layers.shape[2]:
        msg = (
            "Both sides must have the same attributes, "
            f"got {a.layers.shape[2] - 1} and {b.layers.shape[2] - 1}."
        )
        raise ConfigError(msg)
    order_a, order_b = np.argsort(a.n_layers), np.argsort(b.n_layers)
    tokens_a, kinds_a = _tokens(a, order_a)
    tokens_b, kinds_b = _tokens(b, order_b)
    cost = _substitution_costs(kinds_b, kinds_a)
    n_a, n_b = a.n_layers[order_a], b.n_layers[order_b]
    distances = np.empty((len(a), len(b)))
    for start_a, start_b in product(range(0, len(a), TILE), range(0, len(b), TILE)):
        p, q = slice(start_a, start_a + TILE), slice(start_b, start_b + TILE)
        cells = np.ix_(order_a[p], order_b[q])
        if a is b and start_b < start_a:
            distances[cells] = distances[np.ix_(order_b[q], order_a[p])].T
        else:
            distances[cells] = _levenshtein(cost, tokens_a[p], n_a[p], tokens_b[q], n_b[q]).T
    return distances


def skip_distances(a: Descriptors, b: Descriptors) -> FloatArray:
    """Return the skip connections' part of the distance, shape ``(n, m)``.

    Networks that differ in bits and kernels alone have the same skips: each pair of different
    lists is matched once.
    """
    lists, inverse = _unique_skips(a, b)
    in_a, in_b = inverse[: len(a)], inverse[len(a) :]
    table = np.zeros((len(lists), len(lists)))
    pairs = np.zeros(table.shape, dtype=bool)
    pairs[np.ix_(in_a, in_b)] = True
    # The distance is symmetric.
    rows, columns = np.nonzero(np.triu(pairs | pairs.T, k=1))
    for p in np.unique(rows):
        others = columns[rows == p]
        table[p, others] = table[others, p] = _matches(lists[p], [lists[q] for q in others])
    return table[np.ix_(in_a, in_b)]


def _levenshtein(
    cost: NDArray[np.float32],
    tokens_a: IntArray,
    n_a: IntArray,
    tokens_b: IntArray,
    n_b: IntArray,
) -> NDArray[np.float32]:
    """Return the distances of one tile, shape ``(m, n)``, by ``E[i, j] = D[i, j] - i - j``.

    In terms of `E` inserting and deleting are free, ``E[i, 0] = E[0, j] = 0`` and a substitution
    costs ``cost - 2``: two additions fewer for every cell.
    """
    max_a, max_b, n, m = int(n_a.max()), int(n_b.max()), len(n_a), len(n_b)
    result = np.zeros((m, n), dtype=np.float32)
    gain = np.ascontiguousarray((cost - 2.0).T)
    columns = list(np.ascontiguousarray(tokens_b[:, :max_b].T))
    # tables[i % 2][j] is E[i, j] of all pairs, shape (m, n).
    tables = np.zeros((2, max_b + 1, m, n), dtype=np.float32)
    entries = [list(table) for table in tables]
    for i in range(max_a):
        row_gain = np.ascontiguousarray(gain.take(tokens_a[:, i], axis=0).T)
        above, row = entries[i % 2], entries[(i + 1) % 2]
        for j, column in enumerate(columns):
            entry = row[j + 1]
            row_gain.take(column, axis=0, out=entry, mode="clip")
            np.add(entry, above[j], out=entry)
            np.minimum(entry, above[j + 1], out=entry)
            np.minimum(entry, row[j], out=entry)
        ends = np.flatnonzero(n_a == i + 1)
        result[:, ends] = tables[(i + 1) % 2][n_b, np.arange(m)][:, ends]
    return np.asarray(result + n_a + n_b[:, None])


def _tokens(batch: Descriptors, order: IntArray) -> tuple[IntArray, NDArray[np.float32]]:
    """Number the different layers of a batch.

    Returns:
        Token of each layer, ``(n, L)``, and the layers themselves, ``(T, 1 + A)``.
    """
    layers = np.ascontiguousarray(batch.layers[order], dtype=np.float32)
    flat = layers.reshape(-1, layers.shape[2])
    # Equal non-negative numbers have equal bytes (adding 0 turns -0 into 0).
    keys = np.ascontiguousarray(flat + 0.0).view(f"V{flat.itemsize * flat.shape[1]}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return inverse.reshape(layers.shape[:2]), flat[first]


def _substitution_costs(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cost of substituting each layer of `q` for each of `p`, ``(len(p), len(q))``."""
    n_attributes = p.shape[1] - 1
    cost = np.zeros((len(p), len(q)), dtype=np.float32)
    for x, y in zip(p.T[1:], q.T[1:], strict=True):
        cost += _relative_difference(x, y)
    cost /= max(n_attributes, 1)
    cost[p[:, None, 0] != q[None, :, 0]] = 1.0
    return cost


def _relative_difference(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``|x_i - y_j| / max(x_i, y_j)``, 0 where both are 0.

    Attributes take few different values, so the table is computed for those and spread.
    """
    values_x, index_x = np.unique(x, return_inverse=True)
    values_y, index_y = np.unique(y, return_inverse=True)
    largest = np.maximum(values_x[:, None], values_y[None, :])
    table = np.abs(values_x[:, None] - values_y[None, :]) / np.where(largest > 0, largest, 1.0)
    return np.asarray(table.astype(np.float32)[:, index_y].take(index_x, axis=0))


def _unique_skips(*batches: Descriptors) -> tuple[list[FloatArray], IntArray]:
    """Return the different lists of skips, each ``(s, 3)``, and which one each network has."""
    numbers: dict[bytes, int] = {}
    lists: list[FloatArray] = []
    inverse: list[int] = []
    for batch in batches:
        for skips, count in zip(np.asarray(batch.skips, dtype=float), batch.n_skips, strict=True):
            own = skips[:count] + 0.0
            number = numbers.setdefault(own.tobytes(), len(lists))
            if number == len(lists):
                lists.append(own)
            inverse.append(number)
    return lists, np.array(inverse, dtype=np.int64)


def _matches(p: FloatArray, others: list[FloatArray]) -> FloatArray:
    """Return the costs of the optimal assignments of the skips `p` to each list of `others`."""
    counts = np.array([len(q) for q in others])
    ends = np.cumsum(counts)
    cost = _pair_costs(p, np.concatenate(others))
    assigned = [
        linear_sum_assignment(cost[:, start:end])
        for start, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)
    ]
    matched = np.minimum(counts, len(p))
    which = np.repeat(np.arange(len(others)), matched)
    rows = np.concatenate([row for row, _ in assigned])
    columns = np.concatenate([column for _, column in assigned]) + (ends - counts)[which]
    sums = np.bincount(which, weights=cost[rows, columns], minlength=len(others))
    return np.asarray(sums + np.abs(counts - len(p)))


def _pair_costs(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return the cost of pairing each skip of `p` with each of `q`, ``(len(p), len(q))``."""
    starts, lengths, kinds = (p[:, None, column] for column in range(3))
    difference = np.abs(starts - q[:, 0]) + np.abs(lengths - q[:, 1])
    largest = np.maximum(starts, q[:, 0]) + np.maximum(lengths, q[:, 1])
    cost = difference / np.where(largest > 0, largest, 1.0)
    return np.where(kinds == q[:, 2], cost, 1.0)


def _pad(
    sequences: Sequence[Sequence[Sequence[float]]], width: int
) -> tuple[FloatArray, IntArray]:
    counts = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    padded = np.zeros((len(sequences), int(counts.max(initial=0)), width))
    for row, sequence in zip(padded, sequences, strict=True):
        for entry, item in zip(row, sequence, strict=False):
            entry[: len(item)] = item
    return padded, counts
