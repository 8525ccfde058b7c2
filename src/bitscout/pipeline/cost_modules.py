# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules to be costed."""

from __future__ import annotations

from torch import nn

from bitscout.errors import ConfigError, shown

__all__ = ["checked_module"]


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
