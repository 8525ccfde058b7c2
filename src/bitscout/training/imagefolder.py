# SPDX-License-Identifier: Apache-2.0
"""Folders of image files, one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bitscout.errors import ConfigError, DataError
from bitscout.training.assemble import LabelledArrays, RawDataset

__all__ = ["image_array", "load_imagefolder"]

_SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY = ("L", "1")
_COLOUR = ("RGB", "RGBA", "P", "PA", "LA", "CMYK", "YCbCr")
Images = list[NDArray[np.uint8]]


def load_imagefolder(root: Path, *, resize: int | None = None) -> RawDataset:
    """Read ``root/train/<class>/*.png|jpg|jpeg`` and the like.

    Classes are the folders of ``train``, in alphabetical order. ``root/test`` is the test part.
    Without it ``root/val`` is (as is customary where the test labels are secret), and without
    both it is carved out; with both, ``root/val`` is the validation part. Images are grey if all
    of them are, else RGB (transparency is dropped). Hidden files and files with other
    suffixes are not read.

    Args:
        root: The folder.
        resize: Edge length in pixels that every image is resized to (bilinear, the aspect ratio
            is not kept), or `None` if all have one size.

    Raises:
        ConfigError: If `resize` is below 1.
        DataError: If a folder or class is missing or empty, or an image cannot be read or has
            another size than the first one.
    """
    if resize is not None and resize < 1:
        msg = f"`resize` must be at least 1 pixel, got {resize}."
        raise ConfigError(msg)
    if not (root / "train").is_dir():
        msg = f"Expected a folder {root / 'train'} with one folder per class. Check `path`."
        raise DataError(msg)
    classes = _class_folders(root / "train")
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    read = {name: _read_part(root / name, classes, resize) for name in names}
    is_grey = all(image.ndim == 2 for images, _ in read.values() for image in images)
    parts = {
        name: LabelledArrays(_stack(images, is_grey), np.asarray(labels), str(root / name))
        for name, (images, labels) in read.items()
    }
    test = parts.get("test") or parts.pop("val", None)
    return RawDataset(
        name=root.resolve().name,
        train=parts["train"],
        test=test,
        val=parts.get("val"),
        class_names=tuple(classes),
    )


def image_array(image: Image.Image, what: str) -> NDArray[np.uint8]:
    """Return uint8 pixels, ``(H, W)`` of a grey image and ``(H, W, 3)`` of any other.

    Raises:
        DataError: If the image has more than 8 bits a channel; scaling them down is a choice.
    """
    if image.mode in _GREY:
        return np.asarray(image.convert("L"))
    if image.mode in _COLOUR:
        return np.asarray(image.convert("RGB"))
    msg = f"{what}: expected 8 bits per channel, got an image of mode {image.mode!r}. Convert it."
    raise DataError(msg)


def _class_folders(part: Path) -> list[str]:
    classes = sorted(p.name for p in part.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        msg = f"{part} has no class folders; expected {part}/<class>/<image>.png."
        raise DataError(msg)
    return classes


def _read_part(part: Path, classes: list[str], resize: int | None) -> tuple[Images, list[int]]:
    unknown = sorted(set(_class_folders(part)) - set(classes))
    if unknown:
        msg = f"{part} has classes that train has not: {', '.join(unknown)}."
        raise DataError(msg)
    images: Images = []
    labels: list[int] = []
    first: Path | None = None
    for label, name in enumerate(classes):
        files = _image_files(part / name)
        if not files:
            msg = f"{part / name} has no images; expected files ending in {', '.join(_SUFFIXES)}."
            raise DataError(msg)
        for file in files:
            image = _read_image(file, resize)
            first = first or file
            if images and image.shape[:2] != images[0].shape[:2]:
                msg = (
                    f"{file} is {_size(image)} pixels, but {first} is {_size(images[0])}. Set "
                    "`resize` to one edge length for all."
                )
                raise DataError(msg)
            images.append(image)
        labels += [label] * len(files)
    return images, labels


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )


def _read_image(file: Path, resize: int | None) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            if resize is not None and image.size != (resize, resize):
                whole = Image.fromarray(image_array(image, str(file)))
                return np.asarray(whole.resize((resize, resize), Image.Resampling.BILINEAR))
            return image_array(image, str(file))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG.
        msg = f"{file} cannot be read as an image ({error}). Replace or remove it."
        raise DataError(msg) from error


def _stack(images: Images, is_grey: bool) -> NDArray[np.uint8]:
    if is_grey:
        return np.stack(images)
    colour = [
        np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image for image in images
    ]
    return np.stack(colour)


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
