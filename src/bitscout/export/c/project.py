# SPDX-License-Identifier: Apache-2.0
"""A folder of C that a user can build alone: network, header, test vectors, Makefile."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitscout.errors import ConfigError, ExportError
from bitscout.export.c.constants import values_text
from bitscout.export.c.header import header_text
from bitscout.export.c.layout import stored_codes, stored_outputs
from bitscout.export.c.names import input_names, kernel_text
from bitscout.export.c.program import Program
from bitscout.export.c.source import Source
from bitscout.export.graph import IntegerGraph
from bitscout.export.reference import Reference

__all__ = ["CortexMMemory", "TestVectors", "write_c"]

IntArray = npt.NDArray[np.int64]
DEFAULT_VECTORS = 3
# The file by which a folder is known to be ours.
MARK = "bitscout-files.txt"
# What the Makefile makes.
BUILT = ("_test", ".o", ".elf")
C_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = {"test", "cortex_m", "main", "int", "void", "static", "const", "output"}


@dataclass(frozen=True, eq=False)
class TestVectors:
    """Inputs and what the network makes of them.

    Attributes:
        codes: Codes for every `Input`, shape ``(N, C, H, W)``.
        outputs: The reference's outputs, shape ``(N, *)``.
    """

    __test__ = False  # Not a test class, whatever pytest makes of the name.

    codes: Mapping[str, IntArray]
    outputs: IntArray

    @classmethod
    def random(cls, graph: IntegerGraph, n: int = DEFAULT_VECTORS) -> TestVectors:
        """Draw codes from the whole range of the inputs, always the same ones."""
        rng = np.random.default_rng(0)
        codes = {
            op.name: rng.integers(op.grid.quant_min, op.grid.quant_max + 1, (n, *op.shape))
            for op in graph.inputs
        }
        return cls(codes, Reference(graph).run_codes(codes))


@dataclass(frozen=True)
class CortexMMemory:
    """Memory of a board; the defaults are those of the MPS2 AN386.

    Attributes:
        flash_bytes: For code and constants.
        ram_bytes: For static memory and stack.
        stack_bytes: Set aside for the stack; the image measures what is used.
    """

    flash_bytes: int = 4 * 2**20
    ram_bytes: int = 4 * 2**20
    stack_bytes: int = 8192


def write_c(
    graph: IntegerGraph,
    folder: Path,
    *,
    name: str = "network",
    vectors: TestVectors | None = None,
    target: Literal["host", "cortex-m"] = "host",
    memory: CortexMMemory | None = None,
) -> None:
    """Write the network as C99 that needs no library, with a test and a Makefile.

    The folder appears whole or not at all; one that an earlier call wrote is replaced.

    Args:
        graph: Any integer graph.
        folder: Where to; must not exist, be empty, or be from here.
        name: Of the files, and prefix of what they define.
        vectors: For the test; random ones by default.
        target: ``cortex-m`` adds an image without an operating system, to run in QEMU.
        memory: Of the board.

    Raises:
        ConfigError: If `name` or `target` is not one C or this function knows.
        ExportError: If the folder has something else in it, or cannot be written; one that an
            earlier call wrote is still there then.
        UnsupportedError: If the graph does not fit the limits of the C code.
    """
    if not C_NAME.fullmatch(name) or name in RESERVED:
        msg = f"`name` must be a lower-case C identifier of its own, got {name!r}."
        raise ConfigError(msg)
    if target not in ("host", "cortex-m"):
        msg = f"`target` must be 'host' or 'cortex-m', got {target!r}."
        raise ConfigError(msg)
    vectors = vectors or TestVectors.random(graph)
    files = _files(graph, name, vectors)
    files["Makefile"] = _filled("host.mk", name)
    if target == "cortex-m":
        memory = memory or CortexMMemory()
        files["Makefile"] += _filled("cortex_m.mk", name, **vars(memory))
        files["cortex_m.c"] = _filled("cortex_m.c", name)
        files["cortex_m.ld"] = _filled("cortex_m.ld", name)
    # Next time these may be replaced.
    files[MARK] = "\n".join([MARK, *files, ""])
    _write_folder(Path(folder), files)


def _files(graph: IntegerGraph, name: str, vectors: TestVectors) -> dict[str, str]:
    program = Program.of(graph)
    source = Source(program, name)
    text = source.text()
    return {
        f"{name}.c": text,
        f"{name}.h": header_text(program, source),
        f"{name}_vectors.h": _vectors_text(program, name, vectors),
        f"{name}_test.c": _filled("test.c", name),
    }


def _vectors_text(program: Program, name: str, vectors: TestVectors) -> str:
    inputs = stored_codes(program.graph, vectors.codes)
    names = input_names(program.graph)
    parts = ["/* Made by bitscout; do not edit. */\n#include <stdint.h>\n"]
    arguments = []
    for key, codes in inputs.items():
        parts.append(_table("int8_t", f"{names[key]}_vectors", codes))
        arguments.append(f"{names[key]}_vectors[i]")
    parts.append(_table("int32_t", "expected", stored_outputs(vectors.outputs)))
    parts.append(
        f"#define VECTORS {len(vectors.outputs)}\n"
        f"#define RUN_VECTOR(i, output) {name}_run({', '.join(arguments)}, output)\n"
    )
    return "\n".join(parts)


def _table(kind: str, name: str, values: npt.NDArray[np.integer]) -> str:
    rows = "\n".join(f"    {{\n{values_text(row, kind)}\n    }}," for row in values)
    return f"static const {kind} {name}[{len(values)}][{values.shape[1]}] = {{\n{rows}\n}};\n"


def _filled(file: str, name: str, **values: int) -> str:
    """Return a file that comes with the package, its ``@WORDS@`` replaced."""
    text = kernel_text(file).replace("@NAME@", name).replace("@PREFIX@", name.upper())
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", str(value))
    return text


def _write_folder(folder: Path, files: Mapping[str, str]) -> None:
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _not_written(folder, error) from error
    whole, old = scratch / "new", scratch / "old"
    try:
        whole.mkdir()
        for file, text in files.items():
            (whole / file).write_text(text, encoding="ascii")
        if folder.exists():
            folder.rename(old)
        whole.rename(folder)
    except OSError as error:
        raise _not_written(folder, error, _put_back(old, folder)) from error
    finally:
        if folder.exists() or not old.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else {folder.name}
    mark = folder / MARK
    known = mark.read_text(encoding="ascii").split() if mark.is_file() else []
    foreign = sorted(n for n in names - set(known) if known == [] or not n.endswith(BUILT))
    if foreign:
        msg = f"{folder} exists and {foreign[0]!r} was not written by bitscout. Choose another."
        raise ExportError(msg)


def _put_back(old: Path, folder: Path) -> str:
    """Move the folder that was there back; return where it is if that fails, too."""
    try:
        if old.exists():
            old.rename(folder)
    except OSError:
        return f" The folder that was there is now {str(old)!r}."
    return ""


def _not_written(folder: Path, error: OSError, note: str = "") -> ExportError:
    reason = error.strerror or type(error).__name__
    return ExportError(f"Cannot write {str(folder)!r}: {reason}. Choose another folder.{note}")
