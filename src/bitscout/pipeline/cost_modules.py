# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to be costed."""

from __future__ import annotations

from torch import nn

from bitscout.core import LayerGraph
from bitscout.errors import BitscoutError, ConfigError, shown
from bitscout.networks import trace

__all__ = ["checked_module", "traced"]


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


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
