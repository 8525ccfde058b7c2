# SPDX-License-Identifier: Apache-2.0
"""Programs that checks start: compilers, emulators."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finished", "find_c_compiler", "first_line", "run_tool"]


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes:
        is_good: Whether it returned 0 in time.
        stdout: What it wrote.
        stderr: What it complained of, or that it took too long.
    """

    is_good: bool
    stdout: bytes
    stderr: str


def find_c_compiler() -> list[str] | None:
    """Return the command of ``$CC`` if that is set, else the first of cc, gcc and clang."""
    chosen = os.environ.get("CC")
    for command in (chosen,) if chosen else ("cc", "gcc", "clang"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    return None


def run_tool(
    command: Sequence[str], *, folder: Path, timeout_s: float, stdin: bytes = b""
) -> Finished:
    """Run a program to its end, or for `timeout_s`."""
    try:
        done = subprocess.run(
            command, cwd=folder, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Finished(False, b"", f"{command[0]} was stopped after {timeout_s:g} s")
    except OSError as error:
        return Finished(False, b"", f"{command[0]} cannot be run: {error.strerror}")
    stderr = done.stderr.decode("utf-8", "replace")
    return Finished(done.returncode == 0, done.stdout, stderr)


def first_line(text: str, *marks: str) -> str:
    """Return the first line with one of the marks, or the first one with anything on it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if any(mark in line for mark in marks)]
    return (marked or lines or ["no message"])[0]
