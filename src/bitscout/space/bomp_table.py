# SPDX-License-Identifier: Apache-2.0
"""Table I of BOMP-NAS as choices, with the numbers of MobileNetV2 it refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final

from bitscout.core import Value
from bitscout.errors import ConfigError
from bitscout.space.choice import Choice

__all__ = [
    "BASE_CHANNELS",
    "BIT_CHOICES",
    "BLOCK_BITS",
    "BOMP_WIDTHS",
    "POSITIONS",
    "REDUCTION_AFTER",
    "STEM_CHANNELS",
    "bit_choice_of",
    "check_integers",
    "check_widths",
    "table_rows",
]

BOMP_WIDTHS: Final[Mapping[str, tuple[float, ...]]] = {
    "cifar10": (0.01, 0.05, 0.1, 0.2, 0.3),
    "cifar100": (0.25, 0.5, 0.75, 1.0, 1.3),
}
POSITIONS: Final = (1, 2, 3, 4, 5, 6, 7)
# MobileNetV2 [Sandler et al., CVPR 2018], Table 2.
STEM_CHANNELS: Final = 32
BASE_CHANNELS: Final[Mapping[int, int]] = dict(
    zip(POSITIONS, (16, 24, 32, 64, 96, 160, 320), strict=True)
)
_SEED_REPETITIONS: Final = dict(zip(POSITIONS, (1, 2, 3, 4, 3, 3, 1), strict=True))
_SEED_KERNEL, _SEED_EXPANSION = 3, 6
# Section III of the paper: after these positions the resolution is halved.
REDUCTION_AFTER: Final = (4, 6)

# The bit variables of each block: block 1 has no expansion convolution.
BLOCK_BITS: Final[Mapping[int, tuple[str, ...]]] = {
    position: ("depthwise", "project") if position == 1 else ("expand", "depthwise", "project")
    for position in POSITIONS
}
BIT_CHOICES: Final[tuple[str, ...]] = (
    "stem.bits",
    *(f"block{p}.{layer}.bits" for p in POSITIONS for layer in BLOCK_BITS[p]),
    "conv2.bits",
    "classifier.bits",
)


def bit_choice_of(layer_name: str) -> str:
    """Return the bit variable of a layer; repetitions of a block share theirs.

    Example:
        >>> [bit_choice_of(name) for name in ("stem.conv", "block3.1.expand.conv", "classifier")]
        ['stem.bits', 'block3.expand.bits', 'classifier.bits']
    """
    parts = layer_name.split(".")
    part = f"{parts[0]}.{parts[2]}" if parts[0].startswith("block") else parts[0]
    return f"{part}.bits"


def table_rows(
    *,
    widths: tuple[float, ...],
    bits: tuple[int, ...],
    kernels: tuple[int, ...],
    expansions: tuple[int, ...],
    repetitions: tuple[int, ...],
    filters: tuple[int, ...],
) -> tuple[Choice, ...]:
    """Return every row of Table I, then every bit variable; rows with one value included.

    The default of a row is the value nearest to the seed's.

    Raises:
        ConfigError: If a list is empty, repeats a value or is out of order.
    """
    middle = widths[len(widths) // 2]
    rows: list[Choice] = []
    for position in POSITIONS:
        block, seed = f"block{position}", _SEED_REPETITIONS[position]
        e = (1,) if position == 1 else expansions
        n = repetitions if position in range(2, 7) else (1,)
        rows += [
            _row(f"{block}.kernel", kernels, _SEED_KERNEL),
            _row(f"{block}.width", widths, middle),
            _row(f"{block}.expansion", e, _SEED_EXPANSION),
            _row(f"{block}.repetitions", n, seed),
        ]
    rows.append(_row("conv2.filters", filters, max(filters)))
    rows += [Choice(name, bits, len(bits) - 1, "bits") for name in BIT_CHOICES]
    return tuple(rows)


def check_integers(name: str, values: Sequence[Value], low: int, high: int | None = None) -> None:
    """Check that `values` is not empty and holds integers in ``[low, high]``.

    Raises:
        ConfigError: Naming the parameter, the range and the value.
    """
    _check_not_empty(name, values)
    allowed = f">= {low}" if high is None else f"in [{low}, {high}]"
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            msg = f"`{name}` must be whole numbers {allowed}, got {value!r}."
            raise ConfigError(msg)
        if value < low or (high is not None and value > high):
            msg = f"`{name}` must be {allowed}, got {value}."
            raise ConfigError(msg)


def check_widths(widths: Sequence[Value]) -> None:
    """Check that `widths` is not empty and holds finite multipliers > 0.

    Raises:
        ConfigError: Naming the value.
    """
    _check_not_empty("widths", widths)
    for width in widths:
        if not isinstance(width, int | float) or isinstance(width, bool):
            msg = f"`widths` must be numbers > 0, got {width!r}."
            raise ConfigError(msg)
        if not (isfinite(width) and width > 0):
            msg = f"`widths` must be finite and > 0, got {width}."
            raise ConfigError(msg)


def _check_not_empty(name: str, values: Sequence[Value]) -> None:
    if not values:
        msg = f"`{name}` is empty: the space has no network. Give at least one value."
        raise ConfigError(msg)


def _row(name: str, values: tuple[float, ...], seed: float) -> Choice:
    nearest = min(range(len(values)), key=lambda index: abs(values[index] - seed))
    return Choice(name, values, nearest, "architecture")
