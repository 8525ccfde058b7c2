# SPDX-License-Identifier: Apache-2.0
"""From any module to its layers and the operations between them.

The module runs once while every PyTorch function it calls is watched (`record_calls`). The graph
is for looking: the module stays itself. What multiplies by weights and is no layer the graph has a
word for is an error, never left out.
"""

from __future__ import annotations

from torch import nn

from bitscout.core import LayerGraph
from bitscout.errors import UnsupportedError
from bitscout.networks.network_graph import network_graph
from bitscout.networks.record_calls import record_calls

__all__ = ["trace"]


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> LayerGraph:
    """Return every layer of `module` with its shapes, and the operations that connect them.

    The module is run once in evaluation mode, without gradients, on its own device, and is left
    as it was. A batch norm right after a layer counts as folded: it gives the layer a bias. A
    linear layer on several positions, ``(n, tokens, features)``, is a 1x1 convolution of so many
    rows; a layer that runs several times has the rows of all its outputs.

    Nodes are named by the module that computes them; an operation written in the ``forward`` of
    a larger module by that module's path and the operation, ``stage1.0.add``.

    Args:
        module: Any network that takes one tensor of images or features.
        input_shape: Shape of one input without the batch, ``(C, H, W)`` or ``(features,)``.

    Raises:
        UnsupportedError: If the module cannot run on this shape, or multiplies by weights in
            another way than two-dimensional convolutions and linear layers do; the message names
            the operation, the module and the line.
    """
    graph = network_graph(record_calls(module, input_shape))
    for found in graph.layers:
        if found.problem:
            msg = f"Cannot trace {found.problem}"
            raise UnsupportedError(msg)
    return graph.plain
