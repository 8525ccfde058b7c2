# SPDX-License-Identifier: Apache-2.0
"""Weights of a given network from a file: safetensors, or a state dict without code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bitscout.errors import ConfigError, DataError
from bitscout.networks.state_dicts import convert_state_dict

__all__ = ["load_checkpoint"]

_LISTED = 5  # Keys named in a message before it says how many more there are.
# What training scripts put around a state dict.
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "weights")
# Counters of batches, which old checkpoints lack and evaluation does not read.
_OPTIONAL: Final = "num_batches_tracked"


def load_checkpoint(module: nn.Module, path: Path, name: str | None = None) -> None:
    """Fill the parameters and buffers of `module` from a file.

    The file is ``.safetensors``, or what ``torch.save(model.state_dict(), path)`` writes, read
    with ``weights_only``: no code in it is run. A dictionary around the state dict
    (``{"state_dict": ...}``, ``{"model": ...}``) and a prefix of all keys (``module.``) are taken
    off.

    Args:
        module: Unchanged if anything does not fit.
        path: The file.
        name: Of the built-in network it is; torchvision's and timm's names are known for those.

    Raises:
        DataError: If the file is missing, damaged, or holds more than tensors.
        ConfigError: If keys are missing, too many, or of another shape; all of them in one
            message.
    """
    state = _read(path)
    own = module.state_dict()
    state = _without_prefix(convert_state_dict(name or "", state), own)
    for key, tensor in own.items():
        if key.endswith(_OPTIONAL) and key not in state:
            state[key] = tensor
    _check_match(own, state, path)
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        msg = f"{path} has values that are not finite: {_listed(broken)}. Take another checkpoint."
        raise DataError(msg)
    module.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        msg = f"Expected a checkpoint at {path}, but there is no file. Check the path."
        raise DataError(msg)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load(path.read_bytes())
        except SafetensorError as error:
            msg = f"{path} is not a complete safetensors file ({error}). Copy or save it again."
            raise DataError(msg) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of old forms; what matters is an error.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} holds more than tensors, a whole module perhaps, and reading it would run "
            "code. Save the weights alone: torch.save(model.state_dict(), path), or "
            "safetensors.torch.save_file(model.state_dict(), path)."
        )
        raise DataError(msg) from error
    except Exception as error:  # A damaged file fails in many ways.
        msg = (
            f"{path} cannot be read as a state dict ({type(error).__name__}). Copy or save it "
            "again: torch.save(model.state_dict(), path)."
        )
        raise DataError(msg) from error
    return _unwrapped(content, path)


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file holds."""
    while isinstance(content, Mapping):
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
            if len(tensors) == len(content) and tensors:
                return tensors
            break
        content = content[inner]
    keys = ", ".join(map(str, list(content)[:_LISTED])) if isinstance(content, Mapping) else ""
    found = (
        f"a dictionary of {keys or 'nothing'}"
        if isinstance(content, Mapping)
        else (f"a {type(content).__name__}")
    )
    msg = (
        f"Expected a state dict in {path}, tensors by name, got {found}. Save "
        "model.state_dict(), alone or under 'state_dict'."
    )
    raise DataError(msg)


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the first parts that all keys have in common, if the network has none of them."""
    while state and own.keys().isdisjoint(state):
        prefixes = {key.partition(".")[0] for key in state}
        shorter = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        if len(prefixes) > 1 or "" in shorter:
            break
        state = shorter
    return dict(state)


def _check_match(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    misshapen = [key for key in own if key in state and own[key].shape != state[key].shape]
    problems = {
        "missing in the file": [key for key in own if key not in state],
        "not in the network": [key for key in state if key not in own],
        "of another shape": [
            f"{key} (expected {_shape(own[key])}, got {_shape(state[key])})" for key in misshapen
        ],
    }
    parts = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if not parts:
        return
    last = list(own)[-2:]
    is_head = misshapen and set(misshapen) <= set(last) and len(parts) == 1
    remedy = (
        "Make the network with the number of classes of the checkpoint."
        if is_head
        else "Make the network that the checkpoint is of, with the same options."
    )
    msg = f"{path} does not fit the network. {'; '.join(parts)}. {remedy}"
    raise ConfigError(msg)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _listed(keys: list[str]) -> str:
    more = len(keys) - _LISTED
    return ", ".join(keys[:_LISTED]) + (f" and {more} more" if more > 0 else "")
