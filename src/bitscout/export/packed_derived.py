# SPDX-License-Identifier: Apache-2.0
"""What a packed file leaves out, because it follows from the rest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
    Input,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)

__all__ = ["derived_grid", "rescale_ratios"]

FloatArray = npt.NDArray[np.float64]


def derived_grid(op: Op, sources: tuple[Op, ...]) -> Grid | None:
    """Return the grid an operation has unless its record says otherwise.

    Args:
        op: The operation; its own grid is not looked at.
        sources: What it reads.
    """
    match op:
        case Input() | Rescale():
            return None
        case Conv() | Linear():
            return Grid.sums(sources[0].grid.scale * op.weight_scale)
        case SumPool():
            return Grid.sums(sources[0].grid.scale)
        case MaxPool() | Relu() | PadChannels():
            return sources[0].grid
        case Concat():
            return _joined(sources)
        case Flatten():
            return _flat(sources[0])


def rescale_ratios(grid: Grid, sources: tuple[Op, ...]) -> FloatArray:
    """Return the factors of a rescale to `grid`, shape ``(n_inputs, C or 1)``."""
    with np.errstate(over="ignore", under="ignore"):
        parts = [np.atleast_1d(source.grid.scale / grid.scale) for source in sources]
    return np.stack(np.broadcast_arrays(*parts))


def _joined(sources: tuple[Op, ...]) -> Grid:
    if not sources[0].grid.is_sums:
        return sources[0].grid
    return Grid.sums(np.concatenate([np.broadcast_to(s.grid.scale, s.shape[:1]) for s in sources]))


def _flat(source: Op) -> Grid:
    grid = source.grid
    if not grid.scale.ndim:
        return grid
    return Grid.sums(np.repeat(grid.scale, int(np.prod(source.shape[1:]))))
