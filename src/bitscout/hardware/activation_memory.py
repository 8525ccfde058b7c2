# SPDX-License-Identifier: Apache-2.0
"""The tensors between the operators of a network: who reads them, and their bytes.

Activations and batch norms belong to the layer before them. Flattening, and a pool whose windows
are single pixels with nothing left out, give another name to a tensor, not a new one. Moving
values (a slice, a transposition, a shuffle) counts as a copy.

A layer's `act_bits` say how it reads its input, so an element of a tensor takes the largest
`act_bits` of the layers that read it, directly or through operations that are no layers: pools,
additions, concatenations, views. What no layer reads takes the bits of the network's results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bitscout.core import Node
from bitscout.hardware.operator_graph import OperatorGraph

__all__ = ["ActivationTensors", "activation_tensors", "pool_window"]


@dataclass(frozen=True)
class ActivationTensors:
    """The tensors of a network; entries are in the order of ``graph.names``.

    Attributes:
        graph: Who reads and writes them; an addition may take the place of an operand.
        elements: Values of each, for one input.
    """

    graph: OperatorGraph
    elements: tuple[int, ...]

    def bits(self, act_bits: Mapping[str, int], output_bits: int) -> list[int]:
        """Return the bits of an element of each tensor, by the rule above.

        Args:
            act_bits: Of the layers, by name.
            output_bits: Of the network's results.
        """
        graph = self.graph
        found = [0] * len(self.elements)
        # Backwards: whoever reads a tensor comes after it.
        for tensor in range(len(found) - 1, -1, -1):
            found[tensor] = found[tensor] or output_bits
            bits = act_bits.get(graph.names[tensor], found[tensor])
            for operand in graph.reads[tensor]:
                if found[operand] < bits:
                    found[operand] = bits
        return found


def activation_tensors(nodes: Sequence[Node], *, in_place_add: bool) -> ActivationTensors:
    """Return the tensors of a network.

    Args:
        nodes: Every operation, readers after what they read.
        in_place_add: Whether an addition may write over an operand with as many values.
    """
    shapes = {node.name: node.shape for node in nodes}
    index: dict[str, int] = {}
    names: list[str] = []
    reads: list[tuple[int, ...]] = []
    replaces: list[tuple[int, ...]] = []
    elements: list[int] = []
    inputs = [node for node in nodes if node.op == "input"]
    for node in (*inputs, *(node for node in nodes if node.op != "input")):
        if _is_view(node, shapes):
            index[node.name] = index[node.inputs[0]]
            continue
        operands = tuple(dict.fromkeys(index[name] for name in node.inputs))
        count = prod(node.shape)
        is_add = in_place_add and node.op == "add"
        index[node.name] = len(names)
        names.append(node.name)
        reads.append(operands)
        replaces.append(tuple(t for t in operands if elements[t] == count) if is_add else ())
        elements.append(count)
    graph = OperatorGraph(tuple(names), tuple(reads), tuple(replaces), len(inputs))
    return ActivationTensors(graph, tuple(elements))


def pool_window(node: Node, input_shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a pool's window; see `Node.kernel`."""
    if node.kernel is not None:
        return node.kernel
    height, width = node.shape[1:] or (1, 1)
    return -(-input_shape[1] // height), -(-input_shape[2] // width)


def _is_view(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if node.op == "flatten":
        return True
    if node.op not in ("avg_pool", "max_pool"):
        return False
    shape = shapes[node.inputs[0]]
    return prod(shape) == prod(node.shape) and pool_window(node, shape) == (1, 1)
