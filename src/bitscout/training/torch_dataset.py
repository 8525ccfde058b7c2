# SPDX-License-Identifier: Apache-2.0
"""Any torch `Dataset` as `ImageData`."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bitscout.errors import DataError
from bitscout.training.assemble import LabelledArrays, RawDataset, assemble
from bitscout.training.data import ImageData
from bitscout.training.imagefolder import image_array

__all__ = ["from_dataset"]

# A float pixel this far from a grey level was not made from 8 bits. float16 is off by 0.06.
_TOLERANCE_LEVELS = 0.1


def from_dataset(
    train: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    name: str = "dataset",
    validation: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    flip: bool = False,
) -> ImageData:
    """Read torch data sets once, item by item, into resident uint8 tensors.

    Items are pairs ``(image, label)``. An image is a PIL image, or a tensor ``(C, H, W)`` or
    ``(H, W)`` that is uint8 or a float in [0, 1] made from 8 bits (as torchvision's `ToTensor`
    gives). Pass the data set without augmentation and without normalization: both happen on the
    device during the training.

    Args:
        train: The training part; validation is split off it.
        test: The test part, or `None` to carve one out.
        name: What to call the data.
        validation: Share held out of `train`, stratified, in ``(0, 1)``.
        seed: Decides the validation split and the subset of `limit`.
        limit: As in `load_dataset`.
        flip: Whether a horizontal mirror image keeps its class, so that training may use it.

    Raises:
        DataError: If an item is not such a pair, naming its index.
    """
    raw = RawDataset(
        name=name,
        train=_read(train, f"{name} (train)"),
        test=None if test is None else _read(test, f"{name} (test)"),
        flip=flip,
    )
    return assemble(raw, validation=validation, seed=seed, limit=limit)


def _read(dataset: Dataset[Any], what: str) -> LabelledArrays:
    if not isinstance(dataset, Sized):
        msg = f"{what}: expected a data set with a length, got {type(dataset).__name__}."
        raise DataError(msg)
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        image, label = _pair(dataset[index], f"{what}, item {index}")
        if images and image.shape != images[0].shape:
            msg = (
                f"{what}, item {index}: shape {image.shape}, but item 0 has {images[0].shape}; "
                "resize the images in the data set."
            )
            raise DataError(msg)
        images.append(image)
        labels.append(label)
    if not images:
        msg = f"{what}: the data set is empty."
        raise DataError(msg)
    return LabelledArrays(np.stack(images), np.asarray(labels, dtype=np.int64), what)


def _pair(item: object, what: str) -> tuple[NDArray[np.uint8], int]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        msg = f"{what}: expected a pair (image, label), got {type(item).__name__}."
        raise DataError(msg)
    image, label = item
    return _pixels(image, what), _label(label, what)


def _label(label: object, what: str) -> int:
    value = label
    if isinstance(label, np.generic) or (isinstance(label, Tensor) and label.numel() == 1):
        value = label.item()
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{what}: expected an integer label, got {label!r}."
        raise DataError(msg)
    return value


def _pixels(image: object, what: str) -> NDArray[np.uint8]:
    """Return uint8 pixels (H, W) or (H, W, C)."""
    if isinstance(image, Image.Image):
        return image_array(image, what)
    if not isinstance(image, Tensor):
        msg = f"{what}: expected a PIL image or a tensor, got {type(image).__name__}."
        raise DataError(msg)
    if image.ndim not in (2, 3):
        msg = f"{what}: expected a tensor (C, H, W) or (H, W), got {tuple(image.shape)}."
        raise DataError(msg)
    if image.is_floating_point():
        image = _from_float(image, what)
    if image.dtype != torch.uint8:
        msg = f"{what}: expected a uint8 or float tensor, got {image.dtype}."
        raise DataError(msg)
    pixels: NDArray[np.uint8] = image.cpu().numpy()
    return pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)


def _from_float(image: Tensor, what: str) -> Tensor:
    levels = image.double() * 255
    rounded = levels.round()
    exact = ((levels - rounded).abs() <= _TOLERANCE_LEVELS) & (rounded >= 0) & (rounded <= 255)
    if not bool(exact.all()):
        msg = (
            f"{what}: float images must be k / 255 with k = 0..255, got values in "
            f"[{image.min():.4g}, {image.max():.4g}]. Remove normalization, resizing and "
            "augmentation from the data set, or return uint8."
        )
        raise DataError(msg)
    return rounded.to(torch.uint8)
