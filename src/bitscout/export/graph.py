# SPDX-License-Identifier: Apache-2.0
"""The integer graph: a quantized network as integers and the operations on them.

Every format is written from it and `Reference` defines what it computes. An operation makes
one tensor, which has the operation's name. Shapes are without the batch, ``(C, H, W)`` or
``(features,)``; a *channel* is an index of the first dimension.

Two kinds of tensors: *codes* of 2 to 8 bits, which have one step for the whole tensor, and int32
*sums*, which may have a step for every channel. Only a `Rescale` makes codes of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError
from bitscout.export.windows import Windows

__all__ = [
    "Concat",
    "Conv",
    "Flatten",
    "Grid",
    "Input",
    "IntegerGraph",
    "Linear",
    "MaxPool",
    "Op",
    "PadChannels",
    "Relu",
    "Rescale",
    "SumPool",
]

BIAS_BITS = 32
SUM_BITS = 32

Shape = tuple[int, ...]
Int8Array = npt.NDArray[np.int8]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Which integers a tensor may hold, and the real numbers they stand for.

    The real value of the integer ``q`` is ``scale * (q - zero_point)``.

    Attributes:
        scale: Step, > 0, shape ``()``, or ``(C,)`` for sums.
        bit_width: 2 to 8 for codes, 32 for sums.
        quant_min: Smallest integer. A signed tensor has a negative one.
        quant_max: Largest integer.
        zero_point: Integer that stands for 0; 0 for sums.

    Raises:
        ExportError: If a step is not positive and finite, or the range does not fit the width.
    """

    scale: FloatArray
    bit_width: int
    quant_min: int
    quant_max: int
    zero_point: int = 0

    def __post_init__(self) -> None:
        """Reject grids no tensor can have."""
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            msg = f"A quantization step must be positive and finite, got {self.scale}."
            raise ExportError(msg)
        low = -(2 ** (self.bit_width - 1)) if self.is_signed else 0
        high = 2 ** (self.bit_width - (1 if self.is_signed else 0)) - 1
        is_inside = low <= self.quant_min <= self.zero_point <= self.quant_max <= high
        if self.bit_width not in (*range(2, 9), SUM_BITS) or not is_inside:
            msg = (
                f"Codes of {self.bit_width} bits cannot run from {self.quant_min} to "
                f"{self.quant_max} with zero point {self.zero_point}."
            )
            raise ExportError(msg)

    @property
    def is_signed(self) -> bool:
        """Whether integers can be negative."""
        return self.quant_min < 0

    @property
    def is_sums(self) -> bool:
        """Whether these are int32 sums and not codes."""
        return self.bit_width == SUM_BITS

    def is_equal(self, other: Grid) -> bool:
        """Whether both hold the same integers, for the same real numbers."""
        mine = (self.bit_width, self.quant_min, self.quant_max, self.zero_point)
        others = (other.bit_width, other.quant_min, other.quant_max, other.zero_point)
        return mine == others and np.array_equal(self.scale, other.scale)

    @classmethod
    def sums(cls, scale: FloatArray) -> Grid:
        """Return the grid of int32 sums with these steps."""
        return cls(scale, SUM_BITS, -(2**31) + 1, 2**31 - 1)


@dataclass(frozen=True, eq=False)
class Input:
    """The network's input as codes: ``clamp(half_even(x / scale) + zero_point)`` in float32."""

    kind: ClassVar[str] = "input"
    name: str
    shape: Shape
    grid: Grid
    inputs: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, eq=False)
class Conv:
    """Two-dimensional convolution: codes to sums, ``sum w (x - zero_point) + bias``.

    Attributes:
        inputs: One tensor of codes, ``(C, H, W)``.
        shape: Of the result, ``(C_out, H_out, W_out)``.
        grid: Of the result: sums with steps ``x.scale * weight_scale``.
        weight: Codes, shape ``(C_out, C / groups, kh, kw)``.
        weight_bits: 2 to 8.
        weight_scale: Step of every output channel, shape ``(C_out,)``.
        bias: int32 values, shape ``(C_out,)``, on the result's grid; `None` without.
        stride: Vertical and horizontal.
        pads: Rows and columns of zeros (of the zero point) around: top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: Channel groups.
    """

    kind: ClassVar[str] = "conv"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid
    weight: Int8Array
    weight_bits: int
    weight_scale: FloatArray
    bias: IntArray | None
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Linear:
    """Matrix product: codes ``(features,)`` to sums; the attributes are those of `Conv`.

    Attributes:
        weight: Codes, shape ``(features_out, features)``.
    """

    kind: ClassVar[str] = "linear"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid
    weight: Int8Array
    weight_bits: int
    weight_scale: FloatArray
    bias: IntArray | None


@dataclass(frozen=True, eq=False)
class Rescale:
    """Bring one or several tensors, added, to another grid; see `bitscout.export.fixed_point`.

    The operands' zero points are subtracted first. Makes codes of sums after a layer, adds two
    tensors of codes with different steps, divides the sums of an average pool, and brings
    the outputs of the network to one step.

    Attributes:
        inputs: One or more tensors of `shape`.
        multiplier: M, shape ``(n_inputs, C)`` or ``(n_inputs, 1)``.
        shift: S, shape ``(C,)`` or ``(1,)``.
        divisor: D, positive, shape ``()``, or ``(H, W)`` where windows at the border are smaller.
        grid: Of the result; a merged ReLU or ReLU6 has narrowed its range.
    """

    kind: ClassVar[str] = "rescale"
    name: str
    inputs: tuple[str, ...]
    shape: Shape
    grid: Grid
    multiplier: IntArray
    shift: IntArray
    divisor: IntArray = field(default_factory=lambda: np.array(1, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class SumPool:
    """Sum over windows: codes or sums ``(C, H, W)`` to sums; zero points are subtracted first."""

    kind: ClassVar[str] = "sum_pool"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid
    windows: Windows


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Largest value in each window; the grid stays."""

    kind: ClassVar[str] = "max_pool"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid
    windows: Windows


@dataclass(frozen=True, eq=False)
class Relu:
    """``max(x, zero_point)`` on sums or codes, where no `Rescale` follows that could do it."""

    kind: ClassVar[str] = "relu"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid


@dataclass(frozen=True, eq=False)
class Concat:
    """Tensors one behind the other, channel by channel. Codes must share one grid."""

    kind: ClassVar[str] = "concat"
    name: str
    inputs: tuple[str, ...]
    shape: Shape
    grid: Grid


@dataclass(frozen=True, eq=False)
class PadChannels:
    """Codes with channels of zeros around theirs; the grid stays.

    Attributes:
        shape: Of the result; the channels that are not the source's stand for 0.
        before: How many of them come first.
    """

    kind: ClassVar[str] = "pad_channels"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid
    before: int = 0


@dataclass(frozen=True, eq=False)
class Flatten:
    """``(C, H, W)`` to ``(C * H * W,)``, channel by channel."""

    kind: ClassVar[str] = "flatten"
    name: str
    inputs: tuple[str]
    shape: Shape
    grid: Grid


Op = Input | Conv | Linear | Rescale | SumPool | MaxPool | Relu | Concat | PadChannels | Flatten


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A quantized network; iterating goes over the operations in an order they can run in.

    Attributes:
        ops: Operations, each after those it reads.
        output: Name of the result: mostly the sums of the last layer, as they are. A class may
            have a step of its own, so compare ``integer * step``, not integers: `scores`.

    Raises:
        ExportError: If a name is missing, late or used twice, or codes are concatenated that do
            not share one grid.
    """

    ops: tuple[Op, ...]
    output: str

    def __post_init__(self) -> None:
        """Check the wiring."""
        seen: set[str] = set()
        for op in self.ops:
            missing = [name for name in op.inputs if name not in seen]
            if missing or op.name in seen:
                msg = f"Operation {op.name!r} must be unique and come after its inputs {missing}."
                raise ExportError(msg)
            seen.add(op.name)
            if isinstance(op, Concat):
                self._check_concat(op)
        if self.output not in seen:
            msg = f"The output {self.output!r} must be an operation of the graph."
            raise ExportError(msg)

    def _check_concat(self, op: Concat) -> None:
        for name in op.inputs:
            grid = self[name].grid
            # Sums may have a step for every channel.
            if not (grid.is_sums and op.grid.is_sums) and not grid.is_equal(op.grid):
                msg = (
                    f"Concatenation {op.name!r} has codes of {op.grid}, but its part {name!r} has "
                    f"codes of {grid}. Bring all parts to one grid with a `Rescale`."
                )
                raise ExportError(msg)

    def __iter__(self) -> Iterator[Op]:
        """Iterate over the operations."""
        return iter(self.ops)

    def __getitem__(self, name: str) -> Op:
        """Return the operation called `name`."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Op]:
        return {op.name: op for op in self.ops}

    @cached_property
    def _readers(self) -> dict[str, tuple[Op, ...]]:
        return {op.name: tuple(r for r in self.ops if op.name in r.inputs) for op in self.ops}

    def readers(self, name: str) -> tuple[Op, ...]:
        """Return the operations that read the tensor `name`."""
        return self._readers[name]

    def scores(self, outputs: IntArray) -> FloatArray:
        """Return the real values of the output's integers, shape ``(N, *)``."""
        grid, n_pixels = self[self.output].grid, len(self[self.output].shape) - 1
        scale = grid.scale.reshape(-1, *[1] * n_pixels) if grid.scale.ndim else grid.scale
        result: FloatArray = (outputs - grid.zero_point) * scale
        return result

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The input as codes: once for every grid it is read on, which is nearly always one."""
        return tuple(op for op in self.ops if isinstance(op, Input))

    @property
    def layers(self) -> tuple[Conv | Linear, ...]:
        """The operations with weights."""
        return tuple(op for op in self.ops if isinstance(op, Conv | Linear))

    @property
    def weight_bits(self) -> int:
        """Bits of all weights."""
        return sum(layer.weight.size * layer.weight_bits for layer in self.layers)

    @property
    def bias_bits(self) -> int:
        """Bits of all biases."""
        return sum(BIAS_BITS * layer.bias.size for layer in self.layers if layer.bias is not None)

    @property
    def size_bits(self) -> int:
        """Bits of weights and biases: what `bitscout.hardware.size_report` predicts."""
        return self.weight_bits + self.bias_bits
