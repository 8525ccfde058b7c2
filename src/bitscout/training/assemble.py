# SPDX-License-Identifier: Apache-2.0
"""From the arrays of a source to checked, split `ImageData`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitscout.core import child_rng
from bitscout.errors import ConfigError, DataError
from bitscout.training.data import ImageData, Split
from bitscout.training.split import stratified_split, stratified_subset

__all__ = ["TEST_FRACTION", "LabelledArrays", "RawDataset", "assemble"]

TEST_FRACTION = 0.2  # Of a source without a test part; a fifth is the customary share.
_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """Images and labels as a source gives them, unchecked.

    Attributes:
        images: Announced as uint8 ``(N, H, W)`` or ``(N, H, W, C)``.
        labels: Announced as integers ``(N,)``.
        what: Where they come from, for messages, for instance ``"x_train of faces.npz"``.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    what: str


@dataclass(frozen=True, eq=False, kw_only=True)
class RawDataset:
    """What a loader returns.

    Attributes:
        name: What the data set is called.
        train: The training part, validation not yet split off.
        test: The test part, or `None` to carve one out of the training part.
        val: The validation part where the source brings its own, else `None`.
        flip: Whether mirror images are known to keep their class.
        class_names: One per class, or `None`.
    """

    name: str
    train: LabelledArrays
    test: LabelledArrays | None
    val: LabelledArrays | None = None
    flip: bool = False
    class_names: tuple[str, ...] | None = None


Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]


def assemble(raw: RawDataset, *, validation: float, seed: int, limit: int | None) -> ImageData:
    """Check the arrays, split them and compute the statistics of the training split.

    A test part that the source lacks is carved out with a fixed seed, so that it is the same
    whatever `seed` is: numbers of different runs stay comparable. `limit` is applied to the
    training part before the validation split, so that nothing outside it is ever looked at.

    Args:
        raw: What a loader returned.
        validation: Share of the training part held out, in ``(0, 1)``; not used where the source
            brings a validation part.
        seed: Decides the validation split and the subset.
        limit: Use this many images of the training part, or `None` for all.

    Returns:
        Data on the CPU.

    Raises:
        ConfigError: If `limit` is below 1.
        DataError: If the arrays do not have the announced form or cannot be split.
    """
    if limit is not None and limit < 1:
        msg = f"`limit` must be at least 1, got {limit}."
        raise ConfigError(msg)
    train = _checked(raw.train)
    n_classes = _count_classes(train[1], raw)
    if raw.test is not None:
        test = _checked(raw.test)
    else:
        train, test = _carve(train, TEST_FRACTION, child_rng(0, "data", "test"), "test")
    if limit is not None:
        train = _pick(train, stratified_subset(train[1], limit, child_rng(seed, "data", "limit")))
    if raw.val is not None:
        val = _checked(raw.val)
    else:
        train, val = _carve(train, validation, child_rng(seed, "data", "val"), "validation")
    mean, std = _statistics(train[0])
    return ImageData(
        name=raw.name,
        train=_split(train),
        val=_split(val),
        test=_split(test),
        n_classes=n_classes,
        mean=mean,
        std=std,
        flip=raw.flip,
        class_names=raw.class_names,
    )


def _checked(arrays: LabelledArrays) -> Pair:
    """Return images (N, H, W, C) and labels, or raise what is wrong with them."""
    images, labels, what = arrays.images, arrays.labels, arrays.what
    if images.dtype != np.uint8:
        msg = (
            f"{what}: images must be uint8 in 0..255, got {images.dtype}. Scale them to 0..255 "
            "and convert with `.astype(np.uint8)`."
        )
        raise DataError(msg)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in _CHANNELS:
        msg = (
            f"{what}: images must have shape (N, H, W) or (N, H, W, C) with 1 or 3 channels, got "
            f"{arrays.images.shape}. Move the channels last."
        )
        raise DataError(msg)
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras writes CIFAR labels as a column.
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        msg = (
            f"{what}: labels must be integers of shape (N,), got {labels.dtype} of shape "
            f"{labels.shape}."
        )
        raise DataError(msg)
    if len(images) != len(labels):
        msg = f"{what}: {len(images)} images but {len(labels)} labels; one label per image."
        raise DataError(msg)
    if not images.size:
        msg = f"{what}: no images (shape {images.shape})."
        raise DataError(msg)
    return images, labels.astype(np.int64)


def _count_classes(labels: NDArray[np.int64], raw: RawDataset) -> int:
    """Return the number of classes; every label from 0 up must occur in the training part."""
    found = np.unique(labels)
    n_classes = len(raw.class_names) if raw.class_names is not None else int(found[-1]) + 1
    what = raw.train.what
    if found[0] < 0 or found[-1] >= n_classes:
        worst = found[0] if found[0] < 0 else found[-1]
        msg = f"{what}: labels must be in [0, {n_classes - 1}], got {worst}."
        raise DataError(msg)
    if len(found) != n_classes:
        missing = int(np.setdiff1d(np.arange(n_classes), found)[0])
        msg = (
            f"{what}: labels go up to {n_classes - 1}, but class {missing} has no image. Number "
            "the classes 0, 1, 2, ... without gaps."
        )
        raise DataError(msg)
    if n_classes < 2:
        msg = f"{what}: only one class; a classifier needs at least two."
        raise DataError(msg)
    return n_classes


def _carve(pair: Pair, fraction: float, rng: np.random.Generator, what: str) -> tuple[Pair, Pair]:
    first, second = stratified_split(pair[1], fraction, rng, what=what)
    return _pick(pair, first), _pick(pair, second)


def _pick(pair: Pair, rows: NDArray[np.int64]) -> Pair:
    return pair[0][rows], pair[1][rows]


def _statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation per channel, exact, from histograms."""
    levels = np.arange(256) / 255
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[3])]
    )
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def _split(pair: Pair) -> Split:
    images = torch.from_numpy(np.ascontiguousarray(pair[0])).permute(0, 3, 1, 2)
    return Split(images, torch.from_numpy(pair[1]))
