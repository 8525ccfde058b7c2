# SPDX-License-Identifier: Apache-2.0
"""The generated C on an emulated Cortex-M4: the same integers, and what they take."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from bitscout.errors import ExportError, UnsupportedError
from bitscout.export.c.header import macs
from bitscout.export.c.layout import graph_outputs
from bitscout.export.c.program import Program
from bitscout.export.c.project import CortexMMemory, TestVectors, write_c
from bitscout.export.c.source import Source
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers, not_run
from bitscout.export.checks.tools import first_line, run_tool
from bitscout.export.graph import IntegerGraph

__all__ = ["build_cortex_m", "check_cortex_m", "require_cortex_m_tools"]

TARGET, SETTING, NAME = "C99", "Cortex-M4, QEMU mps2-an386", "network"
BUILD_TIMEOUT_S = 120.0
RUN_TIMEOUT_S = 300.0
# Package of Debian and Ubuntu for every program.
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-size": "binutils-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "make": "make",
}
NUMBER = re.compile(r"[0-9]{1,20}")  # Of 64 bits.
OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")


def require_cortex_m_tools() -> None:
    """Refuse to go on without the tools.

    Raises:
        UnsupportedError: If one is missing.
    """
    missing = _missing_tools()
    if missing:
        msg = f"A Cortex-M image was asked for, but there is {missing}."
        raise UnsupportedError(msg)


def build_cortex_m(folder: Path) -> None:
    """Build the image in a folder that `write_c` wrote for a Cortex-M: ``network.elf``.

    Raises:
        UnsupportedError: If a tool is missing.
        ExportError: If the network does not fit the board.
    """
    missing = _missing_tools(exclude="qemu-system-arm")
    if missing:
        msg = (
            f"An image for a Cortex-M needs a compiler, and there is {missing}. Nothing was "
            "written; without `--target cortex-m` only C is written, which needs none."
        )
        raise UnsupportedError(msg)
    built = run_tool(["make", "cortex-m"], folder=folder, timeout_s=BUILD_TIMEOUT_S)
    if not built.is_good:
        reason = _why_not_built(built.stderr, CortexMMemory())
        msg = f"The image for a Cortex-M was not built: {reason}. Nothing was written."
        raise ExportError(msg)


def check_cortex_m(
    graph: IntegerGraph,
    inputs: CheckInputs,
    n_images: int = 3,
    memory: CortexMMemory | None = None,
) -> list[TargetResult]:
    """Build an image, run it in QEMU on the first images, and measure it."""
    missing = _missing_tools()
    if missing:
        return [not_run(TARGET, SETTING, missing)]
    memory = memory or CortexMMemory()
    excess = _excess(graph, memory)
    if excess:
        return [_failed(excess)]
    folder = inputs.scratch / "cortex_m"
    expected = inputs.outputs[:n_images]
    codes = {name: values[:n_images] for name, values in inputs.codes.items()}
    vectors = TestVectors(codes, expected)
    write_c(graph, folder, name=NAME, vectors=vectors, target="cortex-m", memory=memory)
    build = ["make", "cortex-m", "ARM_FLAGS=-O3 -DPRINT_OUTPUTS"]
    built = run_tool(build, folder=folder, timeout_s=BUILD_TIMEOUT_S)
    if not built.is_good:
        return [_failed(_why_not_built(built.stderr, memory))]
    ran = run_tool(["make", "qemu"], folder=folder, timeout_s=RUN_TIMEOUT_S)
    # QEMU writes what the program prints to its own standard error.
    printed = _numbers(ran.stdout.decode("ascii", "replace") + ran.stderr)
    words = [word for word in printed.get("output", []) if word < 2**32]
    outputs = np.array(words, dtype=np.uint32).view(np.int32)
    if outputs.size != expected.size:
        n_outputs = f"{outputs.size} of {expected.size} outputs"
        return [_failed(f"the image stopped after {n_outputs}: {first_line(ran.stderr)}")]
    if not {"instructions", "stack_bytes"} <= printed.keys():
        return [_failed(f"the image stopped after its outputs: {first_line(ran.stderr)}")]
    sizes = _sizes(folder)
    if not sizes:
        return [_failed("arm-none-eabi-size gave no sizes of the network")]
    actual = graph_outputs(outputs, graph[graph.output].shape)
    details = _details(graph, sizes, printed)
    return [compare_integers(TARGET, SETTING, expected, actual, details, scores=graph.scores)]


def _missing_tools(exclude: str = "") -> str:
    missing = {
        tool: package
        for tool, package in PACKAGES.items()
        if tool != exclude and shutil.which(tool) is None
    }
    if not missing:
        return ""
    packages = " ".join(dict.fromkeys(missing.values()))
    return f"no {', '.join(missing)}: install the packages {packages}"


def _excess(graph: IntegerGraph, memory: CortexMMemory) -> str:
    """Return why it cannot fit, from its data alone: a compiler takes long over megabytes."""
    program = Program.of(graph)
    source = Source(program, NAME)
    source.text()
    constants = source.constants
    flash = constants.weight_bytes + constants.bias_bytes + constants.other_bytes
    ram = program.memory.arena_bytes + memory.stack_bytes
    sizes = (("FLASH", flash, memory.flash_bytes), ("RAM", ram, memory.ram_bytes))
    complaints = [
        f"at least {needed} bytes in {size} of {region}"
        for region, needed, size in sizes
        if needed > size
    ]
    return f"does not fit the board: {', '.join(complaints)}" if complaints else ""


def _why_not_built(stderr: str, memory: CortexMMemory) -> str:
    sizes = {"FLASH": memory.flash_bytes, "RAM": memory.ram_bytes}
    complaints = [
        f"{int(excess) + sizes[region]} bytes in {sizes[region]} of {region}"
        for region, excess in OVERFLOW.findall(stderr)
    ]
    if complaints:
        return f"does not fit the board: {', '.join(complaints)}"
    return first_line(stderr, "error", "stopped")


def _numbers(text: str) -> dict[str, list[int]]:
    """Return the numbers of every line ``name number``."""
    numbers: dict[str, list[int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and NUMBER.fullmatch(words[1]):
            numbers.setdefault(words[0], []).append(int(words[1]))
    return numbers


def _sizes(folder: Path) -> tuple[int, ...]:
    """Return the bytes of code, data and zeroed data, or nothing if they cannot be read."""
    command = ["arm-none-eabi-size", f"{NAME}.o"]
    sized = run_tool(command, folder=folder, timeout_s=BUILD_TIMEOUT_S)
    found = re.match(rb".*\n\s*(\d+)\s+(\d+)\s+(\d+)\s", sized.stdout)
    return tuple(int(size) for size in found.groups()) if found else ()


def _details(
    graph: IntegerGraph, sizes: tuple[int, ...], printed: dict[str, list[int]]
) -> dict[str, int | float]:
    """Return what the network itself takes: not the test vectors, not the start-up code."""
    text, data, bss = sizes
    instructions, stack = printed["instructions"][0], printed["stack_bytes"][0]
    program = Program.of(graph)
    return {
        "flash_bytes": text + data,
        "ram_bytes": data + bss + stack,
        "static_ram_bytes": data + bss,
        "stack_bytes": stack,
        "instructions": instructions,
        "instructions_per_mac": round(instructions / max(1, macs(program)), 3),
    }


def _failed(reason: str) -> TargetResult:
    return TargetResult(TARGET, SETTING, "failed", reason)
