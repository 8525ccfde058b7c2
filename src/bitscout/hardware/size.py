# SPDX-License-Identifier: Apache-2.0
"""Size and operation counts: what every target shares.

Definitions of the papers, in bits:

    W      sum over layers of n_weights * weight_bits               (k-means TPE)
    W + B  W + 32 per bias after batch-norm folding                 (BOMP-NAS: "size on disk")
    BOPs   sum over layers of macs * weight_bits * act_bits         (HAWQ-V3)
"""

from __future__ import annotations

from dataclasses import dataclass

from bitscout.core import BIAS_BITS, LayerGraph, Metrics, QuantPolicy

__all__ = ["SizeReport", "size_report"]


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
