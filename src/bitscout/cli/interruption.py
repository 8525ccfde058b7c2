# SPDX-License-Identifier: Apache-2.0
"""What Ctrl-C does to a command that may take long; without PyTorch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from bitscout.cli.output import print_note

__all__ = ["interruptible"]

INTERRUPTED = 130  # 128 + SIGINT, as shells say it.


@contextmanager
def interruptible(note: str | Callable[[], str]) -> Iterator[None]:
    """End with exit code 130 on Ctrl-C or SIGTERM, and print `note`."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print_note(note if isinstance(note, str) else note())
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
