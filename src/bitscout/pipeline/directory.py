# SPDX-License-Identifier: Apache-2.0
"""The run directory: created once, locked while a run works in it, written atomically.

Everything but the journal is written to a temporary name and renamed, so that a reader, or a run
that was killed and goes on, never sees half a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bitscout.errors import RunError

__all__ = ["RunDirectory", "next_free_directory", "write_errors_explained"]

CONFIG, DATASET, ENVIRONMENT, JOURNAL, DONE = (
    "config.yaml",
    "dataset.json",
    "environment.json",
    "study.journal",
    "done.json",
)
LOCK, FAILURES = ".lock", "failures.json"
# What a run that was killed before it had a configuration may leave behind.
LEFTOVERS = {LOCK, DATASET, ENVIRONMENT}


class RunDirectory:
    """Paths of one run and the ways to write them.

    Args:
        path: The directory; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The resolved configuration; its presence makes the directory a run."""
        return self.path / CONFIG

    @property
    def dataset(self) -> Path:
        """Shape, classes, normalization and fingerprint of the data."""
        return self.path / DATASET

    @property
    def environment(self) -> Path:
        """Versions, hardware and commit."""
        return self.path / ENVIRONMENT

    @property
    def journal(self) -> Path:
        """Optuna's append-only journal."""
        return self.path / JOURNAL

    @property
    def final(self) -> Path:
        """Folder of the final networks."""
        return self.path / "final"

    @property
    def baselines(self) -> Path:
        """Folder of the baselines."""
        return self.path / "baselines"

    @property
    def model(self) -> Path:
        """Folder of a given network as the search begins with it."""
        return self.path / "model"

    @property
    def model_weights(self) -> Path:
        """Weights of the given network, pre-trained where that was asked for."""
        return self.model / "weights.safetensors"

    @property
    def model_space(self) -> Path:
        """The given network as data, and the bit-widths its sensitivities leave."""
        return self.model / "space.json"

    @property
    def sensitivity(self) -> Path:
        """How much the given network's loss minds errors in each layer."""
        return self.model / "sensitivity.json"

    @property
    def hardware(self) -> Path:
        """Folder of tables of what layers cost, and of what boards answered; may be deleted."""
        return self.path / "hardware"

    @property
    def done(self) -> Path:
        """Written when the last final network is; holds the run's total times."""
        return self.path / DONE

    @property
    def failures(self) -> Path:
        """Final networks and baselines whose training diverged, with the reasons."""
        return self.path / FAILURES

    @property
    def report(self) -> Path:
        """The report page."""
        return self.path / "report.html"

    def check_is_run(self) -> None:
        """Check that a run was started here.

        Raises:
            RunError: If the directory is absent or holds no run.
        """
        if not self.path.is_dir():
            msg = f"There is no directory {self.path}. Give the directory of a run."
            raise RunError(msg)
        if not self.config.is_file():
            msg = (
                f"{self.path} is not a run: it has no {CONFIG}. Give the directory that "
                "`bitscout search` made."
            )
            raise RunError(msg)
        if not self.config.stat().st_size:
            msg = f"{self.config} is empty. Restore it from a copy."
            raise RunError(msg)

    def check_is_free(self) -> None:
        """Check that a new run may be started here.

        Raises:
            RunError: If the directory holds a run, or anything else.
        """
        if self.config.is_file():
            msg = (
                f"{self.path} already holds a run. Continue it with `bitscout resume {self.path}`"
                ", look at it with `bitscout show`, or give another --out."
            )
            raise RunError(msg)
        if self.path.exists() and not self.path.is_dir():
            msg = f"{self.path} is a file. Give a directory that does not exist yet as --out."
            raise RunError(msg)
        if self.path.is_dir() and any(not _is_leftover(entry) for entry in self.path.iterdir()):
            msg = (
                f"{self.path} exists, is not empty and is not a run. Nothing was written; give "
                "a directory that does not exist yet as --out."
            )
            raise RunError(msg)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the operating system releases it if we are killed.

        Raises:
            RunError: If another process works in the directory.
        """
        with write_errors_explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                msg = f"Another process is working on {self.path}. Wait for it, or stop it first."
                raise RunError(msg) from error
        try:
            yield
        finally:
            lock.release()

    def write_text(self, path: Path, text: str) -> None:
        """Write `text` to `path` completely or not at all."""
        with write_errors_explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)

    def write_json(self, path: Path, document: object) -> None:
        """Write `document` to `path` as JSON, completely or not at all."""
        self.write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")

    def write_folder(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """Make `folder` appear complete: `fill` writes into a temporary folder first."""
        temporary = folder.with_name(f".{folder.name}.tmp")
        with write_errors_explained(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            fill(temporary)
            temporary.replace(folder)

    def read_failures(self) -> list[dict[str, str]]:
        """Return ``name``, ``label`` and ``reason`` of the final trainings that diverged."""
        failures: list[dict[str, str]] = (
            self.read_json(self.failures) if self.failures.is_file() else []
        )
        return failures

    def read_json(self, path: Path) -> Any:  # noqa: ANN401  # JSON is of any type
        """Return the document in `path`.

        Raises:
            RunError: If the file is missing or damaged.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{path} is missing or damaged ({error}). Restore it from a copy."
            raise RunError(msg) from error


def _is_leftover(entry: Path) -> bool:
    is_temporary = entry.name.startswith(".") and entry.name.endswith(".tmp")
    return entry.name in LEFTOVERS or is_temporary


@contextlib.contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into a `RunError` that names `path`."""
    try:
        yield
    except OSError as error:
        remedy = (
            "Free space; what was finished is kept, and `bitscout resume` goes on from there."
            if error.errno == errno.ENOSPC
            else "Choose a place where files can be written."
        )
        msg = f"Cannot write {path}: {error.strerror or error}. {remedy}"
        raise RunError(msg) from error


def next_free_directory(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or ``parent/name-2``, ``-3`` ... where that is taken."""
    path, count = parent / name, 1
    while path.exists():
        count += 1
        path = parent / f"{name}-{count}"
    return path
