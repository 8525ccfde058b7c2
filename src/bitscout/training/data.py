# SPDX-License-Identifier: Apache-2.0
"""Labelled images as uint8 tensors that live on the device as a whole.

Notation: ``N`` images, ``C`` channels, ``H W`` height and width. Pixels are uint8, 0..255. The
memory format is channels-last, so that a crop copies whole pixels (`bitscout.training.augment`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bitscout.errors import DataError
from bitscout.training.seeding import torch_generator

__all__ = ["ImageData", "Normalizer", "Split", "SplitName", "calibration_batch", "labelled_batch"]

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: uint8, shape ``(N, C, H, W)``, channels-last, ``N >= 1``.
        labels: int64, shape ``(N,)``, on the same device.

    Raises:
        DataError: If a shape, a type or a length does not fit, or there are no images.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check shapes and types; the range of the labels is `ImageData`'s to check."""
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            msg = (
                "Expected uint8 images of shape (N, C, H, W), got "
                f"{self.images.dtype} of shape {tuple(self.images.shape)}."
            )
            raise DataError(msg)
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            msg = (
                f"Expected int64 labels of shape ({len(self.images)},), got "
                f"{self.labels.dtype} of shape {tuple(self.labels.shape)}."
            )
            raise DataError(msg)
        if not self.images.numel():
            msg = f"A split holds no images (shape {tuple(self.images.shape)})."
            raise DataError(msg)
        images = self.images.contiguous(memory_format=torch.channels_last)
        object.__setattr__(self, "images", images)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on `device`; itself if it is there already."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Normalizer:
    """Map pixels to zero mean and unit variance per channel: ``x * scale + shift``.

    Attributes:
        scale: float32, shape ``(1, C, 1, 1)``.
        shift: float32, shape ``(1, C, 1, 1)``.
    """

    scale: Tensor
    shift: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 images, channels-last, of the shape of the uint8 `images`."""
        x = images.to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(self.scale).add_(self.shift)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageData:
    """A data set in three disjoint parts, immutable.

    A search must not see the test split: give it `without_test`, whose test split cannot be
    reached, and keep the whole for the final networks.

    Attributes:
        name: What the data set is called.
        train: What is trained on.
        val: Held out of the training part; what a search compares candidates by.
        test: Touched once per final network; `None` where it was withheld.
        n_classes: Labels are ``0 .. n_classes - 1``, each of them in `train`.
        mean: Per channel, of the training split, in units of the full range 255.
        std: Likewise; at least one grey level, so that a constant channel becomes 0.
        flip: Whether a horizontal mirror image is known to keep its class.
        class_names: One per class, or `None`.

    Raises:
        DataError: If the splits have different image shapes or labels out of range.
    """

    name: str
    train: Split
    val: Split
    test: Split | None
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the splits belong together."""
        for part, split in self._splits():
            if split.images.shape[1:] != self.train.images.shape[1:]:
                msg = (
                    f"The {part} images of {self.name!r} have shape "
                    f"{tuple(split.images.shape[1:])}, the training images {self.input_shape}."
                )
                raise DataError(msg)
            low, high = (int(bound) for bound in split.labels.aminmax())
            if low < 0 or high >= self.n_classes:
                msg = (
                    f"The {part} labels of {self.name!r} must be in [0, {self.n_classes - 1}], "
                    f"got {low if low < 0 else high}."
                )
                raise DataError(msg)
        if self.class_names is not None and len(self.class_names) != self.n_classes:
            msg = f"Expected {self.n_classes} class names, got {len(self.class_names)}."
            raise DataError(msg)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.train.images.device

    def to(self, device: torch.device | str) -> ImageData:
        """Return the data on `device`. One transfer; nothing is copied if it is there already."""
        parts = {part: split.to(device) for part, split in self._splits()}
        return replace(self, train=parts["train"], val=parts["val"], test=parts.get("test"))

    def without_test(self) -> ImageData:
        """Return the same data with the test split withheld."""
        return replace(self, test=None)

    def split(self, name: SplitName) -> Split:
        """Return one part.

        Raises:
            DataError: If the test split was withheld, or there is no such part.
        """
        parts = dict(self._splits())
        if name == "test" and self.test is None:
            msg = (
                f"The test split of {self.name!r} is withheld here, so that no choice depends on "
                "it. Use the data that `without_test` was called on, once per final network."
            )
            raise DataError(msg)
        if name not in parts:
            msg = f"There is no split {name!r}; expected one of 'train', 'val', 'test'."
            raise DataError(msg)
        return parts[name]

    def normalizer(self) -> Normalizer:
        """Return the map from pixels to network inputs, on the data's device."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        shape = (1, -1, 1, 1)
        return Normalizer(
            (1 / (255 * std)).view(shape).to(self.device, torch.float32),
            (-mean / std).view(shape).to(self.device, torch.float32),
        )

    def _splits(self) -> list[tuple[str, Split]]:
        parts = [("train", self.train), ("val", self.val)]
        return parts if self.test is None else [*parts, ("test", self.test)]


def calibration_batch(data: ImageData, n_images: int, *, seed: int) -> Tensor:
    """Return normalized training images without augmentation, to calibrate a quantizer on.

    Args:
        data: Drawn from its training split, without replacement.
        n_images: At least 1; more than there are gives all of them.
        seed: Decides which images.

    Returns:
        float32, shape ``(min(n_images, N), C, H, W)``, on the data's device.
    """
    return labelled_batch(data, n_images, seed=seed)[0]


def labelled_batch(data: ImageData, n_images: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return what `calibration_batch` does, and the images' labels, int64 of shape ``(N,)``."""
    order = torch.randperm(len(data.train), generator=torch_generator(seed))
    rows = order[:n_images].sort().values.to(data.device)
    return data.normalizer()(data.train.images[rows]), data.train.labels[rows]
