"""Memory of many chains at once against the exact model of one network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.core import Layer, LayerArrays, LayerBits, LayerGraph, Node, QuantPolicy
from bitscout.hardware import chain_flash_bytes, chain_peak_bytes, load_hardware

MODELS = [
    load_hardware("mcu"),
    load_hardware("mcu:in_place_add=false"),
    load_hardware("mcu:include_input=false,output_bits=32"),
    load_hardware("mcu:in_place_add=false,include_input=false,batch=3,packing=row"),
]


@st.composite
def chains(draw):
    """A chain of convolutions, some behind a pool, with connections that may overlap and nest.

    Returns the graph, its policy, and its connections as (start, span).
    """
    n = draw(st.integers(1, 7))
    size, channels = 8, draw(st.integers(1, 4))
    nodes, layers, bits = [Node("input", "input", (), (channels, size, size))], [], {}
    tensors = [("input", (channels, size, size))]
    skips: list[tuple[int, int]] = []
    here, shape = "input", (channels, size, size)
    for k in range(n):
        if k and size > 1 and draw(st.integers(0, 4)) == 0:
            size //= 2
            shape = (shape[0], size, size)
            nodes.append(Node(f"pool{k}", "max_pool", (here,), shape))
            here = f"pool{k}"
        # Few numbers of channels, so that shapes come again and can be added.
        out = draw(st.sampled_from([2, 3]))
        layer = Layer(
            f"conv{k}", "conv", shape[0], out, input_size=(size, size), output_size=(size, size)
        )
        layers.append(layer)
        bits[layer.name] = LayerBits(draw(st.integers(2, 8)), draw(st.integers(2, 8)))
        shape = (out, size, size)
        nodes.append(Node(layer.name, "conv", (here,), shape))
        here = layer.name
        starts = [s for s, (_, other) in enumerate(tensors) if s and other == shape]
        if starts and draw(st.booleans()):
            start = draw(st.sampled_from(starts))
            nodes.append(Node(f"add{k}", "add", (tensors[start][0], here), shape))
            here = f"add{k}"
            skips.append((start, k + 1 - start))
        tensors.append((here, shape))
    return LayerGraph(tuple(layers), tuple(nodes)), QuantPolicy(bits), skips


def as_arrays(examples):
    """Pad some chains to the longest, with nonsense where there is nothing."""
    n = len(examples)
    longest = max(len(graph) for graph, _, _ in examples)
    most = max(len(skips) for _, _, skips in examples)
    table = np.full((n, longest, LayerArrays.of([]).table.shape[-1]), 9, dtype=np.int64)
    weight_bits, act_bits = np.full((2, n, longest), 7, dtype=np.int64)
    skip_table = np.full((n, most, 3), 0, dtype=np.int64)
    for i, (graph, policy, skips) in enumerate(examples):
        table[i, : len(graph)] = LayerArrays.of(graph).table
        weight_bits[i, : len(graph)] = [policy[name].weight_bits for name in graph.names]
        act_bits[i, : len(graph)] = [policy[name].act_bits for name in graph.names]
        for slot, (start, span) in enumerate(sorted(skips)):
            skip_table[i, slot] = (start, span, 0)
    n_layers = np.array([len(graph) for graph, _, _ in examples])
    n_skips = np.array([len(skips) for _, _, skips in examples])
    return LayerArrays(table), weight_bits, act_bits, n_layers, skip_table, n_skips


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.spec)
def test_peak_and_flash_of_many_chains_are_those_of_each(model):
    @settings(max_examples=60)
    @given(examples=st.lists(chains(), min_size=1, max_size=4))
    def check(examples):
        layers, weight_bits, act_bits, n_layers, skips, n_skips = as_arrays(examples)
        peaks = chain_peak_bytes(model, layers, act_bits, n_layers, skips, n_skips)
        present = np.arange(layers.shape[1]) < n_layers[:, None]
        flash = chain_flash_bytes(model, layers, weight_bits, present)
        for i, (graph, policy, _) in enumerate(examples):
            total = model.report(graph, policy).total
            assert peaks[i] == total["peak_memory_bytes"]
            assert flash[i] == total["flash_bytes"]

    check()


def test_no_networks_have_no_peaks():
    layers = LayerArrays.from_columns(in_channels=np.ones((0, 4), dtype=int))
    none = np.zeros((0, 4), dtype=np.int64)
    skips = np.zeros((0, 0, 3), dtype=np.int64)
    zero = np.zeros(0, dtype=np.int64)
    assert chain_peak_bytes(MODELS[0], layers, none, zero, skips, zero).shape == (0,)
    assert chain_flash_bytes(MODELS[0], layers, none, none > 0).shape == (0,)
