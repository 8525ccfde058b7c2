# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 from local files.

Read are the official *binary version* and .npz files. The official *python version* is a set of
pickles, which can run any code when they are opened; the project reads no pickle, and a
restricted unpickler would still hand unchecked bytes to ``ndarray.__setstate__``. A folder of
them is refused with the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitscout.errors import DataError
from bitscout.training.assemble import LabelledArrays, RawDataset
from bitscout.training.npz import load_npz

__all__ = ["load_cifar10", "load_cifar100"]

_PIXELS = 3 * 32 * 32
_CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class _Variant:
    """What distinguishes the two data sets.

    Attributes:
        name: Data set name.
        n_classes: Number of (fine) classes.
        train_files: Names of the binary training files, in the official order.
        test_file: Name of the binary test file.
        label_bytes: Bytes before the pixels of each record; the last one is the label.
        folder: Name of the folder in the official archive of the binary version.
        pickled: A file that only the python version has.
        url: Address of the archive of the binary version.
        class_names: Names of the classes, or `None`.
    """

    name: str
    n_classes: int
    train_files: tuple[str, ...]
    test_file: str
    label_bytes: int
    folder: str
    pickled: str
    url: str
    class_names: tuple[str, ...] | None


_CIFAR10 = _Variant(
    name="cifar10",
    n_classes=10,
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_file="test_batch.bin",
    label_bytes=1,
    folder="cifar-10-batches-bin",
    pickled="data_batch_1",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    class_names=_CIFAR10_NAMES,
)
_CIFAR100 = _Variant(
    name="cifar100",
    n_classes=100,
    train_files=("train.bin",),
    test_file="test.bin",
    label_bytes=2,  # Coarse label, then fine label.
    folder="cifar-100-binary",
    pickled="train",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    class_names=None,
)


def load_cifar10(path: Path) -> RawDataset:
    """Read CIFAR-10 from a .npz file or the folder of the binary version.

    Args:
        path: A ``.npz`` file as `load_npz` reads it, the folder ``cifar-10-batches-bin``, or the
            folder that contains it.

    Raises:
        DataError: If files are missing or damaged, or are those of the python version.
    """
    return _load(path, _CIFAR10)


def load_cifar100(path: Path) -> RawDataset:
    """Read CIFAR-100 with its 100 fine classes; otherwise as `load_cifar10`."""
    return _load(path, _CIFAR100)


def _load(path: Path, variant: _Variant) -> RawDataset:
    if path.is_dir():
        return _load_binary(path, variant)
    raw = load_npz(path)
    shape, n_classes = raw.train.images.shape, np.unique(raw.train.labels).size
    if shape[1:] != (32, 32, 3) or n_classes != variant.n_classes:
        msg = (
            f"{path} does not hold {variant.name}: expected images (N, 32, 32, 3) in "
            f"{variant.n_classes} classes, got {shape} in {n_classes}. Use the dataset 'npz'."
        )
        raise DataError(msg)
    return replace(raw, name=variant.name, flip=True)


def _load_binary(path: Path, variant: _Variant) -> RawDataset:
    folder = path / variant.folder if (path / variant.folder).is_dir() else path
    missing = [
        name for name in (*variant.train_files, variant.test_file) if not (folder / name).is_file()
    ]
    if missing:
        raise DataError(_missing_message(path, folder, missing, variant))
    return RawDataset(
        name=variant.name,
        train=_records([folder / name for name in variant.train_files], variant),
        test=_records([folder / variant.test_file], variant),
        flip=True,
        class_names=variant.class_names,
    )


def _missing_message(path: Path, folder: Path, missing: Sequence[str], variant: _Variant) -> str:
    pickled = [folder, *folder.glob("cifar-*")]
    if any((place / variant.pickled).is_file() for place in pickled):
        return (
            f"{path} holds the python version of {variant.name}, which is a set of pickles; they "
            f"can run any code and are not read. Unpack the binary version, {variant.url}, or in "
            "Python pass torchvision's data set to `bitscout.training.from_dataset`."
        )
    return (
        f"{folder} lacks {', '.join(missing)} of the binary version of {variant.name}. Unpack "
        f"{variant.url} and give the folder, or give a .npz file."
    )


def _records(paths: Sequence[Path], variant: _Variant) -> LabelledArrays:
    """Read fixed-length records: the label bytes, then 32x32 red, green and blue pixels."""
    length = variant.label_bytes + _PIXELS
    parts = []
    for path in paths:
        data = np.fromfile(path, dtype=np.uint8)
        if not data.size or data.size % length:
            msg = (
                f"{path} is cut short or damaged: expected records of {length} bytes, got "
                f"{data.size} bytes. Unpack {variant.url} again."
            )
            raise DataError(msg)
        parts.append(data.reshape(-1, length))
    records = np.concatenate(parts)
    images = records[:, variant.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = records[:, variant.label_bytes - 1].astype(np.int64)
    return LabelledArrays(images, labels, paths[0].name if len(paths) == 1 else str(paths[0]))
