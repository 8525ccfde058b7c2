# SPDX-License-Identifier: Apache-2.0
"""One root seed, named children: the same (seed, names) gives the same stream everywhere."""

from __future__ import annotations

import hashlib
from operator import index

import numpy as np

from bitscout.errors import ConfigError

__all__ = ["child_rng", "child_seed"]


def child_seed(root: int, *path: str | int) -> int:
    """Return a 63-bit seed that depends on `root` and every part of `path`.

    Derived by SHA-256, so that neither the process, nor the platform, nor NumPy's version, nor
    the order in which children are asked for changes it.

    Args:
        root: The user's seed, >= 0.
        path: What the stream is for, for instance ``("train", trial_number)``.

    Raises:
        ConfigError: If `root` is negative.

    Example:
        >>> child_seed(0, "train", 1) == child_seed(0, "train", 1)
        True
        >>> child_seed(0, "train", 1) == child_seed(0, "train", "1")
        False
    """
    if root < 0:
        msg = f"`seed` must be >= 0, got {root}."
        raise ConfigError(msg)
    # NumPy's integers print their type from version 2 on; an index is an index.
    parts = [part if isinstance(part, str) else index(part) for part in path]
    digest = hashlib.sha256(repr((int(root), *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def child_rng(root: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by `child_seed`."""
    return np.random.default_rng(child_seed(root, *path))
