# SPDX-License-Identifier: Apache-2.0
"""Random search without repetitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial

from bitscout.core import child_rng, child_seed
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.encoding import Encoding
from bitscout.samplers.history import History
from bitscout.samplers.hooks import SpaceHooks

__all__ = ["RandomSearchSampler", "random_value", "root_seed"]


class RandomSearchSampler(BaseSampler):
    """Draw uniformly, rejecting what the study has seen: finished, failed or pending.

    The baseline of every search: same space, same canonical form, no duplicates. Pure in the
    same sense as `GaussianProcessSampler`.

    Args:
        seed: Root of all random draws, >= 0; `None` draws one.
        hooks: What is known about the space; the known values are of no use here.
    """

    def __init__(self, *, seed: int | None = None, hooks: SpaceHooks | None = None) -> None:
        self._seed = root_seed(seed)
        self._hooks = SpaceHooks() if hooks is None else hooks
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
        """Return a random point that is new to the study."""
        if not search_space:
            return {}
        space = DesignSpace.of(search_space, self._hooks)
        history = History.read(study, trial, space)
        rng = child_rng(self._seed, "sampler", trial.number)
        return space.encoding.decode(space.random_row(rng, history.taken))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # Optuna's signature
        """Return a uniformly random value."""
        return random_value(self._seed, trial, param_name, param_distribution)


def root_seed(seed: int | None) -> int:
    """Return `seed`, checked, or a fresh one.

    Raises:
        ConfigError: If `seed` is negative.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    child_seed(seed)
    return seed


def random_value(seed: int, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401  # Optuna's parameters are any
    """Return a uniformly random value that depends on the seed, the trial and the name alone."""
    encoding = Encoding.of({name: distribution})
    rng = child_rng(seed, "independent", trial.number, name)
    return encoding.decode(encoding.random_rows(rng, 1)[0])[name]
