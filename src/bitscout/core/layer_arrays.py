# SPDX-License-Identifier: Apache-2.0
"""Layers as columns of integers, for arithmetic on many of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitscout.core.layer import Layer, LayerGraph

__all__ = ["LayerArrays"]

IntArray = NDArray[np.int64]

# The columns, and where a layer keeps each: attribute and position within it.
_COLUMNS: Final = {
    "is_linear": ("kind", None),
    "in_channels": ("in_channels", None),
    "out_channels": ("out_channels", None),
    "kernel_height": ("kernel", 0),
    "kernel_width": ("kernel", 1),
    "stride_height": ("stride", 0),
    "stride_width": ("stride", 1),
    "dilation_height": ("dilation", 0),
    "dilation_width": ("dilation", 1),
    "groups": ("groups", None),
    "input_height": ("input_size", 0),
    "input_width": ("input_size", 1),
    "output_height": ("output_size", 0),
    "output_width": ("output_size", 1),
    "has_bias": ("has_bias", None),
    "reads_input": (None, None),
}
_POSITIONS: Final = {name: position for position, name in enumerate(_COLUMNS)}
# Odd multipliers of a 64-bit hash over the columns, drawn once from PCG64 with seed 0.
_HASH: Final = np.random.Generator(np.random.PCG64(0)).integers(
    1, 2**63 - 1, size=len(_COLUMNS), dtype=np.int64
) | np.int64(1)


@dataclass(frozen=True, slots=True)
class LayerArrays:
    """What `Layer` says of each of many layers, names left out; `*` is any shape.

    Attributes:
        table: Shape ``(*, n_columns)``, integers; read it through the properties, each of shape
            ``(*)``. Booleans are 0 or 1.
    """

    table: IntArray

    @classmethod
    def of(cls, layers: LayerGraph | Iterable[Layer]) -> LayerArrays:
        """Return the layers of a graph, or of any list, in their order, shape ``(n,)``.

        ``reads_input`` is 1 where a layer reads the network's input: as the graph's nodes say,
        or the first layer of a graph without nodes. In a plain list it is 0.
        """
        first: set[str] = set()
        if isinstance(layers, LayerGraph):
            if layers.nodes:
                inputs = {node.name for node in layers.nodes if node.op == "input"}
                first = {node.name for node in layers.nodes if inputs & set(node.inputs)}
            else:
                first = set(layers.names[:1])
        rows = [_row(layer, layer.name in first) for layer in layers]
        return cls(np.array(rows, dtype=np.int64).reshape(len(rows), len(_COLUMNS)))

    @classmethod
    def from_columns(cls, **columns: Any) -> LayerArrays:  # noqa: ANN401  # anything NumPy broadcasts
        """Return layers from integers or arrays that broadcast; what is left out is 1 or False.

        Args:
            **columns: Names of the properties. Input and output sizes default to 1.
        """
        shape = np.broadcast_shapes(*(np.shape(column) for column in columns.values()))
        table = np.ones((*shape, len(_COLUMNS)), dtype=np.int64)
        for name in ("is_linear", "has_bias", "reads_input"):
            table[..., _POSITIONS[name]] = 0
        for name, column in columns.items():
            table[..., _POSITIONS[name]] = column
        return cls(table)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every property."""
        return self.table.shape[:-1]

    def __len__(self) -> int:
        """Return the length of the first dimension."""
        return len(self.table)

    def __getitem__(self, key: Any) -> LayerArrays:  # noqa: ANN401  # anything NumPy indexes with
        """Return some of the layers; `key` indexes the dimensions of `shape`."""
        return LayerArrays(self.table[key])

    def flat(self) -> LayerArrays:
        """Return the same layers with shape ``(n,)``."""
        return LayerArrays(self.table.reshape(-1, len(_COLUMNS)))

    def keys(self) -> IntArray:
        """Return a 64-bit hash of each layer's columns; equal layers have equal keys."""
        with np.errstate(over="ignore"):
            mixed = self.table * _HASH
            mixed ^= mixed >> 29
            return np.asarray((mixed * _HASH[::-1]).sum(axis=-1), dtype=np.int64)

    def unique(self) -> tuple[LayerArrays, IntArray]:
        """Return the different ones of layers of shape ``(n,)``, and where each layer went.

        Returns:
            Layers of shape ``(m,)`` and an array ``inverse`` of shape ``(n,)`` such that
            ``unique[inverse]`` are the layers themselves.
        """
        _, first, inverse = np.unique(self.keys(), return_index=True, return_inverse=True)
        found = self[first]
        if np.array_equal(found.table[inverse], self.table):
            return found, inverse
        # Two layers share a hash: one in 10^10 for 10^5 layers.
        table, inverse = np.unique(self.table, axis=0, return_inverse=True)
        return LayerArrays(table), inverse.reshape(-1)

    @property
    def is_linear(self) -> NDArray[np.bool_]:
        """Whether the layer is linear; the others are convolutions."""
        return self._flag("is_linear")

    @property
    def in_channels(self) -> IntArray:
        """Input channels or features."""
        return self._column("in_channels")

    @property
    def out_channels(self) -> IntArray:
        """Output channels or features."""
        return self._column("out_channels")

    @property
    def kernel_height(self) -> IntArray:
        """Height of the kernel; 1 for a linear layer."""
        return self._column("kernel_height")

    @property
    def kernel_width(self) -> IntArray:
        """Width of the kernel; 1 for a linear layer."""
        return self._column("kernel_width")

    @property
    def stride_height(self) -> IntArray:
        """Stride from row to row."""
        return self._column("stride_height")

    @property
    def stride_width(self) -> IntArray:
        """Stride from column to column."""
        return self._column("stride_width")

    @property
    def dilation_height(self) -> IntArray:
        """Dilation from row to row."""
        return self._column("dilation_height")

    @property
    def dilation_width(self) -> IntArray:
        """Dilation from column to column."""
        return self._column("dilation_width")

    @property
    def groups(self) -> IntArray:
        """Channel groups."""
        return self._column("groups")

    @property
    def input_height(self) -> IntArray:
        """Height of the input, before padding."""
        return self._column("input_height")

    @property
    def input_width(self) -> IntArray:
        """Width of the input, before padding."""
        return self._column("input_width")

    @property
    def output_height(self) -> IntArray:
        """Height of the output."""
        return self._column("output_height")

    @property
    def output_width(self) -> IntArray:
        """Width of the output."""
        return self._column("output_width")

    @property
    def has_bias(self) -> NDArray[np.bool_]:
        """Whether one int32 bias is added to each output channel."""
        return self._flag("has_bias")

    @property
    def reads_input(self) -> NDArray[np.bool_]:
        """Whether the layer reads the network's input."""
        return self._flag("reads_input")

    @property
    def is_depthwise(self) -> NDArray[np.bool_]:
        """Whether every input channel is filtered on its own."""
        return np.asarray((self.groups == self.in_channels) & (self.groups > 1), dtype=np.bool_)

    @property
    def n_weights(self) -> IntArray:
        """Number of weights, biases not counted."""
        taps = self.kernel_height * self.kernel_width
        per_channel = (self.in_channels // self.groups) * taps
        return np.asarray(self.out_channels * per_channel, dtype=np.int64)

    @property
    def n_biases(self) -> IntArray:
        """Number of biases."""
        return np.asarray(np.where(self.has_bias, self.out_channels, 0), dtype=np.int64)

    @property
    def macs(self) -> IntArray:
        """Multiply-accumulates for one input, padding counted as ordinary values."""
        return self.n_weights * self.output_height * self.output_width

    def _column(self, name: str) -> IntArray:
        column: IntArray = self.table[..., _POSITIONS[name]]
        return column

    def _flag(self, name: str) -> NDArray[np.bool_]:
        return np.asarray(self._column(name) != 0)


def _row(layer: Layer, reads_input: bool) -> list[int]:
    row = []
    for name, (attribute, position) in _COLUMNS.items():
        if name == "is_linear":
            row.append(int(layer.kind == "linear"))
        elif attribute is None:
            row.append(int(reads_input))
        else:
            value = getattr(layer, attribute)
            row.append(int(value if position is None else value[position]))
    return row
