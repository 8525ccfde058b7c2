# SPDX-License-Identifier: Apache-2.0
"""What a study knows at the moment a trial asks, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bitscout.samplers.design_space import DesignSpace

__all__ = ["History"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """The trials of a study other than the asking one.

    Attributes:
        rows: Canonical rows of the complete trials, ``(n, D)``, in the order of their numbers.
        values: Their objectives, all to be minimized and finite, ``(n, n_objectives)``.
        pending: Canonical rows of running and enqueued trials, ``(p, D)``.
        lost: Canonical rows of failed and pruned trials, ``(f, D)``.
        taken: Keys (`DesignSpace.keys`) of all rows that must not be proposed again: complete,
            pending, failed and pruned.
    """

    rows: FloatArray
    values: FloatArray
    pending: FloatArray
    lost: FloatArray
    taken: frozenset[bytes]

    @classmethod
    def read(cls, study: Study, trial: FrozenTrial, space: DesignSpace) -> History:
        """Read `study` as it is now, without `trial` itself.

        Trials that lack a choice of `space`, or have a value outside it, are left out. O(n D),
        vectorized over the trials; nothing is kept between calls.
        """
        complete: list[FrozenTrial] = []
        pending: list[FrozenTrial] = []
        other: list[FrozenTrial] = []
        for t in study.get_trials(deepcopy=False):
            if t.number == trial.number:
                continue
            if t.state == TrialState.COMPLETE:
                complete.append(t)
            else:
                (other if t.state.is_finished() else pending).append(t)
        rows, known = _rows([t.params for t in complete], space)
        values = np.array([t.values for t in complete], dtype=float)
        values = values.reshape(len(complete), len(study.directions))[known]
        pending_rows, _ = _rows([_parameters(t) for t in pending], space)
        other_rows, _ = _rows([t.params for t in other], space)
        taken = np.concatenate((rows, pending_rows, other_rows))
        # Optuna maximizes on request; from here on everything is minimized.
        maximized = [d == StudyDirection.MAXIMIZE for d in study.directions]
        values[:, maximized] *= -1.0
        return cls(rows, _finite(values), pending_rows, other_rows, frozenset(space.keys(taken)))


def _parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of an unfinished trial, those it is bound to take included."""
    fixed = trial.system_attrs.get("fixed_params", {})
    return {**fixed, **trial.params}


def _rows(
    parameters: Sequence[dict[str, Any]], space: DesignSpace
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the canonical rows of the points inside `space`, and which points those are."""
    names = space.encoding.names
    wanted = set(names)
    covers = np.array([wanted <= given.keys() for given in parameters], dtype=bool)
    points = [
        [given[name] for name in names]
        for given, covered in zip(parameters, covers, strict=True)
        if covered
    ]
    rows = space.encoding.encode(points)
    inside = ~np.isnan(rows).any(axis=1)
    covers[covers] = inside
    return space.canonical(rows[inside]), covers


def _finite(values: FloatArray) -> FloatArray:
    """Replace infinities, which Optuna allows, by the largest and smallest finite value."""
    for column in values.T:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        np.clip(column, low, high, out=column)
    return values
