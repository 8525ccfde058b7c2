# SPDX-License-Identifier: Apache-2.0
"""Is there anything within the budget? Asked before the first training."""

from __future__ import annotations

from math import ceil, floor, log10

import numpy as np

from bitscout.core import child_rng
from bitscout.errors import InfeasibleError, UnsupportedError
from bitscout.pipeline.components import Components
from bitscout.pipeline.hooks import space_hooks
from bitscout.samplers import search_feasible

__all__ = ["check_feasible"]

# Each is random draws, then a walk towards the budget from the best of them.
N_SEARCHES = 4


def check_feasible(components: Components) -> None:
    """Check that some candidate meets every bound that is known without training or measuring.

    Returns at once where bounds are easily met.

    Raises:
        InfeasibleError: If none is found, with the number of attempts and the nearest budget that
            a candidate meets.
    """
    hooks = space_hooks(components.costs, components.objective, components.budget)
    if hooks.violation is None:
        return
    n_attempts, nearest = 0, None
    for search in range(N_SEARCHES):
        rng = child_rng(components.config.seed, "feasibility", search)
        found = search_feasible(hooks, rng)
        n_attempts += found.n_attempts
        if found.violation <= 0:
            return
        if nearest is None or found.violation < nearest.violation:
            nearest = found
    assert nearest is not None, "there is at least one search"
    raise InfeasibleError(_message(components, nearest.row, n_attempts))


def _message(components: Components, row: np.ndarray, n_attempts: int) -> str:
    limits = components.budget.limits()
    point = components.space.decode(row.astype(np.int64))
    try:
        components.costs.computed(
            components.space.architecture(point), components.space.policy(point)
        )
    except UnsupportedError as error:
        return (
            f"The hardware has no rule for any of {n_attempts:,} candidates that were tried; "
            f"nothing was trained. One of them: {error}"
        )
    metrics = [m for m, _ in limits.values() if m in components.costs.batch_metrics]
    known = components.costs.batch(row[None].astype(np.int64), metrics)
    bounds = components.budget.bounds()
    parts, met = [], []
    for name, (metric, limit) in limits.items():
        if metric not in known:
            continue
        value = float(known[metric][0]) * bounds[name] / limit
        is_over = value > bounds[name]
        parts.append(f"{name} {value:.4g} ({'over' if is_over else 'within'} {bounds[name]:g})")
        met.append(f"{name}: {_rounded_up(value) if is_over else bounds[name]:g}")
    return (
        f"No candidate within the budget was found in {n_attempts:,} attempts, random ones and "
        f"walks towards the budget; nothing was trained. The nearest has {', '.join(parts)}. "
        f"It fits budget: {{{', '.join(met)}}}. Raise the budget or widen the space."
    )


def _rounded_up(value: float) -> float:
    """Return `value` rounded up to three significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return ceil(value / unit) * unit
