# SPDX-License-Identifier: Apache-2.0
"""Randomness of torch: explicit generators, and the one place that touches the global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitscout.errors import ConfigError

__all__ = ["fork_rng", "torch_generator"]

MAX_SEED = 2**63 - 1  # What `core.child_seed` returns at most; torch itself takes 64 bits.


def torch_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator on `device`, seeded with `seed`.

    The stream depends on the kind of device: the same seed draws other numbers on a GPU.

    Args:
        seed: In ``[0, 2**63 - 1]``, for instance from `bitscout.core.child_seed`.
        device: Where the numbers are drawn.

    Raises:
        ConfigError: If `seed` is out of range.
    """
    _check_seed(seed)
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def fork_rng(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block and put their old state back after it.

    For the draws that take no generator: the initial weights of a module, dropout.

    Args:
        seed: In ``[0, 2**63 - 1]``.
        device: The device whose generator is forked, besides the CPU's.

    Raises:
        ConfigError: If `seed` is out of range.
    """
    _check_seed(seed)
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        msg = f"`seed` must be in [0, 2**63 - 1], got {seed}."
        raise ConfigError(msg)
