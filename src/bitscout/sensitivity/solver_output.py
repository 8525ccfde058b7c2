# SPDX-License-Identifier: Apache-2.0
"""Keeping what a solver written in C prints out of the program's own output."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["discarded_solver_output"]

_STDOUT = 1


@contextmanager
def discarded_solver_output() -> Iterator[None]:
    """Discard what C code writes to standard output.

    HiGHS, as SciPy 1.17 ships it, leaves lines of its debugging there for some programs, whatever
    its options, and standard output may be somebody's JSON.

    NOTE: of the whole process, so another thread that prints meanwhile prints to nowhere.
    """
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # There is no standard output.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        _flush()
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        _flush()
        os.dup2(kept, _STDOUT)
        os.close(nowhere)
        os.close(kept)


def _flush() -> None:
    """Flush the buffers of the C library, which would end up on what comes next."""
    with suppress(OSError, AttributeError, TypeError):  # Not every platform lets itself be asked.
        ctypes.CDLL(None).fflush(None)
