# SPDX-License-Identifier: Apache-2.0
"""Other people's samplers, made to forget their random state between trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bitscout.core import child_seed
from bitscout.errors import ConfigError
from bitscout.samplers.random_sampler import root_seed

__all__ = ["OPTUNA_SAMPLERS", "PerTrialSampler", "optuna_sampler"]

# Samplers kept for trials in flight; far more than anyone evaluates at a time.
MAX_IN_FLIGHT = 1024

SamplerFactory = Callable[[int], BaseSampler]

# 20 a generation: 5 generations in the 100 trials of a study, against 2 with Optuna's default.
OPTUNA_SAMPLERS: dict[str, SamplerFactory] = {
    "gp": lambda seed: GPSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda seed: _nsga3(seed),
    "optuna-random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
}


def _nsga3(seed: int) -> NSGAIIISampler:
    with warnings.catch_warnings():
        # It is built once a trial: Optuna's notice that it is experimental would flood the log.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(seed=seed, population_size=20)


def optuna_sampler(name: str, seed: int | None = None) -> PerTrialSampler:
    """Return the Optuna sampler called `name`, re-seeded for each trial.

    Args:
        name: A key of `OPTUNA_SAMPLERS`.
        seed: Root of all random draws, >= 0; `None` draws one.

    Raises:
        ConfigError: If there is no such sampler.
    """
    if name not in OPTUNA_SAMPLERS:
        msg = f"No sampler is called {name!r}; choose one of {', '.join(OPTUNA_SAMPLERS)}."
        raise ConfigError(msg)
    return PerTrialSampler(OPTUNA_SAMPLERS[name], seed)


class PerTrialSampler(BaseSampler):
    """Build a fresh inner sampler for every trial, seeded by the trial's number.

    A study that is interrupted and resumed then proposes what the uninterrupted one would have,
    provided that the inner sampler depends on its seed and the study alone. Parameters that are
    sampled independently get a sampler each, so that not even their order matters.

    Quasi-random sequences lose their evenness by this if each trial scrambles anew: build a
    `QMCSampler` with ``scramble=False``.

    Args:
        factory: Maps a seed in ``[0, 2**32)`` to a sampler.
        seed: Root of all random draws, >= 0; `None` draws one.

    Example:
        >>> import optuna
        >>> sampler = PerTrialSampler(lambda seed: optuna.samplers.TPESampler(seed=seed), seed=0)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
    """

    def __init__(self, factory: SamplerFactory, seed: int | None = None) -> None:
        self._factory = factory
        self._seed = root_seed(seed)
        self._in_flight: dict[int, BaseSampler] = {}

    def reseed_rng(self) -> None:
        """Do nothing: trials differ by their numbers, in whichever process they run."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Start the trial's sampler afresh, also where the number was seen in another study."""
        self._in_flight.pop(trial.number, None)
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Pass on to the trial's sampler."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Pass on to the trial's sampler."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # Optuna's signature
        """Pass on to a sampler of this trial and parameter alone."""
        inner = self._build("independent", trial.number, param_name)
        return inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on to the trial's sampler and drop it."""
        self._of(trial).after_trial(study, trial, state, values)
        self._in_flight.pop(trial.number, None)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        """Return the trial's sampler, the same one from inferring its space to its end."""
        if trial.number not in self._in_flight:
            while len(self._in_flight) >= MAX_IN_FLIGHT:
                self._in_flight.pop(next(iter(self._in_flight)), None)
            self._in_flight[trial.number] = self._build("sampler", trial.number)
        return self._in_flight[trial.number]

    def _build(self, *path: str | int) -> BaseSampler:
        # Optuna seeds NumPy's RandomState, which takes 32 bits.
        return self._factory(child_seed(self._seed, *path) % 2**32)
