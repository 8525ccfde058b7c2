# SPDX-License-Identifier: Apache-2.0
"""Data sets in NumPy's .npz files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitscout.errors import DataError
from bitscout.training.assemble import LabelledArrays, RawDataset

__all__ = ["load_npz"]

_KEYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "class_names")


def load_npz(path: Path) -> RawDataset:
    """Read a .npz file; arrays of pickled objects are refused.

    Keys: ``x_train`` (uint8, ``(N, H, W)`` or ``(N, H, W, C)``), ``y_train`` (integers ``(N,)``),
    optionally ``x_test, y_test`` and ``x_val, y_val``, and ``class_names`` (strings). Others are
    not read.

    Raises:
        DataError: If the file is missing, damaged or no .npz file, or a key is missing.
    """
    arrays = _read(path)
    names = arrays.get("class_names")
    train = _part(arrays, "train", path)
    if train is None:
        msg = f"{path}: keys x_train and y_train are needed, got {_listed(arrays, path)}."
        raise DataError(msg)
    return RawDataset(
        name=path.stem,
        train=train,
        test=_part(arrays, "test", path),
        val=_part(arrays, "val", path),
        class_names=None if names is None else tuple(str(name) for name in names.ravel()),
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        msg = f"Expected a .npz file at {path}, but there is none. Check `path`."
        raise DataError(msg)
    if not zipfile.is_zipfile(path):
        msg = (
            f"{path} is not a complete .npz file: it is damaged, cut short, or of another format. "
            "Copy it again, or write it with `np.savez`."
        )
        raise DataError(msg)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in _KEYS if key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            msg = (
                f"{path} holds pickled Python objects, which are refused because unpickling can "
                "run any code. Save plain uint8 and integer arrays."
            )
        else:
            msg = f"{path} is damaged or cut short ({error}). Copy it again."
        raise DataError(msg) from error


def _part(arrays: dict[str, NDArray[Any]], part: str, path: Path) -> LabelledArrays | None:
    images, labels = arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        has, lacks = ("x", "y") if labels is None else ("y", "x")
        msg = f"{path}: key {has}_{part} comes without {lacks}_{part}; both are needed."
        raise DataError(msg)
    return LabelledArrays(images, labels, f"x_{part} of {path.name}")


def _listed(arrays: dict[str, NDArray[Any]], path: Path) -> str:
    if arrays:
        return ", ".join(arrays)
    with zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
    return ", ".join(found) or "an empty file"
