# SPDX-License-Identifier: Apache-2.0
"""The journal's file: Optuna's format, written by the one process that holds the run's lock."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

__all__ = ["ExclusiveJournalFile"]


class ExclusiveJournalFile(BaseJournalBackend):
    """A journal backend for a single writer.

    Optuna's own backend locks, flushes to the disk and unlocks for every parameter of every
    trial: 49 waits for the disk a proposal, 0.3 s on a busy machine. Here every line reaches the
    operating system at once, which is all that a killed process needs, and the disk when `sync`
    is called, once a trial; a power cut costs at most the trial in work. What belongs together is
    written by one call in a `transaction`. There is no lock file, so none can be left behind.
    Others may read the file at any time, with Optuna's own backend.

    Args:
        path: The journal; created where there is none. Half a line at its end, left by a killed
            writer, is cut off.

    Raises:
        OSError: If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        _drop_partial_line(path)
        self._reader = JournalFileBackend(str(path))
        binary = getattr(os, "O_BINARY", 0)  # Windows would write its own line ends.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary
        self._descriptor = os.open(path, flags, 0o644)
        with path.open("rb") as file:
            self._n_found = sum(1 for _ in file)
        self._first_unread = self._n_found
        self._unread: deque[dict[str, Any]] = deque()
        self._held: list[str] | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is appended inside as a whole at the end, or not at all.

        A proposal is some fifty lines. Half a proposal would have to be completed by a sampler
        that sees the trial in work as one of its past; others than ours then propose otherwise.

        Raises:
            OSError: If the disk is full; the file is then as before.
        """
        self._held = []
        try:
            yield
            self._write(self._held)
        finally:
            self._held = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the lines from number `log_number_from` on, those of a transaction included."""
        if log_number_from < self._n_found:
            yield from itertools.islice(
                self._reader.read_logs(log_number_from), self._n_found - log_number_from
            )
        # Optuna reads every line once, so what it has read can go.
        while self._unread and self._first_unread < log_number_from:
            self._unread.popleft()
            self._first_unread += 1
        yield from list(self._unread)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append one line for each of `logs`.

        Raises:
            OSError: If the disk is full; the file is then as before.
        """
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        if self._held is None:
            self._write(lines)
        else:
            self._held += lines
        # A copy as a reader of the file would get it.
        self._unread += [json.loads(line) for line in lines]

    def _write(self, lines: list[str]) -> None:
        before = os.fstat(self._descriptor).st_size
        rest = memoryview("".join(lines).encode())
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _drop_partial_line(path: Path) -> None:
    """Cut the bytes after the last newline of `path`."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
