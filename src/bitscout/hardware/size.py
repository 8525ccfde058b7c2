# SPDX-License-Identifier: Apache-2.0
"""Size and operation counts: what every target shares.

Definitions of the papers, in bits:

    W      sum over layers of n_weights * weight_bits               (k-means TPE)
    W + B  W + 32 per bias after batch-norm folding                 (BOMP-NAS: "size on disk")
    BOPs   sum over layers of macs * weight_bits * act_bits         (HAWQ-V3)

How ``n`` values of ``b`` bits are stored, a tensor at a time:

    logical    n b bits, rounded to nothing
    bitstream  n b bits, the last byte filled: what `bitscout.quantization.pack_bits` writes
    row        the values of each output channel as a bitstream of their own
    word32     floor(32 / b) values in each 32-bit word, none across two words
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bitscout.core import BIAS_BITS, LayerArrays, LayerGraph, Metrics, QuantPolicy
from bitscout.errors import ConfigError
from bitscout.hardware.model import LayerModel, tunable

__all__ = ["SizeModel", "SizeReport", "size_report"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SizeReport:
    """Exact totals of one candidate.

    Attributes:
        weight_bits: Definition W, in bits.
        bias_bits: 32 bits per bias, in bits.
        macs: Multiply-accumulates for one input.
        bops: Bit operations for one input.
    """

    weight_bits: int
    bias_bits: int
    macs: int
    bops: int

    @property
    def size_bits(self) -> int:
        """Definition W + B, in bits."""
        return self.weight_bits + self.bias_bits

    def metrics(self, *, val_accuracy: float | None = None) -> Metrics:
        """Return the totals as metrics; bytes are bits / 8 and may have a fraction."""
        return Metrics(
            val_accuracy=val_accuracy,
            size_bytes=self.size_bits / 8,
            weight_bytes=self.weight_bits / 8,
            macs=self.macs,
            bops=self.bops,
        )


def size_report(graph: LayerGraph, policy: QuantPolicy) -> SizeReport:
    """Return the totals of `graph` at the bit-widths of `policy`.

    Raises:
        PolicyError: If the policy does not name exactly the layers of the graph.

    Example:
        >>> from bitscout.core import Layer
        >>> graph = LayerGraph((Layer("conv", "conv", 3, 4, kernel=(3, 3), output_size=(8, 8)),))
        >>> size_report(graph, QuantPolicy.uniform(["conv"], 4)).size_bits
        560
    """
    policy.check_covers(graph.names)
    return SizeReport(
        weight_bits=sum(layer.n_weights * policy[layer.name].weight_bits for layer in graph),
        bias_bits=BIAS_BITS * graph.n_biases,
        macs=graph.macs,
        bops=sum(
            layer.macs * policy[layer.name].weight_bits * policy[layer.name].act_bits
            for layer in graph
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SizeModel(LayerModel):
    """Bytes of the weights and what is stored with them, and operations.

    Sizes are those of the network, whatever the batch; ``macs`` and ``bops`` are for the batch.
    ``weight_bytes`` (definition W) and ``size_bytes`` (W and what the options add, by default
    W + B) are bits / 8 and may have a fraction; ``packed_bytes`` is ``size_bytes`` with every
    tensor stored as `packing` says. The bytes of a file's header are in none of them.

    Attributes:
        packing: How every tensor is stored.
        biases: Whether the biases count.
        bias_bits: Bits of a bias, from 1 to 32.
        scales: Whether one scale an output channel counts.
        scale_bits: Bits of a scale, from 1 to 32.
        zero_points: Whether one zero point an output channel counts.
        zero_point_bits: Bits of a zero point, from 1 to 32.

    Raises:
        ConfigError: If an option is out of range.

    Example:
        >>> from bitscout.core import Layer
        >>> graph = LayerGraph((Layer("conv", "conv", 3, 4, kernel=(3, 3), output_size=(8, 8)),))
        >>> report = SizeModel(packing="row").report(graph, QuantPolicy.uniform(["conv"], 5))
        >>> report.total["size_bytes"], report.total["packed_bytes"]  # 27 x 5 bits in 17 bytes
        (83.5, 84.0)
    """

    quantities: ClassVar[Mapping[str, str]] = {
        "weight_bytes": "bytes",
        "size_bytes": "bytes",
        "packed_bytes": "bytes",
        "params": "parameters",
        "macs": "MACs",
        "bops": "bit operations",
    }
    is_dilation_supported: ClassVar[bool] = True

    name: str = "size"
    packing: Literal["logical", "bitstream", "row", "word32"] = tunable("bitstream")
    biases: bool = tunable(True)
    bias_bits: int = tunable(BIAS_BITS, "bits")
    scales: bool = tunable(False)
    scale_bits: int = tunable(32, "bits")
    zero_points: bool = tunable(False)
    zero_point_bits: int = tunable(8, "bits")

    def __post_init__(self) -> None:
        """Reject bits that no word holds."""
        super().__post_init__()
        for option in ("bias_bits", "scale_bits", "zero_point_bits"):
            bits = getattr(self, option)
            if not 1 <= bits <= 32:
                msg = f"`{option}` of hardware {self.name!r} must be from 1 to 32, got {bits}."
                raise ConfigError(msg)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's figures must know."""
        header = (
            "The bytes of a file's header are not counted; `bitscout verify` shows the bytes of "
            "every file that was written."
        )
        return (*super().notes, header)

    def costs(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> Mapping[str, Any]:
        """Return sizes and operation counts of each layer; see `LayerModel.costs`."""
        channels = layers.out_channels
        # Of each tensor: rows, values in a row, bits of a value.
        stored: list[tuple[IntArray, IntArray, IntArray]] = []
        ones = np.ones_like(channels)
        if self.biases:
            stored.append((layers.n_biases, ones, self.bias_bits * ones))
        if self.scales:
            stored.append((channels, ones, self.scale_bits * ones))
        if self.zero_points:
            stored.append((channels, ones, self.zero_point_bits * ones))
        stored.append((channels, layers.n_weights // channels, weight_bits))
        macs = self.batch * layers.macs
        return {
            "weight_bytes": layers.n_weights * weight_bits / 8,
            "size_bytes": sum(_stored_bits("logical", *tensor) for tensor in stored) / 8,
            "packed_bytes": sum(_stored_bits(self.packing, *tensor) for tensor in stored) / 8,
            "params": layers.n_weights + layers.n_biases,
            "macs": macs,
            "bops": macs * weight_bits * act_bits,
        }


def _stored_bits(packing: str, rows: IntArray, per_row: IntArray, bits: IntArray) -> IntArray:
    """Return the bits that tensors of ``rows x per_row`` values of `bits` bits take, exactly."""
    count = rows * per_row
    if packing == "bitstream":
        return 8 * -(-count * bits // 8)
    if packing == "row":
        return 8 * rows * -(-per_row * bits // 8)
    if packing == "word32":
        return 32 * -(-count // (32 // bits))
    return count * bits
