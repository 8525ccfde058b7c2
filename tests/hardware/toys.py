"""Hardware models and layers for tests."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from hypothesis import strategies as st

from bitscout.core import Layer, LayerGraph
from bitscout.errors import UnsupportedError
from bitscout.hardware import LayerModel, constant, tunable

__all__ = ["Npu", "layer_graphs", "layers"]


@dataclass(frozen=True, kw_only=True)
class Npu(LayerModel):
    """An integer and a float quantity that depend on both bits and on most of the geometry."""

    quantities: ClassVar = {"cycles": "cycles", "energy_mj": "mJ"}
    weight_bits = (2, 4, 8)
    act_bits = (4, 8, 16)

    rows: int = constant("units")
    energy_nj: float = constant("nJ")
    overhead: int = tunable(7, "cycles")
    largest: int | None = tunable(None, "bit", minimum=0)

    def costs(self, layers, weight_bits, act_bits):
        if self.largest is not None and (layers.n_weights * weight_bits > self.largest).any():
            msg = f"more than {self.largest} bits"
            raise UnsupportedError(msg)
        stride = layers.stride_height * layers.stride_width
        work = self.batch * layers.macs * weight_bits + act_bits * stride
        return {
            "cycles": -(-work // self.rows) + self.overhead * (1 + layers.reads_input),
            "energy_mj": np.sqrt(work + layers.n_biases) * self.energy_nj / 1e6,
        }


channels = st.sampled_from([1, 2, 3, 8, 10, 512])
sizes = st.integers(1, 5)


@st.composite
def layers(draw, name):
    if draw(st.booleans()):
        return Layer(name, "linear", draw(channels), draw(channels), has_bias=draw(st.booleans()))
    groups = draw(st.sampled_from([1, 2, 8]))
    is_depthwise = draw(st.booleans())
    return Layer(
        name,
        "conv",
        groups if is_depthwise else groups * draw(channels),
        groups * draw(channels),
        kernel=(draw(sizes), draw(sizes)),
        stride=(draw(sizes), draw(sizes)),
        groups=groups,
        input_size=(draw(sizes), draw(sizes)),
        output_size=(draw(sizes), draw(sizes)),
        has_bias=draw(st.booleans()),
    )


@st.composite
def layer_graphs(draw, max_layers=6):
    n = draw(st.integers(0, max_layers))
    return LayerGraph(tuple(draw(layers(f"layer{i}")) for i in range(n)))
