# SPDX-License-Identifier: Apache-2.0
"""The optimistic bound that a proposal minimizes.

Notation: ``mu``, ``sigma`` mean and standard deviation of a modelled objective, ``beta`` the
weight of the uncertainty. Every objective is minimized, so that the upper confidence bound of
the papers reads ``mu - beta sigma`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitscout.samplers.gaussian_process import Standardizer
from bitscout.samplers.surrogates import Model, Points, Surrogate

__all__ = ["Acquisition", "ObjectiveModel", "Scalarization"]

FloatArray = NDArray[np.float64]
RowFunction = Callable[[FloatArray], FloatArray]
AUGMENTATION = 0.05  # rho of ParEGO [Knowles2006]


@dataclass(frozen=True)
class ObjectiveModel:
    """One objective: a known part plus a modelled part, each of them optional.

    Attributes:
        known: Maps rows ``(n, D)`` to the part known exactly, to be minimized; `None` for 0.
        model: The model of the standardized rest; `None` where nothing is left to model.
        standardizer: Shift and scale of the rest.
    """

    known: RowFunction | None
    model: Model | None
    standardizer: Standardizer

    def bound(self, points: Points, beta: float) -> tuple[FloatArray, FloatArray]:
        """Return ``known + mu - beta sigma`` in the objective's unit, and the model's deviation.

        The deviation is in standardized units, so that it tells points apart even where all
        observations agree and the scale is 0.
        """
        bound = np.zeros(len(points.rows))
        deviation = np.zeros(len(points.rows))
        if self.model is not None:
            mean, deviation = self.model.predict(points)
            bound = self.standardizer.restore(mean - beta * deviation)
        if self.known is not None:
            bound = bound + self.known(points.rows)
        return bound, deviation

    def with_liars(self, points: Points) -> ObjectiveModel:
        """Return the model that pretends bad results at `points`: ``mu + sigma``, one each.

        The constant liar of KerasTuner: trials that are still running repel the next proposal.
        """
        if self.model is None or not len(points.rows):
            return self
        mean, deviation = self.model.predict(points)
        model = self.model.condition(points, mean + deviation)
        return ObjectiveModel(self.known, model, self.standardizer)

    @classmethod
    def fit(
        cls,
        surrogate: Surrogate | None,
        known: RowFunction | None,
        points: Points,
        values: FloatArray,
        local: NDArray[np.int64],
    ) -> ObjectiveModel:
        """Fit what is not known of one objective.

        Args:
            surrogate: How to model the rest; `None` if `known` is all.
            known: See the class.
            points: All observed points.
            values: The objective there, shape ``(n,)``, to be minimized.
            local: Positions of the observations to model. Shift and scale come from all of
                them, so that a local model falls back to the mean of the whole study.
        """
        if surrogate is None:
            return cls(known, None, Standardizer(0.0, 1.0))
        rest = values if known is None else values - known(points.rows)
        standardizer = Standardizer.of(rest)
        y = standardizer.standardize(rest[local])
        near = Points(points.rows[local], points.unit[local])
        return cls(known, surrogate.fit(near, y), standardizer)


@dataclass(frozen=True)
class Scalarization:
    """The augmented Chebyshev norm of ParEGO, Eq. (2) of [Knowles2006]_, or the identity.

    ``max_i lambda_i f_i + rho sum_i lambda_i f_i``, objectives scaled to ``[0, 1]`` over the
    observations. A single objective is left as it is.

    Attributes:
        weights: ``lambda``, shape ``(n_objectives,)``, summing to 1.
        low: Smallest observed objectives.
        span: Largest minus smallest, 1 where that is 0.

    References:
        .. [Knowles2006] J. Knowles. ParEGO: A Hybrid Algorithm with On-line Landscape
           Approximation for Expensive Multiobjective Optimization Problems. IEEE TEVC 2006.
    """

    weights: FloatArray
    low: FloatArray
    span: FloatArray

    @classmethod
    def draw(cls, values: FloatArray, rng: np.random.Generator) -> Scalarization:
        """Return the scalarization with weights uniform on the simplex.

        Args:
            values: Observed objectives, shape ``(n, n_objectives)`` with ``n >= 1``.
            rng: Where the weights come from.
        """
        n_objectives = values.shape[1]
        low, span = values.min(axis=0), np.ptp(values, axis=0)
        weights = rng.dirichlet(np.ones(n_objectives))
        return cls(weights, low, np.where(span > 0, span, 1.0))

    def __call__(self, values: FloatArray) -> FloatArray:
        """Return the scalar values of objectives of shape ``(n, n_objectives)``."""
        if values.shape[1] == 1:
            return np.asarray(values[:, 0])
        weighted = self.weights * (values - self.low) / self.span
        return np.asarray(weighted.max(axis=1) + AUGMENTATION * weighted.sum(axis=1))


@dataclass(frozen=True)
class Acquisition:
    """Scalarized optimistic bound of all objectives.

    Attributes:
        objectives: One model each.
        scalarization: How bounds become one number.
        beta: Weight of the uncertainty.
    """

    objectives: tuple[ObjectiveModel, ...]
    scalarization: Scalarization
    beta: float

    def values(self, points: Points) -> FloatArray:
        """Return the bound at `points`, shape ``(n,)``; smaller is better."""
        return self._values(points)[0]

    def order(self, points: Points) -> NDArray[np.int64]:
        """Return the positions of `points`, most promising first.

        Ties, as when all observations agree, go to the most uncertain point, then to the first.
        """
        bounds, deviation = self._values(points)
        return np.lexsort((-deviation, bounds))

    def with_liars(self, points: Points) -> Acquisition:
        """Return the acquisition that expects bad results at `points`."""
        objectives: Sequence[ObjectiveModel] = [o.with_liars(points) for o in self.objectives]
        return Acquisition(tuple(objectives), self.scalarization, self.beta)

    def _values(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Return scalarized bounds, and the summed deviations of the models."""
        pairs = [objective.bound(points, self.beta) for objective in self.objectives]
        bounds = self.scalarization(np.stack([bound for bound, _ in pairs], axis=1))
        return bounds, np.asarray(np.sum([deviation for _, deviation in pairs], axis=0))
