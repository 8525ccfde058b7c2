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

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bitscout.errors import ConfigError

__all__ = ["Descriptors", "edit_distances", "layer_distances", "skip_distances"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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

    The recurrence ``D[i, j] = min(D[i-1, j-1] + cost, D[i-1, j] + 1, D[i, j-1] + 1)`` runs once,
    each step for all pairs at once. Both sides are sorted by length, so that a step only touches
    the pairs that are long enough. Single precision: an error of at most 1.5e-5 per step at
    100 layers, far below the attributes' steps.
    """
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    order_a, order_b = np.argsort(-a.n_layers, kind="stable"), np.argsort(-b.n_layers)
    tokens_a, kinds_a = _tokens(a, order_a)
    tokens_b, kinds_b = _tokens(b, order_b)
    cost = _substitution_costs(kinds_b, kinds_a)
    sorted_distances = _levenshtein(
        cost, tokens_a, a.n_layers[order_a], tokens_b, b.n_layers[order_b]
    )
    distances = np.empty((len(a), len(b)))
    distances[np.ix_(order_a, order_b)] = sorted_distances.T
    return distances


def skip_distances(a: Descriptors, b: Descriptors) -> FloatArray:
    """Return the skip connections' part of the distance, shape ``(n, m)``.

    Networks that differ in bits and kernels alone have the same skips: each pair of different
    lists is matched once.
    """
    lists_a, inverse_a = _unique_skips(a)
    lists_b, inverse_b = _unique_skips(b)
    table = np.array([[_match(p, q) for q in lists_b] for p in lists_a])
    return table.reshape(len(lists_a), len(lists_b))[np.ix_(inverse_a, inverse_b)]


def _levenshtein(
    cost: NDArray[np.float32],
    tokens_a: IntArray,
    n_a: IntArray,
    tokens_b: IntArray,
    n_b: IntArray,
) -> NDArray[np.float32]:
    """Return the distances, shape ``(m, n)``; both sides sorted by length, longest first."""
    max_a, max_b = int(n_a[0]), int(n_b[0])
    active_a = [int((n_a > i).sum()) for i in range(max_a)] + [0]
    active_b = [int((n_b > j).sum()) for j in range(max_b)] + [0]
    result = np.empty((len(n_b), len(n_a)), dtype=np.float32)
    result[:, n_a == 0] = n_b[:, None]
    result[n_b == 0, :] = n_a[None, :]
    # above[j] is D[i, j], shape (m, n) for all pairs.
    above = [np.full(result.shape, j, dtype=np.float32) for j in range(max_b + 1)]
    for i in range(max_a):
        n = active_a[i]
        ends_a = slice(active_a[i + 1], n)
        row_cost = cost[:, tokens_a[:n, i]]
        left = np.full((len(n_b), n), i + 1, dtype=np.float32)
        diagonal, above[0] = above[0], left
        for j in range(max_b):
            m = active_b[j]
            current = row_cost.take(tokens_b[:m, j], axis=0)
            current += diagonal[:m, :n]
            step = np.minimum(left[:m], above[j + 1][:m, :n])
            step += 1.0
            np.minimum(current, step, out=current)
            diagonal, above[j + 1], left = above[j + 1], current, current
            ends_b = slice(active_b[j + 1], m)
            result[ends_b, ends_a] = current[ends_b, ends_a]
    return result


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


def _unique_skips(batch: Descriptors) -> tuple[list[FloatArray], list[int]]:
    """Return the different lists of skips, each ``(s, 3)``, and which one each network has."""
    numbers: dict[bytes, int] = {}
    lists: list[FloatArray] = []
    inverse = []
    for skips, count in zip(np.asarray(batch.skips, dtype=float), batch.n_skips, strict=True):
        own = skips[:count] + 0.0
        number = numbers.setdefault(own.tobytes(), len(lists))
        if number == len(lists):
            lists.append(own)
        inverse.append(number)
    return lists, inverse


def _match(p: FloatArray, q: FloatArray) -> float:
    """Return the cost of the optimal assignment of two lists of skips."""
    left_over = float(abs(len(p) - len(q)))
    if not len(p) or not len(q) or (p.shape == q.shape and bool((p == q).all())):
        return left_over
    difference = np.abs(p[:, None, :2] - q[None, :, :2]).sum(axis=2)
    largest = np.maximum(p[:, None, :2], q[None, :, :2]).sum(axis=2)
    cost = difference / np.where(largest > 0, largest, 1.0)
    cost[p[:, None, 2] != q[None, :, 2]] = 1.0
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].sum()) + left_over


def _pad(
    sequences: Sequence[Sequence[Sequence[float]]], width: int
) -> tuple[FloatArray, IntArray]:
    counts = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    padded = np.zeros((len(sequences), int(counts.max(initial=0)), width))
    for row, sequence in zip(padded, sequences, strict=True):
        for entry, item in zip(row, sequence, strict=False):
            entry[: len(item)] = item
    return padded, counts
