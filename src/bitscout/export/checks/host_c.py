# SPDX-License-Identifier: Apache-2.0
"""The generated C, compiled for this machine, against the integer reference."""

from __future__ import annotations

import numpy as np

from bitscout.errors import UnsupportedError
from bitscout.export.c.header import macs
from bitscout.export.c.layout import graph_outputs, stored_codes
from bitscout.export.c.names import input_names, kernel_text
from bitscout.export.c.program import Program
from bitscout.export.c.project import TestVectors, write_c
from bitscout.export.c.source import Source
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers, not_run
from bitscout.export.checks.tools import find_c_compiler, first_line, run_tool
from bitscout.export.graph import IntegerGraph

__all__ = ["check_host_c", "require_c_compiler"]

TARGET, SETTING, NAME = "C99", "host", "network"
COMPILE_TIMEOUT_S = 120.0
RUN_TIMEOUT_S = 600.0
# Of all images together: what a slow machine computes in that time. Large networks run fewer.
MAX_MACS = 2 * 10**11
MIN_IMAGES = 16
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
HOW_TO_INSTALL = "no C compiler: install gcc or clang, or set CC"


def require_c_compiler() -> None:
    """Refuse to go on without a compiler.

    Raises:
        UnsupportedError: If there is none.
    """
    if find_c_compiler() is None:
        msg = f"Compiled C was asked for, but there is {HOW_TO_INSTALL}."
        raise UnsupportedError(msg)


def check_host_c(graph: IntegerGraph, inputs: CheckInputs) -> list[TargetResult]:
    """Write, compile and run the network on as many images as time allows.

    Warnings of the compiler are errors.
    """
    compiler = find_c_compiler()
    if compiler is None:
        return [not_run(TARGET, SETTING, HOW_TO_INSTALL)]
    folder = inputs.scratch / "host_c"
    program = Program.of(graph)
    n_images = max(MIN_IMAGES, MAX_MACS // max(1, macs(program)))
    codes = {name: values[:n_images] for name, values in inputs.codes.items()}
    expected = inputs.outputs[:n_images]
    first = {name: values[:1] for name, values in codes.items()}
    write_c(graph, folder, name=NAME, vectors=TestVectors(first, expected[:1]))
    (folder / "runner.c").write_text(runner_text(program), encoding="ascii")
    sources = ["runner.c", f"{NAME}.c"]
    command = [*compiler, *WARNINGS, "-O2", "-o", "runner", *sources]
    compiled = run_tool(command, folder=folder, timeout_s=COMPILE_TIMEOUT_S)
    if not compiled.is_good:
        return [_failed(first_line(compiled.stderr, "error", "stopped"))]
    stored = stored_codes(graph, codes)
    images = np.concatenate([stored[op.name] for op in graph.inputs], axis=1)
    ran = run_tool(
        [str(folder / "runner")], folder=folder, timeout_s=RUN_TIMEOUT_S, stdin=images.tobytes()
    )
    if not ran.is_good or len(ran.stdout) != 4 * expected.size:
        n_bytes = f"{len(ran.stdout)} of {4 * expected.size} bytes of output"
        return [_failed(f"the program stopped after {n_bytes}: {first_line(ran.stderr)}")]
    flat = np.frombuffer(ran.stdout, dtype=np.int32)
    outputs = graph_outputs(flat, graph[graph.output].shape)
    details = _details(program)
    return [compare_integers(TARGET, SETTING, expected, outputs, details, scores=graph.scores)]


def runner_text(program: Program) -> str:
    """Return the program that reads images and writes outputs."""
    names = list(input_names(program.graph).values())
    prefix = NAME.upper()
    buffers = [f"static int8_t {name}[{prefix}_{name.upper()}_SIZE];" for name in names]
    reads = [f"fread({name}, sizeof {name}, 1, stdin) == 1" for name in names]
    replaced = {
        "@INPUTS@": "\n".join(buffers),
        "@READS@": " && ".join(reads),
        "@ARGUMENTS@": ", ".join(names),
        "@NAME@": NAME,
        "@PREFIX@": prefix,
    }
    text = kernel_text("runner.c")
    for word, value in replaced.items():
        text = text.replace(word, value)
    return text


def _details(program: Program) -> dict[str, int]:
    source = Source(program, NAME)
    source.text()
    constants = source.constants
    return {
        "weight_bytes": constants.weight_bytes,
        "bias_bytes": constants.bias_bytes,
        "other_constant_bytes": constants.other_bytes,
        "arena_bytes": program.memory.arena_bytes,
        "tensor_peak_bytes": program.memory.tensor_peak_bytes,
        "macs": macs(program),
    }


def _failed(reason: str) -> TargetResult:
    return TargetResult(TARGET, SETTING, "failed", reason)
