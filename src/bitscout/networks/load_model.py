# SPDX-License-Identifier: Apache-2.0
"""Networks by name: built in, or what an import path makes."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bitscout.errors import ConfigError, shown
from bitscout.networks.models import build_model, model_names

__all__ = ["load_model"]

# Names people give the same argument.
_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "n_classes": ("num_classes", "classes", "num_class"),
    "num_classes": ("n_classes", "classes", "num_class"),
    "in_channels": ("in_chans", "input_channels", "num_channels"),
}


def load_model(name: str, *, options: Mapping[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """Return a network in training mode on the CPU, the same for the same arguments.

    Args:
        name: A built-in network, one of `model_names`, or an import path: ``pkg.mod:make_net``, a
            function or class that makes a module, or a module, which is copied. The working
            directory is searched too.
        options: Arguments of `build_model`, or of the function. ``n_classes`` may reach it under
            another usual name, ``num_classes``.
        seed: Of the initial weights, in ``[0, 2**63)``. A function may draw from PyTorch's global
            generator, which is as before afterwards.

    Raises:
        ConfigError: If there is no such network, it does not take an option, or it cannot be
            made.
    """
    options = dict(options or {})
    if ":" in name:
        # NOTE: foreign code draws from the global generator; the fork gives it back.
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            found = _imported(name)
            torch.default_generator.manual_seed(seed)  # It is imported only once.
            return _made(name, found, options).train()
    if name not in model_names():
        nearest = get_close_matches(name, model_names(), n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        msg = (
            f"No built-in network is called {shown(name)}. {hint}Known: "
            f"{', '.join(model_names())}; or give an import path, pkg.mod:make_net."
        )
        raise ConfigError(msg)
    known = [
        key for key in inspect.signature(build_model).parameters if key not in ("name", "seed")
    ]
    _check_options(name, options, known)
    return build_model(name, **options, seed=seed)


def _made(path: str, found: Any, options: dict[str, Any]) -> nn.Module:  # noqa: ANN401
    if isinstance(found, nn.Module):
        if options:
            msg = f"{path} is a module already and takes no options, got {', '.join(options)}."
            raise ConfigError(msg)
        return copy.deepcopy(found)
    if not callable(found):
        msg = f"{path} must make a torch.nn.Module, got {type(found).__name__}."
        raise ConfigError(msg)
    arguments = _arguments(path, found, options)
    try:
        network = found(**arguments)
    except Exception as error:  # Anything may happen in foreign code.
        said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        msg = f"{path}({said}) failed: {_said(error)}"
        raise ConfigError(msg) from error
    if not isinstance(network, nn.Module):
        msg = f"{path} must make a torch.nn.Module, got {type(network).__name__}."
        raise ConfigError(msg)
    return network


def _arguments(path: str, function: Any, options: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return `options` under the names that `function` has for them."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # Some functions written in C say nothing about themselves.
        return options
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return options
    renamed = {}
    for key, value in options.items():
        others = (other for other in _SYNONYMS.get(key, ()) if other in parameters)
        renamed[key if key in parameters else next(others, key)] = value
    _check_options(path, renamed, list(parameters))
    return renamed


def _check_options(name: str, options: Mapping[str, Any], known: list[str]) -> None:
    for key in options:
        if key not in known:
            msg = f"{name} has no argument {shown(key)}. It has: {', '.join(known) or 'none'}."
            raise ConfigError(msg)


def _imported(path: str) -> Any:  # noqa: ANN401  # whatever a module holds
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # As `python -m` has it.
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # Anything may happen in foreign code.
        msg = f"The module {module_name!r} of {path} cannot be imported: {_said(error)}"
        raise ConfigError(msg) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            nearest = get_close_matches(part, dir(found), n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            msg = f"The module {module_name!r} has no {attribute!r}.{hint}"
            raise ConfigError(msg)
        found = getattr(found, part)
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
