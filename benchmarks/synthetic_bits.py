# SPDX-License-Identifier: Apache-2.0
"""A synthetic mixed-precision objective: 10 layers of {2, 3, 4, 6, 8} bits at 3.5 on average.

``accuracy - max(0, size / budget - 1)``, the penalized objective of k-means TPE. The accuracy
falls exponentially with the sum of the layers' quantization errors, ``sensitivity 4^-bits``, and
of weaker interactions of their roots; sensitivities are log-normal and drawn by seed. Layer sizes
are those of a small ResNet. Values are regrets: 0 is the best point that exchanges find.
"""

from __future__ import annotations

import numpy as np
from classic_tasks import Task
from optuna.distributions import IntDistribution

BITS = np.array([2, 3, 4, 6, 8])
SIZES = np.array([432, 2304, 2304, 4608, 9216, 9216, 18432, 36864, 512, 640])
BUDGET_BITS = 3.5
SPACE = {f"layer{i}": IntDistribution(0, len(BITS) - 1) for i in range(len(SIZES))}
N_DESCENTS = 12


class SyntheticBits:
    """The objective of one seed, on index arrays ``(n, 10)``."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 7])
        self._sensitivities = 1.5 * np.exp(1.2 * rng.normal(size=len(SIZES)))
        self._interactions = 0.1 * rng.normal(size=(len(SIZES), len(SIZES)))
        self._best = max(self._descend(rng) for _ in range(N_DESCENTS))

    def task(self) -> Task:
        return Task("bits", SPACE, self.regret, n_startup=40, n_trials=160)

    def regret(self, point: dict) -> float:
        """Return how far below the optimum a point is, <= 0 up to what descents missed."""
        return float(self.values(np.array([[point[name] for name in SPACE]]))[0] - self._best)

    def values(self, indices: np.ndarray) -> np.ndarray:
        """Return the penalized accuracies of rows of indices, shape ``(n,)``."""
        bits = BITS[indices]
        errors = self._sensitivities * 4.0 ** (1.2 - bits)
        roots = np.sqrt(errors)
        loss = errors.sum(axis=1) + np.einsum("ni,ij,nj->n", roots, self._interactions, roots)
        accuracy = 0.1 + 0.67 * np.exp(-np.maximum(loss, 0.0))
        return accuracy - np.maximum(0.0, bits @ SIZES / SIZES.sum() / BUDGET_BITS - 1.0)

    def _descend(self, rng: np.random.Generator) -> float:
        """Return the value no change of one layer and no exchange of steps of two improves."""
        here = rng.integers(0, len(BITS), len(SIZES))
        while True:
            around = np.concatenate((here[None], _neighbours(here)))
            values = self.values(around)
            best = int(np.argmax(values))
            if best == 0:
                return float(values[0])
            here = around[best]


def _neighbours(here: np.ndarray) -> np.ndarray:
    rows = []
    for i in range(len(here)):
        for value in range(len(BITS)):
            rows.append(here.copy())
            rows[-1][i] = value
        for j in range(i):
            for steps in ((-1, 1), (1, -1), (1, 1), (-1, -1)):
                rows.append(here.copy())
                rows[-1][[i, j]] += steps
    moved = np.array(rows)
    inside = ((moved >= 0) & (moved < len(BITS))).all(axis=1)
    return moved[inside & (moved != here).any(axis=1)]
