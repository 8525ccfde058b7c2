"""Tables against the direct evaluation of the model they were made of."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hardware.toys import Npu, layer_graphs

from bitscout.core import Layer, LayerArrays, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.hardware import HardwareModel, LookupTable

NPU = Npu(name="npu", rows=16, energy_nj=0.3)
CONV = Layer("conv", "conv", 3, 8, kernel=(3, 3), input_size=(8, 8), output_size=(8, 8))
SAME = replace(CONV, name="same")
HEAD = Layer("head", "linear", 8, 10)
GRAPH = LayerGraph((CONV, SAME, HEAD))
TABLE = LookupTable.build(NPU, LayerArrays.of(GRAPH))

seeds = st.integers(0, 2**32 - 1)


def random_bits(model, shape, seed):
    rng = np.random.default_rng(seed)
    return rng.choice(model.weight_bits, shape), rng.choice(model.act_bits, shape)


def direct(model, layers, weight_bits, act_bits):
    """The costs of one network, layer after layer, summed as Python numbers."""
    totals = dict.fromkeys(model.quantities, 0)
    for i in range(len(layers)):
        costs = model.costs(layers[i : i + 1], weight_bits[i : i + 1], act_bits[i : i + 1])
        totals = {name: total + costs[name].item() for name, total in totals.items()}
    return totals


@given(graph=layer_graphs(), seed=seeds)
def test_a_sum_is_the_direct_cost_of_each_of_many_policies(graph, seed):
    layers = LayerArrays.of(graph)
    weight_bits, act_bits = random_bits(NPU, (4, len(graph)), seed)
    totals = LookupTable.build(NPU, layers).bind(graph).totals(weight_bits, act_bits)
    assert totals["cycles"].dtype == np.int64
    for i in range(4):
        expected = direct(NPU, layers, weight_bits[i], act_bits[i])
        assert totals["cycles"][i] == expected["cycles"]
        assert totals["energy_mj"][i] == pytest.approx(expected["energy_mj"], rel=1e-12)


@given(graphs=st.lists(layer_graphs(), min_size=1, max_size=4), seed=seeds)
def test_networks_of_different_layers_are_padded_to_the_longest(graphs, seed):
    arrays = [LayerArrays.of(graph) for graph in graphs]
    longest = max(map(len, arrays))
    padded = LayerArrays.from_columns(in_channels=np.full((len(graphs), longest), 7))
    present = np.zeros((len(graphs), longest), dtype=bool)
    weight_bits, act_bits = random_bits(NPU, present.shape, seed)
    for i, layers in enumerate(arrays):
        padded.table[i, : len(layers)] = layers.table
        present[i, : len(layers)] = True
    weight_bits[~present], act_bits[~present] = 99, -1
    table = LookupTable.build(NPU, padded[present])
    totals = table.totals(padded, weight_bits, act_bits, present)
    for i, layers in enumerate(arrays):
        expected = direct(NPU, layers, weight_bits[i], act_bits[i])
        assert totals["cycles"][i] == expected["cycles"]
        assert totals["energy_mj"][i] == pytest.approx(expected["energy_mj"], rel=1e-12)


@given(graph=layer_graphs(), seed=seeds)
def test_the_order_of_layers_changes_nothing(graph, seed):
    layers, table = LayerArrays.of(graph), LookupTable.build(NPU, LayerArrays.of(graph))
    weight_bits, act_bits = random_bits(NPU, len(graph), seed)
    order = np.random.default_rng(seed).permutation(len(graph))
    here = table.totals(layers, weight_bits, act_bits)
    there = table.totals(layers[order], weight_bits[order], act_bits[order])
    assert here["cycles"] == there["cycles"]
    assert here["energy_mj"] == pytest.approx(there["energy_mj"], rel=1e-12)


@given(graphs=st.lists(layer_graphs(), min_size=2, max_size=4))
def test_a_table_that_grew_is_the_table_of_everything(graphs):
    grown = LookupTable.build(NPU, LayerArrays.of(graphs[0]))
    for graph in graphs[1:]:
        before = grown
        grown = grown.covering(LayerArrays.of(graph))
        assert np.array_equal(grown.layers.table[: len(before.layers)], before.layers.table)
    everything = LayerArrays(np.concatenate([LayerArrays.of(graph).table for graph in graphs]))
    whole = LookupTable.build(NPU, everything)
    assert len(grown.layers) == len(whole.layers)
    rows = grown.rows(whole.layers)
    assert np.array_equal(grown.costs["cycles"][rows], whole.costs["cycles"])
    assert np.array_equal(grown.costs["energy_mj"][rows], whole.costs["energy_mj"])
    assert grown.covering(everything) is grown


def test_equal_layers_are_computed_once_whatever_their_names():
    assert len(TABLE.layers) == 3  # CONV reads the input, SAME does not.
    assert len(LookupTable.build(NPU, LayerArrays.of([CONV, SAME])).layers) == 1
    assert TABLE.costs["cycles"].shape == (3, 3, 3)


def test_a_policy_costs_what_the_report_says():
    policy = QuantPolicy.uniform(GRAPH.names, 4, 8)
    assert TABLE.bind(GRAPH).policy_totals(policy) == NPU.report(GRAPH, policy).total


def test_the_costs_of_each_layer_are_there_for_allocation():
    costs = TABLE.bind(GRAPH).costs["cycles"]
    report = NPU.report(GRAPH, QuantPolicy.uniform(GRAPH.names, 4, 8))
    assert costs[:, 1, 1].tolist() == [layer.costs["cycles"] for layer in report.layers]


def test_a_policy_for_another_network_is_refused():
    with pytest.raises(PolicyError, match="left out: same"):
        TABLE.bind(GRAPH).policy_totals(QuantPolicy.uniform(["conv", "head"], 4))


@dataclass(frozen=True, kw_only=True)
class Slowest(Npu):
    """A network is as slow as its slowest layer."""

    def totals(self, costs):
        return {name: np.asarray(values).max(axis=-1) for name, values in costs.items()}


def test_the_model_says_what_the_total_is():
    model = Slowest(rows=16, energy_nj=0.3)
    policy = QuantPolicy.uniform(GRAPH.names, 4, 8)
    table = LookupTable.build(model, LayerArrays.of(GRAPH)).bind(GRAPH)
    assert table.policy_totals(policy) == model.report(GRAPH, policy).total
    assert table.policy_totals(policy)["cycles"] < NPU.report(GRAPH, policy).total["cycles"]


def test_layers_with_equal_keys_are_told_apart(monkeypatch):
    monkeypatch.setattr(LayerArrays, "keys", lambda self: np.zeros(self.shape, dtype=np.int64))
    table = LookupTable.build(NPU, LayerArrays.of(GRAPH))
    policy = QuantPolicy.uniform(GRAPH.names, 2, 16 // 2)
    assert table.bind(GRAPH).policy_totals(policy) == NPU.report(GRAPH, policy).total
    with pytest.raises(ConfigError, match="lacks 1 of the layers"):
        table.rows(LayerArrays.of([replace(HEAD, out_channels=11)]))


def test_only_the_bits_that_are_asked_for_are_tabulated():
    table = LookupTable.build(NPU, LayerArrays.of(GRAPH), weight_bits=[8, 2], act_bits=[8])
    assert (table.weight_bits, table.act_bits) == ((2, 8), (8,))
    policy = QuantPolicy.uniform(GRAPH.names, 2, 8)
    assert table.bind(GRAPH).policy_totals(policy) == NPU.report(GRAPH, policy).total


# --- refusals


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ((3, 8), UnsupportedError, r"no rule for 3-bit weights, .*conv 3x3.* supports 2, 4, 8 b"),
        ((4, 5), UnsupportedError, "no rule for 5-bit activations"),
        ((0, 8), UnsupportedError, "no rule for 0-bit weights"),
        ((-1, 8), UnsupportedError, "no rule for -1-bit weights"),
        ((4, 2**40), UnsupportedError, "no rule for 1099511627776-bit activations"),
        ((4, 16), ConfigError, "has activation bits 4, 8, got 16. Build it for these bits"),
        ((2, 8), ConfigError, "has weight bits 4, 8, got 2. Build it for these bits"),
        ((4.0, 8), ConfigError, "must be integers, got float64 for weight bits"),
        ((4, True), ConfigError, "must be integers, got bool for activation bits"),
    ],
)
def test_bits_that_are_not_in_the_table_are_refused(bits, error, message):
    bound = LookupTable.build(NPU, LayerArrays.of(GRAPH), [4, 8], [4, 8]).bind(GRAPH)
    with pytest.raises(error, match=message):
        bound.totals(*bits)


def test_one_wrong_bit_among_many_is_found():
    weight_bits, act_bits = random_bits(NPU, (50, 3), 0)
    weight_bits[31, 2] = 5
    with pytest.raises(UnsupportedError, match=r"no rule for 5-bit weights, .*linear"):
        TABLE.bind(GRAPH).totals(weight_bits, act_bits)


def test_a_layer_that_is_not_in_the_table_is_named():
    other = LayerGraph((CONV, replace(HEAD, name="new", out_channels=11)))
    with pytest.raises(ConfigError, match=r"lacks 1 of .* is 'new', a linear 1x1, 8 to 11 chan"):
        TABLE.bind(other)
    with pytest.raises(ConfigError, match=r"the first is linear 1x1, 8 to 11 .*`covering`"):
        TABLE.totals(LayerArrays.of(other), [4, 4], [8, 8])
    with pytest.raises(ConfigError, match="lacks 3"):
        LookupTable.build(NPU, LayerArrays.of([])).bind(GRAPH)


def test_unsupported_bits_and_layers_cannot_be_tabulated():
    with pytest.raises(UnsupportedError, match="no rule for 3-bit weights"):
        LookupTable.build(NPU, LayerArrays.of(GRAPH), weight_bits=[3, 4])
    with pytest.raises(ConfigError, match=r"`act_bits` of a table .* got \[\]"):
        LookupTable.build(NPU, LayerArrays.of(GRAPH), act_bits=[])
    with pytest.raises(UnsupportedError, match="dilated kernel of layer 'conv 3x3, 3 to 8"):
        TABLE.covering(LayerArrays.of([replace(CONV, dilation=(2, 2))]))


def test_a_model_of_whole_networks_has_no_table():
    class Whole(HardwareModel):
        quantities: ClassVar = {}

        def report(self, graph, policy, *, onnx=None):
            raise NotImplementedError

    with pytest.raises(UnsupportedError, match="'custom' sees the whole network"):
        LookupTable.build(Whole(), LayerArrays.of(GRAPH))


# --- layers that the model takes at some bits only: 80 weights in HEAD, 216 in CONV


@given(largest=st.integers(0, 2000), seed=seeds)
def test_a_table_refuses_exactly_what_the_model_refuses(largest, seed):
    model = Npu(rows=16, energy_nj=0.3, largest=largest)
    layers = LayerArrays.of(GRAPH)
    weight_bits, act_bits = random_bits(model, 3, seed)
    bound = LookupTable.build(model, layers).bind(GRAPH)
    fits = (layers.n_weights * weight_bits <= largest).all()
    if fits:
        expected = direct(model, layers, weight_bits, act_bits)
        assert bound.totals(weight_bits, act_bits)["cycles"] == expected["cycles"]
    else:
        with pytest.raises(UnsupportedError, match=f"more than {largest} bits"):
            bound.totals(weight_bits, act_bits)


def test_what_is_known_is_said_and_grows_with_the_table():
    model = Npu(rows=16, energy_nj=0.3, largest=500)
    table = LookupTable.build(model, LayerArrays.of([HEAD])).covering(LayerArrays.of([CONV]))
    assert table.is_known[:, :, 0].tolist() == [[True, True, False], [True, False, False]]
    assert table.costs["cycles"].dtype == np.int64
    padded = table.totals(LayerArrays.of([HEAD, CONV]), [4, 8], [8, 8], present=[True, False])
    assert padded["cycles"] == model.costs(LayerArrays.of([HEAD]), 4, 8)["cycles"]


def test_a_table_says_which_networks_the_model_has_a_rule_for():
    model = Npu(rows=16, energy_nj=0.3, largest=500)
    layers = LayerArrays.of([HEAD, CONV])
    table = LookupTable.build(model, layers)
    weight_bits = [[4, 2], [4, 4], [8, 2], [8, 8]]
    assert table.has_rule(layers, weight_bits, 8).tolist() == [True, False, False, False]
    assert table.has_rule(layers, weight_bits, 8, [True, False]).tolist() == [True, True, 0, 0]
    full = LookupTable.build(NPU, layers)
    assert full.has_rule(layers, weight_bits, 8).tolist() == [True] * 4
    with pytest.raises(UnsupportedError, match="no rule for 5-bit"):
        table.has_rule(layers, [4, 5], 8)


def test_a_table_of_nothing_costs_networks_of_nothing():
    table = LookupTable.build(NPU, LayerArrays.of([]))
    totals = table.totals(LayerArrays.from_columns(in_channels=np.ones((3, 2))), 4, 8, False)
    assert totals["cycles"].tolist() == [0, 0, 0]


@dataclass(frozen=True, kw_only=True)
class Narrow(Npu):
    """Supports few bits, no depthwise layers, and refuses wide layers by the hook."""

    weight_bits: ClassVar = (4, 8)
    kinds: ClassVar = ("conv", "linear")

    def refusal(self, layers, weight_bits, act_bits):
        wide = np.flatnonzero((layers.out_channels > 100) & (weight_bits == 8))
        return (int(wide[0]), "it is too wide") if len(wide) else None


def test_a_table_with_holes_knows_what_the_model_has_a_rule_for():
    model = Narrow(name="narrow", rows=16, energy_nj=0.3)
    wide = Layer("wide", "conv", 8, 200, output_size=(4, 4), input_size=(4, 4))
    depthwise = Layer("dw", "conv", 8, 8, groups=8, output_size=(4, 4), input_size=(4, 4))
    graph = LayerGraph((CONV, wide, depthwise))
    layers = LayerArrays.of(graph)
    table = LookupTable.build_with_holes(model, layers, (4, 5, 8), (4, 8))
    known = table.is_known[table.rows(layers)]
    assert known[0].tolist() == [[True, True], [False, False], [True, True]]
    assert known[1].tolist() == [[True, True], [False, False], [False, False]]
    assert not known[2].any()
    assert table.has_rule(layers[:2], [4, 4], [8, 8])
    assert not table.has_rule(layers[:2], [4, 8], [8, 8])
    expected = model.costs(layers[:2], np.array([8, 4]), np.array([4, 8]))
    totals = table.totals(layers[:2], [8, 4], [4, 8])
    assert totals["cycles"] == expected["cycles"].sum()
    for index, bits, reason in ((1, 8, "too wide"), (0, 5, "5-bit weights"), (2, 4, "depthwise")):
        with pytest.raises(UnsupportedError, match=reason):
            table.totals(layers[index : index + 1], [bits], [8])
    with pytest.raises(UnsupportedError, match="no rule"):
        LookupTable.build(model, layers, (4, 8), (8,))
