# SPDX-License-Identifier: Apache-2.0
"""A systolic array of FPGA multipliers, each working on several narrow products at once.

The array of Section III.C of [Azizi2023]_: M rows of N processing elements with one DSP each. A
row belongs to an output filter. The entries of an input patch are spread over the columns and
passed down the rows, one row a cycle; what a row accumulates meets in a tree of adders. So the
paper's M are `rows`, filters, and its N are `columns`, entries of the patch.

A DSP multiplies N_b packed activations with K_b packed weights (`bitscout.hardware.dsp_packing`).
Cycles of one layer for one input, where 16-bit values are packed 1 x 1:

    ideal    MACs / (N_b K_b rows columns): nothing is ever left over
    ceil     groups ceil(pixels / N_b) ceil(filters / rows) ceil(entries / (columns K_b))

with the output pixels of a channel, the filters of a group, and the entries of a filter,
``kernel height x kernel width x input channels of a group``. All rows see the same patch, so in
``ceil`` a depthwise convolution keeps one row busy. As in the paper, memory is always fast enough
and every filter has rows of entries to pack, a 1x1 kernel as well as a 3x3.

References:
    .. [Azizi2023] S. Azizi, M. Nazemi, A. Fayyazi, M. Pedram. Sensitivity-Aware Mixed-Precision
       Quantization and Width Optimization of Deep Neural Networks Through Cluster-Based
       Tree-Structured Parzen Estimation. 2023. https://arxiv.org/abs/2308.06422
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError
from bitscout.hardware.dsp_packing import Packing, best_packing
from bitscout.hardware.dsp_ports import DspPorts
from bitscout.hardware.model import ALL_BITS, LayerModel, constant, tunable
from bitscout.hardware.options import Notation

__all__ = ["SystolicFpga"]

IntArray = NDArray[np.int64]
Factors = tuple[tuple[int, int], ...]

BASELINE_BITS: Final = 16  # FiP16, the baseline of [Azizi2023], Table II.


def _read_factors(value: Any) -> Factors:  # noqa: ANN401  # YAML or text
    """Return pairs of bits and products from ``{2: 15, 8: 2}`` or ``2:15 8:2``."""
    pairs = value.items() if isinstance(value, Mapping) else str(value).split()
    split = [pair.split(":") if isinstance(pair, str) else pair for pair in pairs]
    factors = tuple(sorted((int(str(bits)), int(str(products))) for bits, products in split))
    if min((number for factor in factors for number in factor), default=1) < 1:
        msg = f"bits and products must be at least 1, got {factors}"
        raise ValueError(msg)
    return factors


def _write_factors(value: Factors) -> str:
    return " ".join(f"{bits}:{products}" for bits, products in value)


@dataclass(frozen=True, kw_only=True)
class SystolicFpga(LayerModel):
    """Cycles on a systolic array of DSPs with packed operands; see the module.

    ``cycles`` of the mode ``ideal`` may have a fraction. ``cycles_16bit`` are those of the same
    layers at 16 bits in the same mode, ``speedup`` is their ratio; that of a network is the ratio
    of its totals. The paper compares with the network at width 1: divide its ``cycles_16bit``.

    Attributes:
        rows: Filters at a time.
        columns: Entries of an input patch at a time.
        clock_hz: Clock.
        act_port_bits: Bits of the multiplier's port for activations.
        weight_port_bits: Bits of its port for weights.
        accumulator_bits: Bits of its accumulator.
        mode: ``ideal`` or ``ceil``.
        count: What one cycle of a DSP is worth in ``ideal``: its multiplications (``mults``), or
            also the additions inside it (``ops``), as if each were one more multiplication.
        accumulate: Products summed in the accumulator before they are unpacked.
        signed: Whether values are packed as signed rather than as unsigned ones.
        fill_cycles: Cycles to fill and drain the array, once a layer; in ``ceil`` only.
        published_mults: Bits and the products a DSP is said to make where activations and weights
            both have them. Nothing is computed from these: `notes` says where `packing` differs.

    Raises:
        ConfigError: If an option is out of range.
        UnsupportedError: If the multiplier is too narrow for 16-bit products.
    """

    quantities: ClassVar[Mapping[str, str]] = {
        "cycles": "cycles",
        "latency_ms": "ms",
        "cycles_16bit": "cycles",
        "speedup": "1",
    }
    is_dilation_supported: ClassVar[bool] = True  # A patch has as many entries, wherever from.

    name: str = "systolic-fpga"
    rows: int = constant("PEs")
    columns: int = constant("PEs")
    clock_hz: float = constant("Hz")
    act_port_bits: int = constant("bits")
    weight_port_bits: int = constant("bits")
    accumulator_bits: int = constant("bits")
    mode: Literal["ideal", "ceil"] = tunable("ideal")
    count: Literal["mults", "ops"] = tunable("mults")
    accumulate: int = tunable(2, "products")
    signed: bool = tunable(True)
    fill_cycles: int = tunable(0, "cycles")
    published_mults: tuple[tuple[int, int], ...] = tunable(
        (),
        "products",
        notation=Notation("bits:products, such as 2:15 8:2", _read_factors, _write_factors),
    )

    def __post_init__(self) -> None:
        """Reject arrays and multipliers that compute nothing, and options without meaning."""
        super().__post_init__()
        if self.mode == "ceil" and self.count == "ops":
            msg = (
                f"Hardware {self.name!r}: `count=ops` needs `mode=ideal`. The mode ceil counts "
                "operands as they are packed, whose additions are no multiplications."
            )
            raise ConfigError(msg)
        if self.mode == "ideal" and self.fill_cycles:
            msg = f"Hardware {self.name!r}: `fill_cycles` needs `mode=ceil`, got ideal."
            raise ConfigError(msg)
        self.packing(BASELINE_BITS, BASELINE_BITS)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's figures must know."""
        baseline = (
            "`speedup` is against the same layers at 16 bits; to compare with another width, "
            "divide by the `cycles_16bit` of that network."
        )
        return (*super().notes, baseline, *self._note_on_packing())

    def _note_on_packing(self) -> tuple[str, ...]:
        """Compare the packing with the published one."""
        pairs = [(b, said, self.packing(b, b).mults) for b, said in self.published_mults]
        differing = [
            f"{mults} at {bits} bits (published: {said})"
            for bits, said, mults in pairs
            if mults != said
        ]
        if differing:
            return (f"A DSP of this configuration makes {', '.join(differing)} products.",)
        return ("A DSP makes as many products as published.",) if pairs else ()

    def packing(self, act_bits: int, weight_bits: int) -> Packing:
        """Return how activations and weights of these bits share a DSP.

        Raises:
            UnsupportedError: If not even one product fits.
        """
        return best_packing(
            act_bits,
            weight_bits,
            signed=self.signed,
            accumulate=self.accumulate,
            ports=self._ports,
        )

    def costs(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> Mapping[str, Any]:
        """Return cycles, time and speed-up of each layer; see `LayerModel.costs`."""
        acts, weights = _operands(self.signed, self.accumulate, self._ports)
        packed = acts[act_bits, weight_bits], weights[act_bits, weight_bits]
        cycles = self._cycles(layers, *packed)
        one = np.ones_like(act_bits)
        baseline = self.packing(BASELINE_BITS, BASELINE_BITS)
        cycles_16bit = self._cycles(layers, one * baseline.n_acts, one * baseline.n_weights)
        return {
            "cycles": cycles,
            "latency_ms": 1e3 * cycles / self.clock_hz,
            "cycles_16bit": cycles_16bit,
            "speedup": cycles_16bit / cycles,
        }

    def totals(self, costs: Mapping[str, Any]) -> dict[str, Any]:
        """Return sums, and the ratio of the sums for ``speedup``; 1 for no layers."""
        totals = super().totals(costs)
        cycles, cycles_16bit = (np.asarray(totals[k]) for k in ("cycles", "cycles_16bit"))
        ratio = np.ones(cycles.shape)
        np.divide(cycles_16bit, cycles, out=ratio, where=cycles > 0)
        return totals | {"speedup": ratio}

    def _cycles(self, layers: LayerArrays, n_acts: IntArray, n_weights: IntArray) -> NDArray[Any]:
        """Return the cycles of each layer where operands hold so many values; see the module."""
        if self.mode == "ideal":
            worth = n_acts * n_weights
            if self.count == "ops":
                worth = worth + (n_acts - 1) * (n_weights - 1)
            return self.batch * layers.macs / (worth * self.rows * self.columns)
        pixels = layers.output_height * layers.output_width
        entries = layers.n_weights // layers.out_channels
        invocations = layers.groups * _ceil_div(layers.out_channels // layers.groups, self.rows)
        steps = _ceil_div(pixels, n_acts) * _ceil_div(entries, self.columns * n_weights)
        return self.batch * invocations * steps + self.fill_cycles

    @property
    def _ports(self) -> DspPorts:
        return DspPorts(self.act_port_bits, self.weight_port_bits, self.accumulator_bits)


@cache
def _operands(signed: bool, accumulate: int, ports: DspPorts) -> tuple[IntArray, IntArray]:
    """Return activations and weights in an operand, each indexed by bits of both."""
    acts = np.zeros((max(ALL_BITS) + 1,) * 2, dtype=np.int64)
    weights = np.zeros_like(acts)
    for bits in product(ALL_BITS, repeat=2):
        packing = best_packing(*bits, signed=signed, accumulate=accumulate, ports=ports)
        acts[bits], weights[bits] = packing.n_acts, packing.n_weights
    return acts, weights


def _ceil_div(dividend: IntArray, divisor: IntArray | int) -> IntArray:
    return -(-dividend // divisor)
