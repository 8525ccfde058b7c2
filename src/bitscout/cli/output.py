# SPDX-License-Identifier: Apache-2.0
"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.text import Text

__all__ = [
    "print_error",
    "print_json",
    "print_note",
    "print_result",
    "shown_log",
    "stderr_console",
    "stdout_width",
]


def stderr_console() -> Console:
    """Return a console for progress and notes."""
    return Console(stderr=True, highlight=False)


def print_result(*parts: RenderableType) -> None:
    """Print what a command was asked for; strings are text and not wrapped."""
    console = Console(highlight=False)
    for part in parts:
        # Strings as they are: paths and commands must survive being copied.
        is_string = isinstance(part, str)
        console.print(part, markup=not is_string, soft_wrap=is_string)


def stdout_width() -> int:
    """Return how many columns a result may have."""
    return Console().width


def print_json(document: object) -> None:
    """Print the one JSON document of ``--json``."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def print_note(message: str) -> None:
    """Print a line for a person to stderr."""
    stderr_console().print(message, markup=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error to stderr."""
    stderr_console().print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


@contextmanager
def shown_log(name: str) -> Iterator[None]:
    """Print to stderr what the package `name` logs."""
    log, handler = logging.getLogger(name), _Notes()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print_note(record.getMessage())
