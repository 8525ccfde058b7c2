# SPDX-License-Identifier: Apache-2.0
"""What a search space may tell a sampler, as plain callables on index arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from bitscout.errors import ConfigError
from bitscout.samplers.encoding import Encoding

__all__ = ["FloatArray", "IndexArray", "SpaceHooks"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SpaceHooks:
    """Optional knowledge about a search space, in which every choice is discrete.

    Every callable takes an index array of shape ``(n, D)``: column ``d`` holds the position of
    the value within the ``d``-th distribution of `search_space` (``low`` is 0). All of them must
    be pure and work on whole batches: a proposal evaluates some thousands of rows.

    Attributes:
        search_space: Distributions by name, in the order of the columns. Given, the space is
            known from the first trial on and even the first batch is free of duplicates; needed
            by every other attribute. Without it the sampler uses the intersection of the
            finished trials' spaces, as Optuna's own samplers do.
        canonicalize: Sets choices without effect to their defaults, shape ``(n, D)`` to
            ``(n, D)``; idempotent. Equal networks then have equal rows.
        violation: How far each row is over its budget, shape ``(n,)``: feasible if and only if
            <= 0, smaller is nearer. Only feasible rows are worth proposing; the others are
            proposed only where nothing feasible is found.
        known_term: The summand of the one objective that needs no evaluation, shape ``(n,)``, in
            the objective's unit and direction. The surrogate models the rest alone.
        known_objectives: For studies with several objectives, by position: objectives that are
            known exactly without evaluation, in their own unit and direction.

    Raises:
        ConfigError: If a callable is given without `search_space`, or a choice is continuous.
    """

    search_space: Mapping[str, BaseDistribution] | None = None
    canonicalize: Callable[[IndexArray], IndexArray] | None = None
    violation: Callable[[IndexArray], FloatArray] | None = None
    known_term: Callable[[IndexArray], FloatArray] | None = None
    known_objectives: Mapping[int, Callable[[IndexArray], FloatArray]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Reject callables whose columns would have no meaning."""
        if not self.has_callables:
            return
        if self.search_space is None:
            msg = (
                "Hooks on index arrays need `search_space`, which gives the order of the columns; "
                "got None. Pass the distributions by name."
            )
            raise ConfigError(msg)
        continuous = Encoding.of(self.search_space).continuous_names
        if continuous:
            msg = (
                f"Hooks work on indices, but {', '.join(continuous)} have no index. "
                "Give these choices a `step`, or drop the hooks."
            )
            raise ConfigError(msg)

    @property
    def has_callables(self) -> bool:
        """Whether anything but the space is given."""
        given = (self.canonicalize, self.violation, self.known_term)
        return bool(self.known_objectives) or any(hook is not None for hook in given)

    def check_covers(self, names: tuple[str, ...]) -> None:
        """Check that rows with columns `names` are what the callables expect.

        Raises:
            ConfigError: If the columns differ, for instance under `PartialFixedSampler`.
        """
        if self.has_callables and names != tuple(self.search_space or ()):
            msg = (
                f"The hooks describe the choices {tuple(self.search_space or ())}, but the study "
                f"samples {names}. Fix choices in the search space, not with a wrapping sampler."
            )
            raise ConfigError(msg)
