# SPDX-License-Identifier: Apache-2.0
"""What a search space and an objective tell a sampler.

Samplers know nothing of networks: they get index arrays and plain callables on them. Here the two
meet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import IntDistribution

from bitscout.core import BompScore, Budget, LayerGraph, Objective
from bitscout.samplers import Descriptors, SpaceHooks
from bitscout.space import SearchSpace

__all__ = ["NetworkDescriber", "space_hooks"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_Tuples = list[tuple[int, ...]]
# Kinds of layers and skips in an edit distance; any different numbers would do.
CONV, DEPTHWISE, LINEAR = 0, 1, 2
ADD = 0
CACHED_NETWORKS = 20_000  # Some kB each; a search of 10,000 trials meets its incumbents again.


def space_hooks(space: SearchSpace, objective: Objective, budget: Budget) -> SpaceHooks:
    """Return everything a sampler may know about `space` without training.

    Args:
        space: Choices and their canonical form.
        objective: The score's size term, or the size among several objectives, is known exactly.
        budget: A bound on the size marks the points worth proposing.
    """
    known_term: Callable[[IndexArray], FloatArray] | None = None
    known_objectives: dict[int, Callable[[IndexArray], FloatArray]] = {}
    if isinstance(objective, BompScore):
        known_term = _size_term(space, objective)
    else:
        sizes = {"size_bytes": space.size_bits, "weight_bytes": space.weight_bits}
        for position, metric in enumerate(objective.metrics):
            if metric in sizes:
                known_objectives[position] = _in_bytes(sizes[metric])
    return SpaceHooks(
        search_space={
            choice.name: IntDistribution(0, len(choice.values) - 1) for choice in space.choices
        },
        canonicalize=space.canonical_indices,
        is_feasible=_fits(space, budget.size_kb),
        known_term=known_term,
        known_objectives=known_objectives,
    )


class NetworkDescriber:
    """Describe networks for the edit distance: layers with their bits, and residual additions.

    A layer is (kind, output channels, kernel, stride, weight bits), after AutoKeras with the bits
    as fourth attribute; a skip is (layer it starts after, layers it spans, kind).

    Args:
        space: Where the points come from.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._one = lru_cache(maxsize=CACHED_NETWORKS)(self._describe_one)

    def __call__(self, indices: IndexArray) -> Descriptors:
        """Return the networks at `indices`, shape ``(n, D)``."""
        described = [self._one(tuple(row)) for row in np.asarray(indices).tolist()]
        return Descriptors.from_sequences(
            [layers for layers, _ in described], [skips for _, skips in described]
        )

    def _describe_one(self, row: tuple[int, ...]) -> tuple[_Tuples, _Tuples]:
        values = self._space.decode(list(row))
        graph, policy = self._space.layers(values), self._space.policy(values)
        layers: _Tuples = [
            (
                DEPTHWISE if layer.is_depthwise else CONV if layer.kind == "conv" else LINEAR,
                layer.out_channels,
                layer.kernel[0],
                layer.stride[0],
                policy[layer.name].weight_bits,
            )
            for layer in graph
        ]
        return layers, _skips(graph)


def _skips(graph: LayerGraph) -> _Tuples:
    """Return one (start, length, kind) per addition, counted in layers from the input."""
    depth: dict[str, int] = {}
    skips: _Tuples = []
    n_layers = 0
    for node in graph.nodes:
        before = [depth[name] for name in node.inputs]
        if node.op in ("conv", "linear"):
            n_layers += 1
            depth[node.name] = n_layers
        else:
            depth[node.name] = max(before, default=0)
        if node.op == "add":
            skips.append((min(before), max(before) - min(before), ADD))
    return skips


def _size_term(space: SearchSpace, objective: BompScore) -> Callable[[IndexArray], FloatArray]:
    def known_term(indices: IndexArray) -> FloatArray:
        term: FloatArray = objective.ref_size / np.log10(space.size_bits(indices))
        return term

    return known_term


def _in_bytes(
    bits: Callable[[IndexArray], IndexArray],
) -> Callable[[IndexArray], FloatArray]:
    return lambda indices: bits(indices) / 8


def _fits(
    space: SearchSpace, size_kb: float | None
) -> Callable[[IndexArray], NDArray[np.bool_]] | None:
    if size_kb is None:
        return None
    bound = size_kb * 8000
    return lambda indices: space.size_bits(indices) <= bound
