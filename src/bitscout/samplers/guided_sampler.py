# SPDX-License-Identifier: Apache-2.0
"""The searcher of given networks: it starts from what the sensitivity of the layers suggests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from bitscout.errors import ConfigError
from bitscout.samplers.design_space import DesignSpace
from bitscout.samplers.exchange import ExchangeProposal, least_expected
from bitscout.samplers.gp_sampler import GaussianProcessSampler
from bitscout.samplers.history import History
from bitscout.samplers.hooks import FloatArray, IndexArray, SpaceHooks
from bitscout.samplers.prior_surrogate import GAMMAS, PriorSurrogate
from bitscout.samplers.proposal import Proposal, is_listed
from bitscout.samplers.random_sampler import root_seed

__all__ = ["GuidedSampler"]

Prior = Sequence[ArrayLike | None] | Callable[[IndexArray], FloatArray]


class GuidedSampler(BaseSampler):
    """Propose given starting points, then exchanges a model with expected losses believes in.

    Made for the bit-widths and widths of a trained network under a budget. The starting points
    are, for instance, the solutions of the integer program that minimizes the expected losses,
    first within the whole budget and then within less. After the first of them come the rows
    that would be best if a power of the expected loss counted, its square or its root: accuracy
    is hardly moved by small losses, and falls by less than they say for large ones. From there on
    a Gaussian process, whose mean is in proportion to such a power and whose uncertainty is too,
    learns how far the losses can be trusted, layer by layer and value by value (`prior_process`),
    and its optimistic bound is searched among exchanges between choices at equal cost
    (`ExchangeProposal`).

    Nothing that was evaluated or is pending is proposed until the space is used up, and nothing
    over the budget unless there is nothing else. Pure in the same sense as
    `GaussianProcessSampler`, by which the model's proposals are made: with several objectives
    each trial minimizes a random scalarization, and the expected losses are taken to speak of
    every objective that `SpaceHooks.known_objectives` leaves open.

    Args:
        prior: Expected increase of the loss, in any unit: for each choice of
            `SpaceHooks.search_space` an array with one number a value, or `None` for a choice
            that nothing is known of (a width); or a function of index arrays ``(n, D)`` to
            ``(n,)``, which is read off one choice at a time around the first starting point, or
            the middle of the space. Choices whose values it does not tell apart count as
            unknown. `None` if nothing is known at all.
        starts: Index rows, shape ``(s, D)``, in the order they are proposed in; those over the
            budget are left out. Without any, the first trial is random.
        unknown: Names of choices that `prior` speaks of but nothing is known of: quantization
            errors do not tell what a narrower layer loses.
        n_startup_trials: Complete trials before the model is used; below that, and after the
            starting points, uniformly random points without repetition. At least one.
        beta: Weight of the uncertainty, >= 0.
        seed: Root of all random draws, >= 0; `None` draws one.
        hooks: What is known about the space; `search_space` is needed by `prior` and `starts`.
        proposal: How the model's bound is searched.

    Raises:
        ConfigError: If prior or starts do not fit the space, or a number is out of range.

    Example:
        >>> import optuna
        >>> from optuna.distributions import IntDistribution
        >>> bits = {f"layer{d}": IntDistribution(0, 4) for d in range(8)}
        >>> hooks = SpaceHooks(search_space=bits, violation=lambda rows: rows.sum(axis=1) - 16.0)
        >>> losses = [np.array([9, 4, 2, 1, 0]) * d for d in range(8)]
        >>> sampler = GuidedSampler(losses, [[0, 0, 1, 2, 2, 3, 4, 4]], seed=0, hooks=hooks)
        >>> list(optuna.create_study(sampler=sampler).ask(bits).params.values())
        [0, 0, 1, 2, 2, 3, 4, 4]
    """

    def __init__(  # noqa: PLR0913  # What is known, and how it is used.
        self,
        prior: Prior | None = None,
        starts: Sequence[Sequence[int]] | IndexArray = (),
        *,
        unknown: Collection[str] = (),
        n_startup_trials: int = 1,
        beta: float = 2.0,
        seed: int | None = None,
        hooks: SpaceHooks | None = None,
        proposal: Proposal | None = None,
    ) -> None:
        hooks = SpaceHooks() if hooks is None else hooks
        self._hooks = hooks
        self._starts = np.empty((0, 0))
        losses = None
        if prior is not None or len(starts):
            space = _listed_space(hooks)
            self._starts = _checked_starts(starts, space)
            if prior is not None:
                losses = _tables(prior, self._starts, space, frozenset(unknown))
                self._starts = _with_other_powers(self._starts, losses, space)
        self._model = GaussianProcessSampler(
            PriorSurrogate(losses),
            n_startup_trials=n_startup_trials,
            beta=beta,
            seed=root_seed(seed),
            hooks=hooks,
            proposal=ExchangeProposal() if proposal is None else proposal,
        )

    def reseed_rng(self) -> None:
        """Do nothing: trials differ by their numbers, in whichever process they run."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the hooks' search space, or what all finished trials have in common."""
        return self._model.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next starting point, or the model's proposal."""
        if search_space and len(self._starts):
            space = DesignSpace.of(search_space, self._hooks)
            free = space.feasible(
                space.distinct(self._starts, History.read(study, trial, space).taken)
            )
            if len(free):
                return space.encoding.decode(free[0])
        return self._model.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # Optuna's signature
        """Return a uniformly random value."""
        return self._model.sample_independent(study, trial, param_name, param_distribution)


def _listed_space(hooks: SpaceHooks) -> DesignSpace:
    if hooks.search_space is None:
        msg = (
            "`prior` and `starts` describe choices by position and value, so `hooks` must have "
            "`search_space`; got None. Pass the distributions by name."
        )
        raise ConfigError(msg)
    space = DesignSpace.of(hooks.search_space, hooks)
    if space.encoding.continuous_names:
        msg = (
            f"`prior` and `starts` are indices, but {', '.join(space.encoding.continuous_names)} "
            "have none. Give these choices a `step`."
        )
        raise ConfigError(msg)
    return space


def _checked_starts(
    starts: Sequence[Sequence[int]] | IndexArray, space: DesignSpace
) -> FloatArray:
    n_values = space.encoding.n_values
    if not len(starts):
        return np.empty((0, len(n_values)))
    lengths = {len(row) for row in starts}
    rows = np.array(starts, dtype=float) if lengths == {len(n_values)} else None
    if rows is None or ((rows < 0) | (rows >= n_values) | (rows != np.rint(rows))).any():
        msg = (
            f"`starts` must be rows of {len(n_values)} indices below {n_values.tolist()}, "
            f"got {[list(row) for row in starts]}."
        )
        raise ConfigError(msg)
    return rows


def _tables(
    prior: Prior, starts: FloatArray, space: DesignSpace, unknown: frozenset[str]
) -> list[FloatArray | None]:
    """Return the expected losses of the values of each choice, `None` where they agree."""
    n_values, names = space.encoding.n_values, space.encoding.names
    if strangers := sorted(unknown - set(names)):
        msg = f"`unknown` must name choices of the space, {', '.join(names)}; got {strangers}."
        raise ConfigError(msg)
    if callable(prior):
        centre = (starts[0] if len(starts) else n_values // 2).astype(np.int64)
        given: Sequence[ArrayLike | None] = [
            _read_off(prior, centre, d, int(n)) for d, n in enumerate(n_values)
        ]
    else:
        given = prior
    tables = [None if losses is None else np.array(losses, dtype=float) for losses in given]
    found = [None if table is None else table.shape for table in tables]
    wanted = [None if shape is None else (n,) for shape, n in zip(found, n_values, strict=False)]
    if len(found) != len(n_values) or found != wanted:
        msg = (
            f"`prior` must have one number for each value of each choice, {n_values.tolist()} of "
            f"them, or `None`; got arrays of shapes {found}."
        )
        raise ConfigError(msg)
    return [
        None if table is None or name in unknown or np.ptp(table) == 0 else table
        for name, table in zip(names, tables, strict=True)
    ]


def _with_other_powers(
    starts: FloatArray, losses: Sequence[FloatArray | None], space: DesignSpace
) -> FloatArray:
    """Return `starts` with, after the first, the best rows if losses count by other powers.

    Found by exchanges, so nearly the best. The integer program weighs losses as they are; the
    powers that the model thinks possible spare either the choices that can lose most or those
    that lose least. Nothing is added where there is no budget, no start within it, or a choice
    with too many values.
    """
    within = space.feasible(space.canonical(starts))
    known = any(table is not None for table in losses)
    if space.hooks.violation is None or not len(within) or not known or not is_listed(space).all():
        return starts
    table = np.zeros((len(losses), int(space.encoding.n_values.max())))
    for row, given in zip(table, losses, strict=True):
        if given is not None:
            row[: len(given)] = given - given.min()
    table /= table.max()
    others = [least_expected(space, table**g, within[0]) for g in sorted(GAMMAS)[::-1] if g != 1]
    return np.concatenate((within[:1], *(row[None] for row in others), within[1:]))


def _read_off(
    prior: Callable[[IndexArray], FloatArray], centre: IndexArray, d: int, n: int
) -> FloatArray:
    """Return `prior` for each value of choice `d`, the others as in `centre`; shape ``(n,)``."""
    rows = np.repeat(centre[None], n, axis=0)
    rows[:, d] = np.arange(n)
    return np.asarray(prior(rows), dtype=float)
