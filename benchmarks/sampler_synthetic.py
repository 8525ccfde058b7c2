# SPDX-License-Identifier: Apache-2.0
"""A synthetic score on the space of BOMP-NAS, shared by the sampler benchmarks and tests.

``score(x) = accuracy(x) / 0.8 + 8 / log10(size_bits(x))``: the size is the real one; the accuracy
stands for a training: separable, each choice with a concave utility of its index, the best index
and the weight drawn per seed, and optional Gaussian noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from optuna.distributions import IntDistribution

from bitscout.samplers import SpaceHooks
from bitscout.space import BompSpace


@dataclass(frozen=True)
class SyntheticScore:
    """A separable objective over 49 integer choices, to be maximized.

    Attributes:
        space: Where the sizes come from.
        peaks: Best index of each choice, in ``[0, 1]`` of its range, shape ``(49,)``.
        weights: Importance of each choice, summing to 1.
        noise: Standard deviation of the accuracy's noise.
        with_size: Whether the size term is part of the score.
    """

    space: BompSpace
    peaks: np.ndarray
    weights: np.ndarray
    noise: float
    with_size: bool

    @classmethod
    def draw(cls, seed: int, *, noise: float = 0.0, with_size: bool = False) -> SyntheticScore:
        rng = np.random.default_rng([seed, 49])
        space = BompSpace()
        n = len(space.choices)
        return cls(space, rng.random(n), rng.dirichlet(np.ones(n)), noise, with_size)

    @property
    def distributions(self) -> dict[str, IntDistribution]:
        return {c.name: IntDistribution(0, len(c.values) - 1) for c in self.space.choices}

    def hooks(self, *, known_term: bool) -> SpaceHooks:
        return SpaceHooks(
            search_space=self.distributions,
            canonicalize=self.space.canonical_indices,
            known_term=self.size_term if known_term and self.with_size else None,
        )

    def size_term(self, indices: np.ndarray) -> np.ndarray:
        return 8.0 / np.log10(self.space.size_bits(indices))

    def accuracy(self, indices: np.ndarray) -> np.ndarray:
        last = np.array([len(c.values) - 1 for c in self.space.choices])
        return 1.0 - (indices / last - self.peaks) ** 2 @ self.weights

    def values(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        accuracy = self.accuracy(indices) + self.noise * rng.normal(size=len(indices))
        return accuracy / 0.8 + (self.size_term(indices) if self.with_size else 0.0)

    def random_indices(self, n: int, rng: np.random.Generator) -> np.ndarray:
        columns = [rng.integers(len(c.values), size=n) for c in self.space.choices]
        return self.space.canonical_indices(np.stack(columns, axis=1))
