# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to be costed: objects, and what an import path makes."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from bitscout.core import LayerGraph
from bitscout.errors import BitscoutError, ConfigError, shown
from bitscout.networks import trace
from bitscout.training import fork_rng

__all__ = ["checked_module", "make_module", "traced"]


def checked_module(source: object) -> nn.Module:
    """Return `source` if it is a module.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(source, nn.Module):
        return source
    is_class = isinstance(source, type) and issubclass(source, nn.Module)
    hint = " Pass a module, not its class." if is_class else ""
    msg = (
        "`source` must be a name, a path, an import path or a torch.nn.Module, got "
        f"{shown(source)}.{hint}"
    )
    raise ConfigError(msg)


def traced(network: nn.Module, label: str, input_shape: tuple[int, ...]) -> LayerGraph:
    """Return the layers and operations of `network`, which stays as it is.

    Args:
        network: Any module.
        label: What it is, for messages.
        input_shape: Of one input, without the batch.

    Raises:
        ConfigError: If it does not run on such an input.
        UnsupportedError: If it does something that no layer graph can say.
    """
    try:
        return trace(network, input_shape)
    except BitscoutError:
        raise
    except Exception as error:  # Anything may happen in foreign code.
        shape = "x".join(map(str, input_shape))
        msg = f"{label} does not run on an input of {shape}: {_said(error)}"
        raise ConfigError(msg) from error


def make_module(path: str) -> nn.Module:
    """Return the module that `path` makes, with the same random weights every time.

    Args:
        path: ``pkg.mod:make_net``, a function, a class or a module.

    Raises:
        ConfigError: If it cannot be imported or makes no module.
    """
    found = _imported(path)
    try:
        with fork_rng(0):
            network = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # Anything may happen in foreign code.
        msg = f"{path}() failed: {_said(error)}"
        raise ConfigError(msg) from error
    if not isinstance(network, nn.Module):
        msg = f"{path} must make a torch.nn.Module, got {type(network).__name__}."
        raise ConfigError(msg)
    return network


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
