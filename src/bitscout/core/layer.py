# SPDX-License-Identifier: Apache-2.0
"""What a network is made of, as plain data: layers with weights, and the graph around them.

Nothing here needs PyTorch. A search space describes a candidate with these words without
building it, a traced module is described with the same words, and every cost model reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from bitscout.errors import ConfigError

__all__ = ["BIAS_BITS", "Layer", "LayerGraph", "LayerKind", "Node", "Op"]

BIAS_BITS = 32  # "biases were quantized to INT32", BOMP-NAS III.

LayerKind = Literal["conv", "linear"]
Op = Literal[
    "input",
    "conv",
    "linear",
    "add",
    "concat",
    "avg_pool",
    "max_pool",
    "flatten",
    "multiply",  # of two results, element by element: the gate of a squeeze-excitation
    "matmul",  # of two results: attention
    "rearrange",  # values moved, none changed: split, slice, transpose, shuffle, upsampling
    "other",  # any other function of the results it reads, values one by one
]


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or linear layer, batch norm folded into it.

    Attributes:
        name: Module path inside the network, ``blocks.0.expand.conv``; the key of a policy.
        kind: ``"conv"`` (two spatial dimensions) or ``"linear"``.
        in_channels: Input channels or features.
        out_channels: Output channels or features.
        kernel: Kernel height and width; ``(1, 1)`` for a linear layer.
        stride: Stride per spatial dimension.
        groups: Channel groups; equal to `in_channels` for a depthwise convolution.
        input_size: Input height and width, before padding; ``(1, 1)`` for a linear layer.
        output_size: Output height and width.
        has_bias: Whether the folded layer adds one int32 bias per output channel.
        dilation: Dilation per spatial dimension.

    Raises:
        ConfigError: If a dimension is not positive or `groups` does not divide the channels.
    """

    name: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    input_size: tuple[int, int] = (1, 1)
    output_size: tuple[int, int] = (1, 1)
    has_bias: bool = True
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Reject shapes that no layer can have."""
        sizes = (
            self.in_channels,
            self.out_channels,
            self.groups,
            *self.kernel,
            *self.stride,
            *self.input_size,
            *self.output_size,
            *self.dilation,
        )
        if min(sizes) < 1:
            msg = f"Layer {self.name!r} needs positive sizes, got {self}."
            raise ConfigError(msg)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            msg = (
                f"Layer {self.name!r}: {self.groups} groups must divide {self.in_channels} input "
                f"and {self.out_channels} output channels."
            )
            raise ConfigError(msg)

    @property
    def n_weights(self) -> int:
        """Number of weights, biases not counted."""
        return self.out_channels * (self.in_channels // self.groups) * prod(self.kernel)

    @property
    def n_biases(self) -> int:
        """Number of biases after batch-norm folding."""
        return self.out_channels if self.has_bias else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input, padding counted as ordinary values."""
        return self.n_weights * prod(self.output_size)

    @property
    def is_depthwise(self) -> bool:
        """Whether every input channel is filtered on its own."""
        return self.groups == self.in_channels > 1


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor-producing operation.

    Attributes:
        name: Unique name; the layer's name for ``conv`` and ``linear``.
        op: What it does.
        inputs: Names of the nodes it reads, in order.
        shape: Output shape without the batch, ``(C, H, W)`` or ``(features,)``. An operand of an
            ``add`` with fewer channels counts as filled up with zeros.
        kernel: Height and width of a pool's window. None for other operations, and for a pool
            without a fixed window: its outputs share the input evenly, ``ceil(input / output)``
            pixels a dimension each, as those of global and adaptive pools.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    kernel: tuple[int, int] | None = None


@dataclass(frozen=True)
class LayerGraph:
    """A network as layers in execution order and the operations that connect them.

    Iterating, indexing and ``len`` go over the `layers`.

    Attributes:
        layers: Every convolution and linear layer, in execution order.
        nodes: Every operation in execution order, the input first. May be empty where only the
            layers are known.
    """

    layers: tuple[Layer, ...]
    nodes: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        """Check that names are unique and that inputs come before their readers."""
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            msg = f"Layer names must be unique, got {', '.join(twice)} more than once."
            raise ConfigError(msg)
        seen: set[str] = set()
        for node in self.nodes:
            late = [name for name in node.inputs if name not in seen]
            if late or node.name in seen:
                msg = f"Node {node.name!r} must be unique and come after its inputs {late}."
                raise ConfigError(msg)
            seen.add(node.name)

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the layers."""
        return iter(self.layers)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def __getitem__(self, name: str) -> Layer:
        """Return the layer called `name`."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in execution order."""
        return tuple(layer.name for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers for one input."""
        return sum(layer.macs for layer in self.layers)

    @property
    def n_weights(self) -> int:
        """Weights of all layers, biases not counted."""
        return sum(layer.n_weights for layer in self.layers)

    @property
    def n_biases(self) -> int:
        """Biases of all layers after batch-norm folding."""
        return sum(layer.n_biases for layer in self.layers)
