# SPDX-License-Identifier: Apache-2.0
"""Data sets by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bitscout.errors import ConfigError
from bitscout.training.assemble import RawDataset, assemble
from bitscout.training.cifar import load_cifar10, load_cifar100
from bitscout.training.data import ImageData
from bitscout.training.digits import load_digits
from bitscout.training.imagefolder import load_imagefolder
from bitscout.training.npz import load_npz

__all__ = ["DATASETS", "load_dataset"]

DATASETS: Mapping[str, str] = MappingProxyType(
    {
        "digits": "1,797 handwritten digits, 1x8x8, 10 classes; embedded, needs no path",
        "npz": "a .npz file of uint8 arrays x_train, y_train and, optionally, x_test, y_test",
        "imagefolder": "a folder train/<class>/*.png|jpg and, optionally, test/ or val/",
        "cifar10": "CIFAR-10, 3x32x32: the folder of the binary version, or a .npz file",
        "cifar100": "CIFAR-100, 3x32x32: the folder of the binary version, or a .npz file",
    }
)


@dataclass(frozen=True)
class _Source:
    """The arguments that only some loaders take."""

    path: Path | None
    resize: int | None


def load_dataset(
    name: str,
    path: str | Path | None = None,
    *,
    validation: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    resize: int | None = None,
) -> ImageData:
    """Load a data set into memory, check it and split it.

    Args:
        name: One of `DATASETS`.
        path: File or folder; not for ``digits``, needed by all others.
        validation: Share of the training part held out for validation, stratified, in ``(0, 1)``.
        seed: Decides the validation split and the subset of `limit`; never the test split.
        limit: Use a stratified subset of this many images of the training part (validation is
            split off it: ``limit=10_000, validation=0.1`` trains on 9,000). The test split stays
            whole. `None` means all.
        resize: For ``imagefolder``: edge length in pixels that every image is resized to.

    Returns:
        The data, on the CPU; move it once with `ImageData.to`.

    Raises:
        ConfigError: If the name is unknown or an argument does not apply to it.
        DataError: If a file is missing, damaged, or not of the announced form.

    Example:
        >>> data = load_dataset("digits")
        >>> (
        ...     data.input_shape,
        ...     data.n_classes,
        ...     [len(data.split(s)) for s in ("train", "val", "test")],
        ... )
        ((1, 8, 8), 10, [1293, 144, 360])
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"Unknown dataset {name!r}; expected one of {', '.join(DATASETS)}.{hint}"
        raise ConfigError(msg)
    raw = _load(name, _Source(None if path is None else Path(path), resize))
    return assemble(raw, validation=validation, seed=seed, limit=limit)


def _load(name: str, source: _Source) -> RawDataset:
    if source.resize is not None and name != "imagefolder":
        msg = f"`resize` applies to 'imagefolder' only, not to {name!r}; remove it."
        raise ConfigError(msg)
    if name == "digits":
        if source.path is not None:
            msg = f"'digits' is embedded and takes no `path`, got {str(source.path)!r}; remove it."
            raise ConfigError(msg)
        return load_digits()
    if source.path is None:
        msg = f"Dataset {name!r} needs a `path`: {DATASETS[name]}."
        raise ConfigError(msg)
    if name == "imagefolder":
        return load_imagefolder(source.path, resize=source.resize)
    return {"npz": load_npz, "cifar10": load_cifar10, "cifar100": load_cifar100}[name](source.path)
