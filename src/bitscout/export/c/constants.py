# SPDX-License-Identifier: Apache-2.0
"""The constants of operations as C text, and how many bytes they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bitscout.export.c.layout import folded_bias, ordered_weights
from bitscout.export.c.program import INT16_MAX, code_offset
from bitscout.export.fixed_point import MAX_SHIFT
from bitscout.export.graph import Conv, Linear, Op, Rescale
from bitscout.export.windows import Windows
from bitscout.quantization.packing import pack_bits

__all__ = ["Constants"]

IntArray = npt.NDArray[np.int64]
VALUES_PER_LINE = 16


@dataclass
class Constants:
    """Collects definitions.

    Attributes:
        text: C definitions.
        weight_bytes: Packed weights.
        bias_bytes: Biases.
        other_bytes: Multipliers, shifts, divisors and windows.
        has_divisor: Whether a rescaling divides by more than a power of two.
    """

    text: list[str] = field(default_factory=list)
    weight_bytes: int = 0
    bias_bytes: int = 0
    other_bytes: int = 0
    has_divisor: bool = False

    def layer(self, name: str, op: Conv | Linear, source: Op, order: IntArray | None) -> None:
        """Define a layer's weights, bias and sizes."""
        blob = pack_bits(ordered_weights(op, order), op.weight_bits)
        self._array(f"{name}_weights", "uint8_t", blob)
        self.weight_bytes += blob.size
        bias = folded_bias(op, source.grid)
        has_bias = bool(bias.any())
        if has_bias:
            self._array(f"{name}_bias", "uint32_t", bias)
            self.bias_bytes += 4 * bias.size
        fields = _sizes(op, source) | {
            "weights": f"{name}_weights",
            "bias": f"{name}_bias" if has_bias else "NULL",
            "bits": op.weight_bits,
            "zero": source.grid.zero_point - code_offset(source.grid),
        }
        self._struct(name, "layer_t", fields)

    def rescale(self, name: str, op: Rescale, order: IntArray | None) -> None:
        """Define a rescaling's constants."""
        multiplier, shift = _one_if_equal(op, order)
        divisor = np.unique(op.divisor) if np.unique(op.divisor).size == 1 else op.divisor
        exponent = int(divisor.flat[0]).bit_length() - 1
        is_power = divisor.size == 1 and divisor.flat[0] == 2**exponent
        if is_power and shift.max() + exponent <= MAX_SHIFT:
            # The same rational number, without a division.
            shift, divisor = shift + exponent, np.array([1])
        self._array(f"{name}_multiplier", "int32_t", multiplier)
        self._array(f"{name}_shift", "uint8_t", shift)
        self.other_bytes += 4 * multiplier.size + shift.size
        divides = bool((divisor != 1).any())
        if divides:
            self._array(f"{name}_divisor", "uint32_t", divisor)
            self.other_bytes += 4 * divisor.size
            self.has_divisor = True
        offset = code_offset(op.grid)
        fields: dict[str, object] = {
            "multiplier": f"{name}_multiplier",
            "shift": f"{name}_shift",
            "divisor": f"{name}_divisor" if divides else "NULL",
            "channel_step": int(shift.size > 1),
            "divisor_step": int(divisor.size > 1),
            "zero": op.grid.zero_point - offset,
            "low": op.grid.quant_min - offset,
            "high": op.grid.quant_max - offset,
        }
        self._struct(name, "rescale_t", fields)

    def windows(self, name: str, windows: Windows) -> None:
        """Define the spans of pooling windows."""
        for axis, spans in (("rows", windows.rows), ("columns", windows.columns)):
            self._array(f"{name}_{axis}", "uint16_t", np.array(spans))
            self.other_bytes += 4 * len(spans)

    def _array(self, name: str, kind: str, values: npt.NDArray[np.integer]) -> None:
        self.text.append(array_text(name, kind, values))

    def _struct(self, name: str, kind: str, fields: dict[str, object]) -> None:
        values = "\n".join(f"    .{key} = {value}," for key, value in fields.items())
        self.text.append(f"static const {kind} {name} = {{\n{values}\n}};\n")


def array_text(name: str, kind: str, values: npt.NDArray[np.integer]) -> str:
    """Return the definition of a constant array."""
    return f"static const {kind} {name}[] = {{\n{values_text(values, kind)}\n}};\n"


def values_text(values: npt.NDArray[np.integer], kind: str) -> str:
    """Return numbers as an initializer, several in a line."""
    suffix = "u," if kind == "uint32_t" else ","
    items: Sequence[int] = values.reshape(-1).tolist()
    lines = (
        "    " + " ".join(f"{item}{suffix}" for item in items[i : i + VALUES_PER_LINE])
        for i in range(0, len(items), VALUES_PER_LINE)
    )
    return "\n".join(lines)


def _sizes(op: Conv | Linear, source: Op) -> dict[str, object]:
    """Return the sizes of a layer; a linear one is a 1 x 1 convolution of one position."""
    if isinstance(op, Linear):
        features_out, features = op.weight.shape
        return _fields((features, 1, 1), (features_out, 1, 1), Window())
    window = Window(op.weight.shape[2:], op.stride, op.pads[:2], op.dilation, op.groups)
    return _fields(source.shape, op.shape, window)


@dataclass(frozen=True)
class Window:
    """How a convolution moves over the image; the defaults are those of a linear layer."""

    kernel: tuple[int, ...] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    corner: tuple[int, ...] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def _fields(
    in_shape: tuple[int, ...], out_shape: tuple[int, ...], window: Window
) -> dict[str, object]:
    in_channels, in_height, in_width = in_shape
    out_channels, out_height, out_width = out_shape
    if window.kernel == (1, 1) and window.stride == (1, 1) and in_shape[1:] == out_shape[1:]:
        size = in_height * in_width
        if size <= INT16_MAX:
            # One long row: fewer ends to look after.
            in_height, in_width, out_height, out_width = 1, size, 1, size
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "groups": window.groups,
        "in_height": in_height,
        "in_width": in_width,
        "out_height": out_height,
        "out_width": out_width,
        "kernel_height": window.kernel[0],
        "kernel_width": window.kernel[1],
        "stride_y": window.stride[0],
        "stride_x": window.stride[1],
        "top": window.corner[0],
        "left": window.corner[1],
        "dilation_y": window.dilation[0],
        "dilation_x": window.dilation[1],
    }


def _one_if_equal(op: Rescale, order: IntArray | None) -> tuple[IntArray, IntArray]:
    """Return multipliers and shifts: of every channel, or one column where all are equal."""
    n_channels = op.shape[0]
    multiplier = np.broadcast_to(op.multiplier, (len(op.inputs), n_channels))
    shift = np.broadcast_to(op.shift, (n_channels,))
    if (multiplier == multiplier[:, :1]).all() and (shift == shift[0]).all():
        return multiplier[:, :1], shift[:1]
    if order is not None:
        multiplier, shift = multiplier[:, order], shift[order]
    return multiplier, shift
