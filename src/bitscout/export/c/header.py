# SPDX-License-Identifier: Apache-2.0
"""The ``.h`` file: how to call the network, on which grids, and what it costs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from bitscout.export.c.names import input_names
from bitscout.export.c.program import Program, code_offset
from bitscout.export.c.source import Source
from bitscout.export.graph import Conv, Grid, Linear

__all__ = ["header_text", "macs"]


def macs(program: Program) -> int:
    """Return the multiply-accumulates of one run."""
    layers = [c.op for c in program.calls if isinstance(c.op, Conv | Linear)]
    return sum(int(np.prod(op.shape)) * op.weight[0].size for op in layers)


def header_text(program: Program, source: Source) -> str:
    """Return the whole file; the source's text must have been made."""
    graph, prefix = program.graph, source.name.upper()
    memory, constants = program.memory, source.constants
    output = graph[graph.output]
    defines: dict[str, str] = {}
    for op, name in zip(graph.inputs, input_names(graph).values(), strict=True):
        offset = code_offset(op.grid)
        part = f"{prefix}_{name.upper()}"
        defines |= _size(part, op.shape) | _step(part, op.grid)
        defines |= {
            f"{part}_ZERO_POINT": str(op.grid.zero_point - offset),
            f"{part}_MIN": f"({op.grid.quant_min - offset})",
            f"{part}_MAX": str(op.grid.quant_max - offset),
        }
    defines |= _size(f"{prefix}_OUTPUT", output.shape)
    defines |= _step(f"{prefix}_OUTPUT", output.grid)
    defines |= {f"{prefix}_OUTPUT_ZERO_POINT": str(output.grid.zero_point)}
    defines |= {
        f"{prefix}_ARENA_BYTES": str(memory.arena_bytes),
        f"{prefix}_PEAK_BYTES": str(memory.peak_bytes),
        f"{prefix}_TENSOR_PEAK_BYTES": str(memory.tensor_peak_bytes),
        f"{prefix}_WEIGHT_BYTES": str(constants.weight_bytes),
        f"{prefix}_BIAS_BYTES": str(constants.bias_bytes),
        f"{prefix}_OTHER_CONSTANT_BYTES": str(constants.other_bytes),
        f"{prefix}_MACS": str(macs(program)),
    }
    lines = "\n".join(f"#define {key} {value}" for key, value in defines.items())
    signatures = [source.signature()]
    if len(output.shape) == 1:
        signatures.append(f"int32_t {source.name}_class(const int32_t *output)")
    return HEADER.format(
        name=source.name, prefix=prefix, defines=lines, signature=";\n".join(signatures)
    )


HEADER = """\
/* Made by bitscout; do not edit.
 *
 * Inputs are codes, an int8_t each, in the order row, column, channel. The code of a real value x
 * is x / STEP rounded half to even, plus ZERO_POINT, at least MIN and at most MAX. Outputs are
 * integers q in the same order that stand for (q - ZERO_POINT) STEP. A step is the rational
 * number STEP_NUMERATOR / 2^STEP_SHIFT, or where channels have steps of their own, one of
 * STEP_MULTIPLIERS / 2^STEP_SHIFT: compare outputs times their steps, as {name}_class does.
 *
 * Memory beside the caller's input and output: ARENA_BYTES of static memory, in which tensors
 * that are not needed together share bytes, scratch memory for unpacked weights and windows
 * included, and a few hundred bytes of stack. PEAK_BYTES is the most that is needed at one time,
 * TENSOR_PEAK_BYTES the same without scratch memory.
 *
 * Not re-entrant: one call at a time, because the static memory is used by each.
 */
#ifndef {prefix}_H
#define {prefix}_H

#include <stdint.h>

{defines}

#ifdef __cplusplus
extern "C" {{
#endif
{signature};
#ifdef __cplusplus
}}
#endif

#endif
"""


def _size(part: str, shape: tuple[int, ...]) -> dict[str, str]:
    sizes = {f"{part}_SIZE": str(int(np.prod(shape)))}
    if len(shape) == 3:
        for axis, size in zip(("CHANNELS", "HEIGHT", "WIDTH"), shape, strict=True):
            sizes[f"{part}_{axis}"] = str(size)
    return sizes


def _step(part: str, grid: Grid) -> dict[str, str]:
    """Return a tensor's step, exactly, or its several steps to 31 bits."""
    if np.unique(grid.scale).size > 1:
        multipliers, shift = _multipliers(grid)
        return {
            f"{part}_STEP_MULTIPLIERS": f"{{{', '.join(map(str, multipliers))}}}",
            f"{part}_STEP_SHIFT": str(shift),
        }
    # A binary floating-point number is a whole number over a power of two.
    step = Fraction(float(grid.scale.flat[0]))
    return {
        f"{part}_STEP_NUMERATOR": str(step.numerator),
        f"{part}_STEP_SHIFT": str(step.denominator.bit_length() - 1),
    }


def _multipliers(grid: Grid) -> tuple[list[int], int]:
    """Return several steps as integers of up to 31 bits over one power of two."""
    exponent = 31 - int(np.frexp(grid.scale.max())[1])
    # Not 2**31, to which the largest might be rounded up.
    integers = np.minimum(np.rint(np.ldexp(grid.scale, exponent)), 2.0**31 - 1)
    return integers.astype(np.int64).tolist(), exponent
