# SPDX-License-Identifier: Apache-2.0
"""Microcontrollers: flash for the weights, peak RAM for the activations, operations.

The model of uNAS [Liberis2021]_, for any bit-widths. Weights stay in flash and are read from
there; RAM holds the tensors between the operators, at the worst step of the best order. Not
counted: the program, buffers that one operator needs for itself (im2col, int32 sums), and what
an interpreter or an arrangement of the tensors in one block loses. The C code that `export`
writes holds exactly these tensors where all activations have 8 bits, plus the buffers; below 8
bits it keeps a byte an element, so there it needs more.

References:
    .. [Liberis2021] E. Liberis, L. Dudziak, N. Lane. uNAS: Constrained Neural Architecture Search
       for Microcontrollers. EuroMLSys 2021. https://arxiv.org/abs/2010.14246
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bitscout.core import BIAS_BITS, LayerArrays, LayerGraph, Node, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.activation_memory import activation_tensors, pool_window
from bitscout.hardware.model import HardwareModel, layer_kinds, tunable
from bitscout.hardware.operator_graph import MemoryProfile, memory_profile
from bitscout.hardware.operator_order import best_order
from bitscout.hardware.report import CostReport, LayerCost
from bitscout.hardware.size import SizeModel

__all__ = ["Microcontroller"]


@dataclass(frozen=True, kw_only=True)
class Microcontroller(HardwareModel):
    """Flash, peak RAM and operations of a network on a microcontroller.

    ``peak_memory_bytes`` of a layer is what is in memory while it runs; other operators may need
    more. ``work`` counts multiply-accumulates as ``macs`` does, and in addition what pools
    (outputs x window), additions, gates, products of two results (outputs x the last dimension of
    the first) and other functions (one a value they read) compute. ``loads_compute`` is ``w_mem``
    x loads + ``w_comp`` x work, uNAS's stand-in for latency; loads are two a multiply-accumulate,
    addition or gated value, one a pooled, moved or otherwise read value, and one an output with a
    bias.

    Attributes:
        packing: How weights, biases and scales are stored, see `hardware.size`.
        bias_bits: Bits of a bias, from 1 to 32.
        scales: Whether one 32-bit scale an output channel is stored.
        output_bits: Bits of an element of the network's results, and of what only they are made
            of.
        include_input: Whether the network's input is in RAM, as on a device that fills a buffer
            from its sensor. uNAS leaves it out.
        in_place_add: Whether an addition may write over an operand that nobody reads later, as
            our exported C code does; TensorFlow Lite Micro does not.
        order: ``exact`` for the order of operators with the smallest peak, ``given`` for the
            order of the network's nodes.
        w_mem: Weight of loads in ``loads_compute``.
        w_comp: Weight of work in ``loads_compute``.

    Raises:
        ConfigError: If an option is out of range.
    """

    quantities: ClassVar[Mapping[str, str]] = {
        "flash_bytes": "bytes",
        "peak_memory_bytes": "bytes",
        "macs": "MACs",
        "work": "operations",
        "loads_compute": "operations",
    }
    is_dilation_supported: ClassVar[bool] = True

    name: str = "mcu"
    packing: Literal["bitstream", "row", "word32"] = tunable("bitstream")
    bias_bits: int = tunable(BIAS_BITS, "bits")
    scales: bool = tunable(False)
    output_bits: int = tunable(8, "bits")
    include_input: bool = tunable(True)
    in_place_add: bool = tunable(True)
    order: Literal["exact", "given"] = tunable("exact")
    w_mem: float = tunable(0.0)
    w_comp: float = tunable(1.0)

    def __post_init__(self) -> None:
        """Reject bits that no word holds and weights that are none."""
        super().__post_init__()
        for option in ("bias_bits", "output_bits"):
            bits = getattr(self, option)
            if not 1 <= bits <= 32:
                msg = f"`{option}` of hardware {self.name!r} must be from 1 to 32, got {bits}."
                raise ConfigError(msg)
        for option in ("w_mem", "w_comp"):
            weight = getattr(self, option)
            if not (isfinite(weight) and weight >= 0):
                msg = f"`{option}` of hardware {self.name!r} must be finite, >= 0, got {weight}."
                raise ConfigError(msg)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's figures must know."""
        tensors_alone = (
            "Peak memory is that of the tensors alone: programs, buffers inside operators, and "
            "what an interpreter or an arrangement of the tensors loses come on top."
        )
        return (*super().notes, tensors_alone)

    def report(
        self,
        graph: LayerGraph,
        policy: QuantPolicy,
        *,
        onnx: Callable[[], Path] | None = None,
    ) -> CostReport:
        """Return what `graph` costs at the bit-widths of `policy`; see `HardwareModel.report`.

        Raises:
            UnsupportedError: If the graph has no nodes, and what `HardwareModel.report` says.
        """
        memory = self.memory(graph, policy)
        layers = LayerArrays.of(graph)
        bits = [policy[name] for name in graph.names]
        weight_bits = np.array([b.weight_bits for b in bits], dtype=np.int64)
        self.check(graph.names, layers, (weight_bits, [b.act_bits for b in bits]))
        live = dict(zip(memory.names, memory.live_bytes, strict=True))
        macs = self.batch * layers.macs
        with_bias = layers.has_bias * layers.out_channels
        outputs = self.batch * with_bias * layers.output_height * layers.output_width
        costs = {
            "flash_bytes": self.flash_bytes(layers, weight_bits),
            "peak_memory_bytes": np.array([live[name] for name in graph.names], dtype=np.int64),
            "macs": macs,
            "work": macs,
            "loads_compute": self.w_mem * (2 * macs + outputs) + self.w_comp * macs,
        }
        total = {name: values.sum().item() for name, values in costs.items()}
        total["peak_memory_bytes"] = memory.peak_bytes
        shapes = {node.name: node.shape for node in graph.nodes}
        for node in graph.nodes:
            work, loads = _extra_work(node, shapes)
            total["work"] += self.batch * work
            total["loads_compute"] += self.batch * (self.w_mem * loads + self.w_comp * work)
        kinds = layer_kinds(layers)
        return CostReport(
            hardware=self.spec,
            batch=self.batch,
            units=self.quantities,
            total=total,
            layers=tuple(
                LayerCost(
                    layer.name,
                    str(kinds[i]),
                    layer.macs,
                    bits[i].weight_bits,
                    bits[i].act_bits,
                    {name: values[i].item() for name, values in costs.items()},
                )
                for i, layer in enumerate(graph)
            ),
            notes=(*self.notes, _peak_note(memory)),
            description=self.origin.description,
        )

    def memory(self, graph: LayerGraph, policy: QuantPolicy) -> MemoryProfile:
        """Return the order of the operators and the bytes in memory at each.

        Raises:
            PolicyError: If the policy does not name exactly the layers of the graph.
            UnsupportedError: If the graph has no nodes, or the order is ``exact`` and too many
                operators can run side by side.
        """
        policy.check_covers(graph.names)
        if not graph.nodes:
            msg = (
                f"Hardware {self.name!r} cannot tell the peak memory of a network of which only "
                "the layers are known, not what connects them. Give a graph with nodes, as "
                "`networks.trace` and the search spaces do."
            )
            raise UnsupportedError(msg)
        tensors = activation_tensors(graph.nodes, in_place_add=self.in_place_add)
        act_bits = {name: bits.act_bits for name, bits in policy.items()}
        bits = tensors.bits(act_bits, self.output_bits)
        sizes = [
            -(-self.batch * count * element_bits // 8)
            for count, element_bits in zip(tensors.elements, bits, strict=True)
        ]
        if not self.include_input:
            sizes[: tensors.graph.n_inputs] = [0] * tensors.graph.n_inputs
        arrange = best_order if self.order == "exact" else memory_profile
        return arrange(tensors.graph, sizes)

    def peak_memory(self, graph: LayerGraph, policy: QuantPolicy) -> int:
        """Return ``peak_memory_bytes`` alone; see `memory`."""
        return self.memory(graph, policy).peak_bytes

    def flash_bytes(
        self, layers: LayerArrays, weight_bits: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return what the constants of each layer take, in bytes; shapes are ``(n,)``."""
        size = SizeModel(packing=self.packing, bias_bits=self.bias_bits, scales=self.scales)
        packed = size.costs(layers, weight_bits, weight_bits)["packed_bytes"]
        return np.asarray(packed, dtype=np.int64)


def _extra_work(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Return operations and loads of a node that is no layer."""
    elements = prod(node.shape)
    if node.op in ("add", "multiply"):
        work = (len(node.inputs) - 1) * elements
        return work, 2 * work
    if node.op in ("avg_pool", "max_pool"):
        work = elements * prod(pool_window(node, shapes[node.inputs[0]]))
        return work, work
    if node.op == "matmul":
        work = _product_macs(node, shapes)
        return work, 2 * work
    if node.op == "rearrange":
        return 0, elements
    if node.op == "other":
        work = sum(prod(shapes[name]) for name in node.inputs)
        return work, work
    return 0, 0


def _product_macs(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiply-accumulates of ``a @ b``, or of attention, ``softmax(q @ k.T) @ v``."""
    first, *others = (shapes[name] for name in node.inputs)
    length = first[-1] if first else 1
    if len(others) < 2:
        return prod(node.shape) * length
    n_keys = others[0][-2] if len(others[0]) > 1 else 1
    return n_keys * (prod(first) + prod(node.shape))


def _peak_note(memory: MemoryProfile) -> str:
    if not memory.order:
        return "The network has no operators."
    tensors = memory.live_tensors(memory.peak_operator)
    listed = ", ".join(f"{name} {size:,}" for name, size in tensors.items())
    return f"Memory is fullest while `{memory.peak_operator}` runs, in bytes: {listed}."
