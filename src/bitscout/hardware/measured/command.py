# SPDX-License-Identifier: Apache-2.0
"""Running a command that may fail, hang or talk too much."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

__all__ = ["Outcome", "join_command", "run_command", "split_command"]

_LAST_LINES: Final = 20
_LAST_BYTES: Final = 2**16
_LARGEST_ANSWER: Final = 2**24


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        failure: Why it gave no answer, `None` if it returned 0 in time.
        stdout: What it wrote.
        tail: The last lines of all it wrote.
    """

    failure: str | None
    stdout: str
    tail: str


def split_command(value: object) -> tuple[str, ...]:
    """Return the words of a command, from text with shell quotes or from a list.

    Raises:
        ValueError: If there are no words, or a quote is not closed.
        TypeError: If it is neither text nor a list.
    """
    if isinstance(value, str):
        words = shlex.split(value)
    elif isinstance(value, list | tuple):
        # YAML reads a word such as 5 as a number.
        words = [str(word) for word in value if type(word) in (str, int, float)]
        if len(words) != len(value):
            raise ValueError(value)
    else:
        raise TypeError(value)
    if not words or not words[0]:
        raise ValueError(value)
    return tuple(words)


def join_command(words: Sequence[str]) -> str:
    """Return the text that `split_command` splits, with commas inside quotes only."""
    quoted = [shlex.quote(word) for word in words]
    return " ".join(f"'{text}'" if "," in text and "'" not in text else text for text in quoted)


def run_command(words: Sequence[str], text: str, timeout_s: float) -> Outcome:
    """Run a command without a shell, give it `text` on stdin, and wait for its end.

    When time is up, or an exception comes (Ctrl-C), the command and all it has started in its
    process group are killed. Input and output are files, not pipes: whatever survives that
    cannot keep us waiting.

    Raises:
        OSError: If it cannot be started.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text.encode())
        stdin.seek(0)
        process = subprocess.Popen(
            words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            code = process.wait(timeout_s)
            failure = None if code == 0 else _ending(code)
        except subprocess.TimeoutExpired:
            failure = f"it was stopped after {timeout_s:g} s"
        finally:
            if process.poll() is None:
                _kill_group(process)
        tail = "\n".join(filter(None, (_last_lines(stdout), _last_lines(stderr))))
        stdout.seek(0)
        answer = stdout.read(_LARGEST_ANSWER + 1)
    if failure is None and len(answer) > _LARGEST_ANSWER:
        failure = f"it wrote more than {_LARGEST_ANSWER} bytes on stdout"
    return Outcome(failure, answer.decode("utf-8", "replace"), tail)


def _ending(code: int) -> str:
    if code > 0:
        return f"it returned {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)  # It leads the group: start_new_session.
    else:
        process.kill()
    process.wait()


def _last_lines(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LAST_BYTES))
    lines = file.read().decode("utf-8", "replace").rstrip().splitlines()
    return "\n".join(lines[-_LAST_LINES:])
