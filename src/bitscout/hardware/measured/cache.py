# SPDX-License-Identifier: Apache-2.0
"""Answers on disk, one JSON object a line, for several processes at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bitscout.core import canonical_json
from bitscout.errors import ConfigError

__all__ = ["append_line", "find_line"]


def find_line(path: Path, key: str) -> Any | None:  # noqa: ANN401  # JSON
    """Return the answer that was kept for `key`, `None` if there is none.

    A line that is no JSON is one whose writer was killed; it counts as not there.

    Raises:
        ConfigError: If there is a file that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    for line in text.splitlines():
        if key in line:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("key") == key:
                return entry.get("answer")
    return None


def append_line(path: Path, key: str, answer: dict[str, Any]) -> None:
    """Keep an answer for `key`.

    One write to a file opened for appending: the system puts the lines of several processes one
    after the other. The line ends begin it too, so that a torn line spoils no other.

    Raises:
        ConfigError: If it cannot be written.
    """
    line = f"\n{canonical_json({'key': key, 'answer': answer})}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ConfigError:
    msg = f"The cache of measurements {str(path)!r} cannot be used: {error.strerror}."
    return ConfigError(f"{msg} Choose another file for `cache`.")
