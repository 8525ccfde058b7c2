# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bitscout.errors import DataError, RunError

__all__ = ["load_weights", "save_weights"]

_LISTED = 8  # Keys named in a message before it says how many more there are.


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of `model` to `path`, atomically.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then
    renamed: whenever the process dies, `path` is the old file or the whole new one.

    Args:
        model: On any device.
        path: The folder must exist.

    Raises:
        RunError: If the file cannot be written; nothing is left behind.
    """
    # Clones, because safetensors refuses shared and non-contiguous memory.
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    content = safetensors.torch.save(tensors)
    try:
        _write_atomically(path, content)
    except OSError as error:
        msg = f"Cannot write the weights to {path}: {error}. Check free space and permissions."
        raise RunError(msg) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill the parameters and buffers of `model` from a file that `save_weights` wrote.

    Args:
        model: Of the same structure; unchanged if anything does not fit.
        path: A safetensors file.

    Raises:
        DataError: If the file is missing, damaged or foreign, or keys or shapes do not match.
    """
    if not path.is_file():
        msg = f"Expected weights at {path}, but there is no file. Check the path."
        raise DataError(msg)
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        msg = f"{path} is not a complete safetensors file ({error}). Copy or save it again."
        raise DataError(msg) from error
    own = model.state_dict()
    _check_match(own, tensors, path)
    model.load_state_dict(tensors)


def _check_match(own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    problems = {
        "missing": sorted(own.keys() - tensors.keys()),
        "not in the network": sorted(tensors.keys() - own.keys()),
        "of another shape": [
            f"{name} (expected {tuple(own[name].shape)}, got {tuple(tensors[name].shape)})"
            for name in sorted(own.keys() & tensors.keys())
            if own[name].shape != tensors[name].shape
        ],
    }
    parts = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if parts:
        msg = f"{path} does not match the network. {'; '.join(parts)}. Build the network it is of."
        raise DataError(msg)


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private.
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
