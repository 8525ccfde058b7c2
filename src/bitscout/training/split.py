# SPDX-License-Identifier: Apache-2.0
"""Stratified choices of rows: every class keeps its share."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import DataError

__all__ = ["stratified_split", "stratified_subset"]

Indices = NDArray[np.int64]


def stratified_split(
    labels: NDArray[np.int64], fraction: float, rng: np.random.Generator, *, what: str
) -> tuple[Indices, Indices]:
    """Split the rows in two, the second with ``ceil(fraction * n)`` rows.

    Each class gives its share of the second part, rounded by largest remainders, so that the
    sizes differ from the exact shares by less than one row. Every class is in both parts.

    Args:
        labels: Class of every row, shape ``(n,)``.
        fraction: Share of the second part, in ``(0, 1)``.
        rng: Decides which rows of a class go where.
        what: Name of the second part in error messages, for instance ``"validation"``.

    Returns:
        Row indices of the two parts, each in ascending order.

    Raises:
        DataError: If the fraction is out of range, or a class would be missing from a part.
    """
    if not 0 < fraction < 1:
        msg = f"The {what} fraction must be in (0, 1), got {fraction}."
        raise DataError(msg)
    classes, counts = np.unique(labels, return_counts=True)
    # NOTE: 0.07 * 100 is 7.000000000000001, which must not become 8.
    quotas = _quotas(counts, ceil(round(fraction * len(labels), 9)))
    for name, count, quota in zip(classes, counts, quotas, strict=True):
        if count < 2:
            msg = (
                f"Class {name} has one image, but every class needs at least two: one to train on "
                f"and one for the {what} split. Add images or remove the class."
            )
            raise DataError(msg)
        if not 0 < quota < count:
            part = what if quota == 0 else "training"
            msg = (
                f"A {what} fraction of {fraction} leaves class {name} ({count} images) out of the "
                f"{part} split. {'Raise' if quota == 0 else 'Lower'} the fraction."
            )
            raise DataError(msg)
    return _take(labels, classes, quotas, rng)


def stratified_subset(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> Indices:
    """Choose `size` rows so that every class keeps its share.

    Args:
        labels: Class of every row, shape ``(n,)``.
        size: Rows to keep, at most ``n``.
        rng: Decides which rows of a class are kept.

    Returns:
        Row indices in ascending order.

    Raises:
        DataError: If `size` is above ``n`` or leaves a class with fewer than two rows.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if size > len(labels):
        msg = f"`limit` asks for {size} training images, but there are {len(labels)}."
        raise DataError(msg)
    quotas = _quotas(counts, size)
    if quotas.min() < 2:
        msg = (
            f"`limit` = {size} leaves class {classes[quotas.argmin()]} with {quotas.min()} "
            f"images; every class needs at least two. Use {2 * len(classes)} images or more."
        )
        raise DataError(msg)
    return _take(labels, classes, quotas, rng)[1]


def _quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return integer shares of `total` in proportion to `counts`, by largest remainders."""
    exact = counts * (total / counts.sum())
    quotas: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    # A stable sort gives the leftover rows to the first of equal remainders. The rounding hides
    # the last bits of `exact`, which depend on the platform's arithmetic.
    order = np.argsort(-np.round(exact - quotas, 9), kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return quotas


def _take(
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    quotas: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Indices, Indices]:
    taken = np.zeros(len(labels), dtype=bool)
    for name, quota in zip(classes, quotas, strict=True):
        rows = np.flatnonzero(labels == name)
        taken[rng.permutation(rows)[:quota]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)
