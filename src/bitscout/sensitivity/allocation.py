# SPDX-License-Identifier: Apache-2.0
"""The best choice of one option in every group within additive budgets, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitscout.errors import ConfigError, InfeasibleError
from bitscout.sensitivity.integer_program import IntegerProgram

__all__ = ["allocate", "ladder"]

Tables = Sequence[ArrayLike]


def allocate(
    objective: Tables, costs: Mapping[str, Tables], limits: Mapping[str, float]
) -> tuple[int, ...]:
    """Return the option of every group with the smallest sum of objectives within all limits.

    For sensitivities a group is a layer, or a tie whose layers' values are summed; an option is a
    bit-width, or a pair of them. A larger limit never gives a larger objective. Deterministic.

    Args:
        objective: For each group an array of shape ``(n_options,)``, finite.
        costs: Likewise for each budget, by its name; finite, of any sign.
        limits: By name; budgets without a limit, or with an infinite one, are left out.

    Returns:
        Index of the chosen option of each group.

    Raises:
        ConfigError: If tables do not have the same groups and options, a limit has no costs, or
            a number is not finite.
        InfeasibleError: If nothing is within all limits, with the nearest that can be met.

    Example:
        >>> size = [[2, 4, 8], [20, 40, 80]]
        >>> allocate([[9, 3, 0], [8, 2, 0]], {"size": size}, {"size": 48})
        (2, 1)
    """
    names = tuple(name for name, limit in limits.items() if limit != np.inf)
    unknown = sorted(set(names) - set(costs))
    if unknown:
        msg = f"There is a limit on {', '.join(unknown)} but no costs; got {', '.join(costs)}."
        raise ConfigError(msg)
    bounds = np.array([limits[name] for name in names], dtype=np.float64)
    if not np.isfinite(bounds).all():
        msg = f"Limits must be numbers, got {dict(limits)}."
        raise ConfigError(msg)
    sizes = np.array([np.size(group) for group in objective], dtype=np.int64)
    values = _flat("the objective", objective, sizes)
    table = np.array([_flat(name, costs[name], sizes) for name in names])
    if not len(sizes):
        return ()
    starts = np.cumsum(sizes) - sizes
    values = values - np.repeat(np.minimum.reduceat(values, starts), sizes)
    program = IntegerProgram(sizes, values, table.reshape(len(names), len(values)), bounds)
    chosen = program.solve()
    if chosen is None:
        given = ", ".join(f"{n} {b:g}" for n, b in zip(names, bounds, strict=True))
        found = ", ".join(f"{n} {a:.7g}" for n, a in zip(names, program.nearest(), strict=True))
        msg = f"No choice is within the limits ({given}). The nearest that there is has {found}."
        raise InfeasibleError(msg)
    return tuple((chosen - starts).tolist())


def ladder(
    objective: Tables, costs: Mapping[str, Tables], limits: Sequence[Mapping[str, float]]
) -> list[tuple[int, ...]]:
    """Return what `allocate` chooses for each of `limits`.

    Raises:
        ConfigError: As `allocate`.
        InfeasibleError: As `allocate`, for the first limits that cannot be met.
    """
    return [allocate(objective, costs, each) for each in limits]


def _flat(name: str, groups: Tables, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of all groups one after another, after checking them."""
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    found = [array.size for array in arrays]
    if found != sizes.tolist() or any(array.ndim != 1 for array in arrays) or 0 in found:
        msg = (
            f"The table of {name} needs one row of numbers for each group, as many as the group "
            f"has options: {sizes.tolist()[:8]}, got {found[:8]}."
        )
        raise ConfigError(msg)
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    if not np.isfinite(flat).all():
        msg = f"The table of {name} holds NaN or infinite values; leave such options out."
        raise ConfigError(msg)
    return flat
