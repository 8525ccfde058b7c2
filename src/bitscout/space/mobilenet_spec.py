# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2-like networks as plain data, and the arithmetic of their layers.

A network is: 3x3 stem, blocks of inverted residuals, 1x1 convolution, global average pool,
linear classifier. Every convolution pads as TensorFlow's SAME does, so that an output has
``ceil(size / stride)`` pixels per dimension, and is followed by a batch norm, which costs one
bias per output channel once folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bitscout.core import Layer, LayerGraph, Node, Op, canonical_json
from bitscout.errors import ConfigError

__all__ = ["STEM_KERNEL", "BlockSpec", "MobileNetSpec", "UnitSpec", "round_channels"]

STEM_KERNEL = 3


def round_channels(channels: float, divisor: int) -> int:
    """Return `channels` as a positive multiple of `divisor`.

    For a divisor above 1 this is Keras' rule: the nearest multiple (halves up), at least
    `divisor`, and the next multiple if that is less than 90 % of the request. A divisor of 1
    rounds to the nearest integer (halves to even), at least 1.

    Args:
        channels: Requested number, > 0.
        divisor: >= 1.

    Example:
        >>> [round_channels(c, 8) for c in (1.6, 9.6, 12, 19)]
        [8, 16, 16, 24]
        >>> [round_channels(c, 1) for c in (0.16, 1.6)]
        [1, 2]
    """
    if divisor == 1:
        return max(1, round(channels))
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Repeated inverted residuals that share kernel, width and expansion.

    Attributes:
        position: Number of the block in the table it comes from, from 1; names the modules.
        kernel: Kernel of the depthwise convolutions.
        out_channels: Channels after each projection.
        expansion: Channels of the depthwise convolution per input channel.
        repetitions: Inverted residuals in the block, >= 1.
        stride: Stride of the first depthwise convolution.
        has_expand: Whether there are expansion convolutions. MobileNetV2 has none in its first
            block, and keeps them elsewhere even where the expansion is 1.

    Raises:
        ConfigError: If a number is below 1, or an expansion has no convolution to make it.
    """

    position: int
    kernel: int
    out_channels: int
    expansion: int
    repetitions: int
    stride: int = 1
    has_expand: bool = True

    def __post_init__(self) -> None:
        """Reject what no block can be."""
        numbers = (self.kernel, self.out_channels, self.expansion, self.repetitions, self.stride)
        if min(numbers) < 1:
            msg = f"A block needs positive sizes, got {self}."
            raise ConfigError(msg)
        if self.expansion > 1 and not self.has_expand:
            msg = f"Block {self.position} expands by {self.expansion} without a convolution."
            raise ConfigError(msg)

    @property
    def name(self) -> str:
        """Module name, ``block3``."""
        return f"block{self.position}"


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """One inverted residual, everything known.

    Attributes:
        name: Module path, ``block3.0``.
        in_channels: Channels it reads.
        hidden_channels: Channels of its depthwise convolution.
        out_channels: Channels it gives.
        kernel: Kernel of the depthwise convolution.
        stride: Stride of the depthwise convolution.
        input_size: Height and width it reads.
        output_size: Height and width it gives.
        has_expand: Whether an expansion convolution comes first.
    """

    name: str
    in_channels: int
    hidden_channels: int
    out_channels: int
    kernel: int
    stride: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    has_expand: bool

    @property
    def is_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True, slots=True)
class MobileNetSpec:
    """A MobileNetV2-like network.

    Attributes:
        input_shape: Channels, height and width.
        n_classes: Outputs of the classifier.
        stem_channels: Filters of the 3x3 stem, stride 1.
        blocks: The blocks that exist, in order.
        head_channels: Filters of the 1x1 convolution before the pool.
    """

    input_shape: tuple[int, int, int]
    n_classes: int
    stem_channels: int
    blocks: tuple[BlockSpec, ...]
    head_channels: int

    @property
    def key(self) -> str:
        """Canonical JSON of this specification; equal exactly for equal networks."""
        return canonical_json(asdict(self))

    @property
    def last_channels(self) -> int:
        """Channels after the last block."""
        return self.blocks[-1].out_channels if self.blocks else self.stem_channels

    def units(self) -> Iterator[UnitSpec]:
        """Yield every inverted residual in execution order."""
        channels, size = self.stem_channels, self.input_shape[1:]
        for block in self.blocks:
            for repetition in range(block.repetitions):
                stride = block.stride if repetition == 0 else 1
                output_size = _strided(size, stride)
                yield UnitSpec(
                    name=f"{block.name}.{repetition}",
                    in_channels=channels,
                    hidden_channels=channels * block.expansion,
                    out_channels=block.out_channels,
                    kernel=block.kernel,
                    stride=stride,
                    input_size=size,
                    output_size=output_size,
                    has_expand=block.has_expand,
                )
                channels, size = block.out_channels, output_size

    def layers(self) -> LayerGraph:
        """Return every layer and node of the network, by arithmetic alone."""
        graph = _GraphBuilder(self.input_shape)
        graph.conv("stem.conv", self.stem_channels, STEM_KERNEL)
        for unit in self.units():
            source = graph.last
            if unit.has_expand:
                graph.conv(f"{unit.name}.expand.conv", unit.hidden_channels)
            graph.conv(
                f"{unit.name}.depthwise.conv",
                unit.hidden_channels,
                unit.kernel,
                stride=unit.stride,
                groups=unit.hidden_channels,
            )
            graph.conv(f"{unit.name}.project.conv", unit.out_channels)
            if unit.is_residual:
                graph.node(f"{unit.name}.add", "add", (source, graph.last), graph.shape)
        graph.conv("conv2.conv", self.head_channels)
        graph.classify(self.n_classes)
        return LayerGraph(tuple(graph.layers), tuple(graph.nodes))


class _GraphBuilder:
    """Appends layers and nodes; `last` and `shape` are the newest node's name and shape."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.layers: list[Layer] = []
        self.nodes: list[Node] = []
        self.node("input", "input", (), input_shape)

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nodes[-1].shape

    def node(self, name: str, op: Op, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.nodes.append(Node(name, op, inputs, shape))

    def conv(
        self, name: str, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        in_channels, *size = self.shape
        input_size = (size[0], size[1])
        output_size = _strided(input_size, stride)
        self.layers.append(
            Layer(
                name=name,
                kind="conv",
                in_channels=in_channels,
                out_channels=out_channels,
                kernel=(kernel, kernel),
                stride=(stride, stride),
                groups=groups,
                input_size=input_size,
                output_size=output_size,
            )
        )
        self.node(name, "conv", (self.last,), (out_channels, *output_size))

    def classify(self, n_classes: int) -> None:
        features = self.shape[0]
        self.node("pool", "avg_pool", (self.last,), (features, 1, 1))
        self.node("flatten", "flatten", (self.last,), (features,))
        self.layers.append(Layer("classifier", "linear", features, n_classes))
        self.node("classifier", "linear", (self.last,), (n_classes,))


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the output size of a SAME-padded convolution: ``ceil(size / stride)``."""
    return -(-size[0] // stride), -(-size[1] // stride)
