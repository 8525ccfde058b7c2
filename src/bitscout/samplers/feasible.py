# SPDX-License-Identifier: Apache-2.0
"""Any sampler, kept within a budget that is known before evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bitscout.core import child_rng
from bitscout.errors import ConfigError
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.history import History
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.random_sampler import random_value, root_seed

__all__ = ["FeasibleSampler"]


class FeasibleSampler(BaseSampler):
    """Repair what another sampler proposes where it is over budget.

    The inner sampler proposes a whole point, parameters it samples independently included. If
    the point is over budget, choices are redrawn one at a time, always towards the budget, until
    it is within; where that fails, a random feasible point is taken. The inner sampler is told
    what was evaluated, not what it proposed, as in a Lamarckian evolutionary algorithm.

    Pure in the same sense as `GaussianProcessSampler` if the inner sampler is.

    Args:
        inner: What proposes.
        hooks: What is known about the space; `violation` and `search_space` must be given.
        seed: Root of the draws of repairs, >= 0; `None` draws one.

    Raises:
        ConfigError: If `hooks` have no `violation`.
    """

    def __init__(self, inner: BaseSampler, hooks: SpaceHooks, *, seed: int | None = None) -> None:
        if hooks.violation is None or hooks.search_space is None:
            msg = "`FeasibleSampler` needs hooks with `violation`, the distance to the budget."
            raise ConfigError(msg)
        self._inner = inner
        self._hooks = hooks
        self._search_space = dict(hooks.search_space)
        self._seed = root_seed(seed)

    def reseed_rng(self) -> None:
        """Pass on to the inner sampler."""
        self._inner.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to the inner sampler."""
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the hooks' search space: the whole point is proposed at once."""
        return dict(self._search_space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the inner sampler's proposal, or a feasible point near it."""
        proposed = self._propose(study, trial)
        space = DesignSpace.of(search_space, self._hooks)
        row = space.encoding.encode([[proposed[name] for name in search_space]])
        if space.violation(space.canonical(row))[0] <= 0:
            return proposed
        history = History.read(study, trial, space)
        rng = child_rng(self._seed, "repair", trial.number)
        return space.encoding.decode(space.repair(row[0], rng, history.taken))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # Optuna's signature
        """Return a uniformly random value; for parameters the hooks do not know."""
        return random_value(self._seed, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on to the inner sampler."""
        self._inner.after_trial(study, trial, state, values)

    def _propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        inner_space = self._inner.infer_relative_search_space(study, trial)
        relative = self._inner.sample_relative(study, trial, inner_space)
        return {
            name: relative[name]
            if name in relative
            else self._inner.sample_independent(study, trial, name, distribution)
            for name, distribution in self._search_space.items()
        }
