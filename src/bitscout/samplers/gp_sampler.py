# SPDX-License-Identifier: Apache-2.0
"""The Gaussian-process sampler of BOMP-NAS as an Optuna sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from bitscout.core import child_rng
from bitscout.errors import ConfigError
from bitscout.samplers.acquisition import Acquisition, ObjectiveModel, RowFunction, Scalarization
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.history import History
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.proposal import PoolProposal, Proposal, Question
from bitscout.samplers.random_sampler import random_value, root_seed
from bitscout.samplers.surrogates import Surrogate, check_positive
from bitscout.samplers.vector_surrogates import PaperSurrogate

__all__ = ["GaussianProcessSampler"]

FloatArray = NDArray[np.float64]


class GaussianProcessSampler(BaseSampler):
    """Propose the point with the best upper confidence bound that was not evaluated yet.

    Works on any space Optuna can express. Choices that all finished trials share are modelled
    together; the others (conditional ones, changing ranges) are drawn at random.

    A proposal is a pure function of the seed, the trial's number, the finished trials and the
    pending ones (running or enqueued): nothing is carried from one call to the next, so a
    resumed study goes on as the uninterrupted one would have. Failed and pruned trials teach
    the model nothing but are not proposed again. A space that is used up starts to repeat its
    best points. With several objectives each trial minimizes a random Chebyshev scalarization
    (ParEGO). A study longer than the surrogate's ``max_observations`` is modelled locally: by
    the best half of that number and the observations nearest to the best one.

    Args:
        surrogate: How an objective is modelled.
        n_startup_trials: Complete trials before the model is used; until then, uniformly random
            points without repetition. 10 includes the seed network, which whoever runs the
            study enqueues. The library behind the paper would have taken three times the number
            of choices, more than the paper's trials in all.
        beta: Weight of the uncertainty, KerasTuner's 2.6 by default; >= 0.
        seed: Root of all random draws, >= 0; `None` draws one.
        hooks: What is known about the space.
        proposal: How the acquisition is searched.

    Raises:
        ConfigError: If a number is out of range.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=GaussianProcessSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=15)
        >>> study.best_value < 0.01
        True
    """

    def __init__(
        self,
        surrogate: Surrogate | None = None,
        *,
        n_startup_trials: int = 10,
        beta: float = 2.6,
        seed: int | None = None,
        hooks: SpaceHooks | None = None,
        proposal: Proposal | None = None,
    ) -> None:
        if n_startup_trials < 0 or not beta >= 0:
            msg = f"`n_startup_trials` and `beta` must be >= 0, got {n_startup_trials} and {beta}."
            raise ConfigError(msg)
        self._surrogate = PaperSurrogate() if surrogate is None else surrogate
        check_positive("max_observations", self._surrogate.max_observations)
        self._n_startup_trials = n_startup_trials
        self._beta = beta
        self._seed = root_seed(seed)
        self._hooks = SpaceHooks() if hooks is None else hooks
        self._proposal = PoolProposal() if proposal is None else proposal
        self._intersection = IntersectionSearchSpace()

    def reseed_rng(self) -> None:
        """Do nothing: trials differ by their numbers, in whichever process they run."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the hooks' search space, or what all finished trials have in common."""
        if self._hooks.search_space is not None:
            return dict(self._hooks.search_space)
        return self._intersection.calculate(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the proposal for `trial`."""
        if not search_space:
            return {}
        space = DesignSpace.of(search_space, self._hooks)
        history = History.read(study, trial, space)
        rng = child_rng(self._seed, "sampler", trial.number)
        if len(history.rows) < max(self._n_startup_trials, 1):
            row = space.random_row(rng, history.taken)
        else:
            question = self._question(study.directions, space, history, rng)
            row = self._proposal.propose(question)
        return space.encoding.decode(row)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # Optuna's signature
        """Return a uniformly random value."""
        return random_value(self._seed, trial, param_name, param_distribution)

    def _question(
        self,
        directions: list[StudyDirection],
        space: DesignSpace,
        history: History,
        rng: np.random.Generator,
    ) -> Question:
        scalarization = Scalarization.draw(history.values, rng)
        ranking = np.argsort(scalarization(history.values), kind="stable")
        known = self._known_parts(directions)

        def acquisition(surrogate: Surrogate) -> Acquisition:
            points = space.points(history.rows)
            local = _local_subset(points.unit, ranking, surrogate.max_observations)
            objectives = tuple(
                ObjectiveModel.fit(
                    None if i in self._hooks.known_objectives else surrogate,
                    known.get(i),
                    points,
                    history.values[:, i],
                    local,
                )
                for i in range(len(directions))
            )
            fitted = Acquisition(objectives, scalarization, self._beta)
            return fitted.with_liars(space.points(history.pending))

        screening = None
        if (screen := self._surrogate.screening) is not None:
            screening = (acquisition(screen.surrogate), screen.n_kept)
        return Question(
            space,
            acquisition(self._surrogate),
            screening,
            history.rows[ranking],
            history.taken,
            rng,
        )

    def _known_parts(self, directions: list[StudyDirection]) -> dict[int, RowFunction]:
        """Return what is known of each objective, as functions of rows to be minimized."""
        hooks = dict(self._hooks.known_objectives)
        unknown = [i for i in hooks if not 0 <= i < len(directions)]
        if unknown or (self._hooks.known_term is not None and len(directions) > 1):
            msg = (
                f"The study has {len(directions)} objectives; `known_objectives` names {unknown} "
                "beyond them or `known_term`, which needs a single objective, is given."
            )
            raise ConfigError(msg)
        if self._hooks.known_term is not None:
            hooks[0] = self._hooks.known_term

        def minimized(i: int) -> RowFunction:
            sign = -1.0 if directions[i] == StudyDirection.MAXIMIZE else 1.0
            return lambda rows: sign * np.asarray(hooks[i](rows.astype(np.int64)), dtype=float)

        return {i: minimized(i) for i in hooks}


def _local_subset(unit: FloatArray, ranking: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return positions of at most `limit` observations: the best half, then those near the best.

    Args:
        unit: Observed unit coordinates, ``(n, D)``.
        ranking: Positions, best first.
        limit: Number of observations a model takes.
    """
    if len(unit) <= limit:
        return np.arange(len(unit))
    chosen = np.zeros(len(unit), dtype=bool)
    chosen[ranking[: (limit + 1) // 2]] = True
    distances = ((unit - unit[ranking[0]]) ** 2).sum(axis=1)
    distances[chosen] = np.inf
    nearest = np.argsort(distances, kind="stable")
    chosen[nearest[: limit - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)
