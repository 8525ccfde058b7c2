# SPDX-License-Identifier: Apache-2.0
"""The ``.c`` file: the kernels a network needs, its constants, and the calls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bitscout.errors import UnsupportedError
from bitscout.export.c.constants import Constants
from bitscout.export.c.names import comment, input_names, kernel_text
from bitscout.export.c.program import Call, Program, code_offset, is_depthwise, scratch_sizes
from bitscout.export.graph import (
    Concat,
    Conv,
    Flatten,
    Grid,
    Input,
    Linear,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)

__all__ = ["Source"]

# For the kernel `add`: an operand of 9 bits and up to 20 more, and 62 bits for two products.
ADD_SHIFTS = (13, 61)
# What every kernel calls, in the order of definition.
LAYER = ("dsp", "types", "round", "clamp", "finish", "layer")
NEEDS = {
    "conv": LAYER,
    "depthwise": LAYER,
    "rescale": ("dsp", "types", "round", "clamp"),
    "add": ("dsp", "types"),
}


@dataclass
class Source:
    """The text of the ``.c`` file, made call by call.

    Args:
        program: What to write.
        name: Prefix of everything public.
    """

    program: Program
    name: str
    constants: Constants = field(default_factory=Constants)
    _kernels: dict[str, None] = field(default_factory=dict)
    _calls: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the whole file."""
        for index, call in enumerate(self.program.calls):
            self._calls.append(self._call(index, call))
        kernels = [kernel_text(f"{kernel}.c") for kernel in self._kernel_files()]
        words = self.program.memory.arena_bytes // 4
        arena = f"/* Tensors share it. */\nstatic int32_t arena[{words}];\n" if words else ""
        body = "\n".join(self._calls)
        parts = [
            f"/* Made by bitscout; do not edit. See {self.name}.h. */",
            f'#include "{self.name}.h"\n\n#include <stddef.h>\n',
            *kernels,
            *self.constants.text,
            arena,
            f"{self.signature()}\n{{\n{body}}}\n",
            self._class_function(),
        ]
        return "\n".join(part for part in parts if part)

    def signature(self) -> str:
        """Return the function's head."""
        names = input_names(self.program.graph).values()
        inputs = ", ".join(f"const int8_t *{name}" for name in names)
        return f"void {self.name}_run({inputs}, int32_t *output)"

    def _class_function(self) -> str:
        """Return the function that says which output is the largest, steps taken into account."""
        output = self.program.graph[self.program.graph.output]
        if len(output.shape) > 1:
            return ""
        text = kernel_text("class.c").replace("@NAME@", self.name)
        text = text.replace("@PREFIX@", self.name.upper())
        if np.unique(output.grid.scale).size == 1:
            return text.replace("@REAL@", "output[i]").replace("@STEPS@", "")
        steps = (
            f"    static const int32_t steps[] = {self.name.upper()}_OUTPUT_STEP_MULTIPLIERS;\n"
        )
        return text.replace("@REAL@", "(int64_t)output[i] * steps[i]").replace("@STEPS@", steps)

    def _kernel_files(self) -> list[str]:
        needed = [*dict.fromkeys(k for kernel in self._kernels for k in NEEDS.get(kernel, ()))]
        order = [kernel for kernel in LAYER if kernel in needed]
        rounding = "round_divide" if self.constants.has_divisor else "round_shift"
        return ["function", *(rounding if k == "round" else k for k in order), *self._kernels]

    def _call(self, index: int, call: Call) -> str:
        op = call.op
        if op is None:
            return self._hand_out()
        title = " + ".join(comment(o.name) for o in dict.fromkeys((op, *call.results)))
        shape = " x ".join(str(n) for n in (*op.shape[1:], op.shape[0]))
        head = f"    /* {title}: {shape} */\n"
        match op:
            case Conv() | Linear():
                return head + self._layer(index, op, call.results)
            case Rescale():
                return head + self._rescale(index, op)
            case SumPool() | MaxPool():
                return head + self._pool(index, op)
            case Concat():
                return head + self._concat(op)
            case Relu():
                size = int(np.prod(op.shape))
                zero = op.grid.zero_point - code_offset(op.grid)
                return head + self._plain("relu", op, f"{zero}, {size}")
            case PadChannels():
                positions, channels = _extent(op)
                inner = self.program.graph[op.inputs[0]].shape[0]
                zero = op.grid.zero_point - code_offset(op.grid)
                counts = f"{op.before}, {inner}, {channels - op.before - inner}"
                return head + self._plain("pad", op, f"{zero}, {positions}, {counts}")
            case Flatten():
                channels, height, width = self.program.graph[op.inputs[0]].shape
                return head + self._plain("flatten", op, f"{height * width}, {channels}")
            case _:
                msg = f"Operation {op.name!r} of kind {op.kind!r} has no form in C."
                raise UnsupportedError(msg)

    def _layer(self, index: int, op: Conv | Linear, results: tuple[Op, ...]) -> str:
        name = f"layer_{index}"
        source = self.program.graph[op.inputs[0]]
        self.constants.layer(name, op, source, self.program.orders.get(source.name))
        targets = []
        for number, result in enumerate(results):
            constants = "NULL"
            if isinstance(result, Rescale):
                constants = f"&rescale_{index}_{number}"
                self.constants.rescale(constants[1:], result, None)
            targets.append(f"{{{constants}, {self._outlet(result)}}}")
        kernel = "depthwise" if is_depthwise(op) else "conv"
        self._kernels[kernel] = None
        n_weights, n_patch = scratch_sizes(op)
        # Weights first, then windows.
        offset = self.program.memory.scratch_offsets.get(op.name, 0)
        weights = _codes_at(offset) if n_weights else "NULL"
        patch = _codes_at(offset + -(-n_weights // 4) * 4) if n_patch else "NULL"
        call = (
            f"{kernel}(&{name}, {self._address(source.name)}, {weights}, {patch}, targets, "
            f"{len(targets)});"
        )
        return (
            "    {\n"
            f"        const target_t targets[] = {{{', '.join(targets)}}};\n"
            f"        {call}\n"
            "    }\n"
        )

    def _rescale(self, index: int, op: Rescale) -> str:
        graph, name = self.program.graph, f"rescale_{index}"
        self.constants.rescale(name, op, self.program.orders.get(op.name))
        if _is_addition(op, [graph[x].grid for x in op.inputs]):
            self._kernels["add"] = None
            zeros = (graph[x].grid.zero_point - code_offset(graph[x].grid) for x in op.inputs)
            addresses = (self._address(x) for x in op.inputs)
            rest = f"{int(np.prod(op.shape))}, {self._address(op.name)}"
            arguments = ", ".join([*addresses, *map(str, zeros), rest])
            return f"    add(&{name}, {arguments});\n"
        self._kernels["rescale"] = None
        operands = []
        for source in (graph[x] for x in op.inputs):
            zero = source.grid.zero_point - code_offset(source.grid)
            operands.append(f"{{{self._outlet(source)}, {zero}}}")
        positions, channels = _extent(op)
        call = (
            f"rescale(&{name}, operands, {len(operands)}, {positions}, {channels}, "
            f"{self._outlet(op)});"
        )
        return (
            "    {\n"
            f"        const operand_t operands[] = {{{', '.join(operands)}}};\n"
            f"        {call}\n"
            "    }\n"
        )

    def _pool(self, index: int, op: SumPool | MaxPool) -> str:
        name = f"pool_{index}"
        self.constants.windows(name, op.windows)
        source = self.program.graph[op.inputs[0]]
        n_rows, n_columns = op.windows.output_size
        rest = (
            f"{name}_rows, {n_rows}, {name}_columns, {n_columns}, {source.shape[2]}, "
            f"{source.shape[0]}"
        )
        if isinstance(op, SumPool):
            rest = f"{source.grid.zero_point - code_offset(source.grid)}, {rest}"
        return self._plain(op.kind, op, rest)

    def _concat(self, op: Concat) -> str:
        positions, out_channels = _extent(op)
        lines, first = [], 0
        for name in op.inputs:
            source = self.program.graph[name]
            if code_offset(source.grid) != code_offset(op.grid):
                msg = (
                    f"Operation {op.name!r} concatenates codes of two ranges: {name!r} has "
                    f"{source.grid.bit_width} bits, the result {op.grid.bit_width}."
                )
                raise UnsupportedError(msg)
            channels = source.shape[0]
            call = f"{positions}, {channels}, {first}, {out_channels}"
            lines.append(self._plain("concat", op, call, source))
            first += channels
        return "".join(lines)

    def _plain(self, kernel: str, op: Op, rest: str, source: Op | None = None) -> str:
        """Return a call of a kernel that exists for codes and for sums."""
        source = source or self.program.graph[op.inputs[0]]
        kernel = f"{kernel}_{'sums' if source.grid.is_sums else 'codes'}"
        self._kernels[kernel] = None
        return f"    {kernel}({self._address(source.name)}, {self._address(op.name)}, {rest});\n"

    def _hand_out(self) -> str:
        source = self.program.graph[self.program.graph.output]
        kernel = "output_sums" if source.grid.is_sums else "output_codes"
        self._kernels[kernel] = None
        rest = f"{code_offset(source.grid)}, {int(np.prod(source.shape))}"
        return f"    {kernel}({self._address(source.name)}, output, {rest});\n"

    def _outlet(self, op: Op) -> str:
        """Return a pointer to codes and one to sums, of which one is NULL."""
        address = self._address(op.name)
        return f"NULL, {address}" if op.grid.is_sums else f"{address}, NULL"

    def _address(self, name: str) -> str:
        home = self.program.home(name)
        op = self.program.graph[home]
        if isinstance(op, Input):
            return input_names(self.program.graph)[home]
        if home == self.program.direct_output:
            return "output"
        offset = self.program.memory.offsets[home]
        return f"arena + {offset // 4}" if op.grid.is_sums else _codes_at(offset)


def _is_addition(op: Rescale, operands: list[Grid]) -> bool:
    """Whether this is an addition of two tensors of codes without constants per channel."""
    is_plain = (
        op.multiplier.shape == (2, 1) and op.shift.size == 1 and bool((op.divisor == 1).all())
    )
    has_codes = not any(grid.is_sums for grid in (*operands, op.grid))
    return is_plain and has_codes and bool((ADD_SHIFTS[0] <= op.shift <= ADD_SHIFTS[1]).all())


def _codes_at(offset: int) -> str:
    return f"(int8_t *)arena + {offset}"


def _extent(op: Op) -> tuple[int, int]:
    """Return the number of positions and of channels."""
    return int(np.prod(op.shape[1:])), op.shape[0]
