# SPDX-License-Identifier: Apache-2.0
"""Writing a network down as a table: layers and nodes, one line each."""

from __future__ import annotations

from math import prod
from typing import Literal

from bitscout.core import Layer, LayerGraph, Node, Op
from bitscout.errors import ConfigError

__all__ = ["GraphBuilder"]


class GraphBuilder:
    """Appends operations to a network; each reads `last`, the newest node, unless told otherwise.

    Sizes are PyTorch's: a convolution or a pool gives ``floor((size + 2 padding - kernel) /
    stride) + 1`` pixels a dimension. Every layer has a bias, as after batch-norm folding.

    Args:
        network: Name for messages.
        input_shape: Channels, height and width, each >= 1.

    Attributes:
        last: Name of the newest node.

    Raises:
        ConfigError: If `input_shape` is no shape; from any method, if what comes is too small
            for a window or a size is below 1.
    """

    def __init__(self, network: str, input_shape: tuple[int, ...]) -> None:
        if len(input_shape) != 3 or min(input_shape) < 1:
            msg = (
                f"`input_shape` of {network} must be channels, height and width, each at least "
                f"1, got {input_shape}."
            )
            raise ConfigError(msg)
        self.last = "input"
        self._network = network
        self._layers: list[Layer] = []
        self._nodes = {"input": Node("input", "input", (), tuple(input_shape))}

    @property
    def channels(self) -> int:
        """Channels or features of the newest node."""
        return self._nodes[self.last].shape[0]

    def conv(
        self,
        name: str,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        source: str | None = None,
    ) -> str:
        """Append a convolution, padded by ``kernel // 2`` unless told, and return its name."""
        source = source or self.last
        in_channels, *size = self._nodes[source].shape
        padding = kernel // 2 if padding is None else padding
        output_size = self._windowed(name, (size[0], size[1]), kernel, stride, padding)
        layer = Layer(
            name=name,
            kind="conv",
            in_channels=in_channels,
            out_channels=out_channels,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            groups=groups,
            input_size=(size[0], size[1]),
            output_size=output_size,
        )
        self._layers.append(layer)
        return self._append(name, "conv", (source,), (out_channels, *output_size))

    def linear(self, name: str, out_features: int) -> str:
        """Append a linear layer and return its name."""
        self._layers.append(Layer(name, "linear", self.channels, out_features))
        return self._append(name, "linear", (self.last,), (out_features,))

    def pool(
        self,
        name: str,
        op: Literal["avg_pool", "max_pool"],
        kernel: int,
        *,
        stride: int,
        padding: int = 0,
        source: str | None = None,
    ) -> str:
        """Append a pool with a fixed window and return its name."""
        source = source or self.last
        channels, *size = self._nodes[source].shape
        output_size = self._windowed(name, (size[0], size[1]), kernel, stride, padding)
        shape = (channels, *output_size)
        return self._append(name, op, (source,), shape, (kernel, kernel))

    def adaptive_pool(self, name: str, size: int = 1) -> str:
        """Append an average pool to `size` x `size` pixels and return its name."""
        return self._append(name, "avg_pool", (self.last,), (self.channels, size, size))

    def add(self, name: str, first: str, second: str) -> str:
        """Append the sum of two nodes, channels missing in one as zeros, and return its name."""
        shape = max(self._nodes[first].shape, self._nodes[second].shape)
        return self._append(name, "add", (first, second), shape)

    def flatten(self, name: str = "flatten") -> str:
        """Append a flatten and return its name."""
        shape = (prod(self._nodes[self.last].shape),)
        return self._append(name, "flatten", (self.last,), shape)

    def graph(self) -> LayerGraph:
        """Return the network."""
        return LayerGraph(tuple(self._layers), tuple(self._nodes.values()))

    def _append(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        kernel: tuple[int, int] | None = None,
    ) -> str:
        self._nodes[name] = Node(name, op, inputs, shape, kernel)
        self.last = name
        return name

    def _windowed(
        self, name: str, size: tuple[int, int], kernel: int, stride: int, padding: int
    ) -> tuple[int, int]:
        """Return the output size; refuse an input smaller than the window."""
        padded = [pixels + 2 * padding for pixels in size]
        if min(padded) < kernel:
            shape = "x".join(str(length) for length in self._nodes["input"].shape)
            msg = (
                f"An input of {shape} is too small for {self._network}: {size[0]}x{size[1]} "
                f"pixels reach `{name}`, whose window is {kernel}x{kernel}"
                f"{f' with padding {padding}' if padding else ''}. Use a larger input."
            )
            raise ConfigError(msg)
        height, width = ((pixels - kernel) // stride + 1 for pixels in padded)
        return height, width
