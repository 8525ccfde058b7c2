"""What every hardware model promises, held against every target of the package."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.core import Layer, LayerArrays, LayerBits, LayerGraph, Node, QuantPolicy
from bitscout.errors import PolicyError, UnsupportedError
from bitscout.hardware import LayerModel, LookupTable, load_hardware, reference_network
from bitscout.hardware.registry import _built_in_models
from bitscout.hardware.targets import built_in_targets, read_target

LAYER_TARGETS = [
    "bitfusion",
    "bitfusion-8x8",
    "bitfusion-haq",
    "bitfusion-stripes",
    "size",
    "systolic-fpga",
]
WHOLE_TARGETS = ["mcu", "mcu-unas", "measured"]
TARGETS = LAYER_TARGETS + WHOLE_TARGETS
ANSWER = 'print(\'{"latency_ms": 2.5, "layers": {}}\')'
OPTIONS = {"measured": {"command": [sys.executable, "-I", "-S", "-c", ANSWER]}}

WIDE = Layer("wide", "conv", 6, 8, (3, 3), (2, 2), 2, (9, 9), (5, 5), has_bias=False)
LAYERS = (*reference_network("mobilenet_v2").layers[::6], WIDE, Layer("fc", "linear", 8, 10))


def chain(shape, *layers):
    """One layer after the other, behind an input of `shape`."""
    nodes = [Node("input", "input", (), shape)]
    for layer in layers:
        height_width = () if layer.kind == "linear" else layer.output_size
        shape = (layer.out_channels, *height_width)
        nodes.append(Node(layer.name, layer.kind, (nodes[-1].name,), shape))
    return LayerGraph(layers, tuple(nodes))


GRAPH = chain((16,), Layer("a", "linear", 16, 8), Layer("b", "linear", 8, 10))
EMPTY = chain((16,))
UNIFORM = {name: 8 if name == "mcu-unas" else 4 for name in TARGETS}


def load(name):
    return load_hardware({"name": name, **OPTIONS.get(name, {})})


def report(name, graph, bits=None):
    policy = QuantPolicy.uniform(graph.names, bits or UNIFORM[name], bits or UNIFORM[name])
    return load(name).report(graph, policy, onnx=lambda: Path("model.onnx"))


@st.composite
def many_layers(draw):
    """Some layers, any of them several times, each at its own bits."""
    chosen = draw(st.lists(st.sampled_from(range(len(LAYERS))), min_size=1, max_size=6))
    bits = st.lists(st.integers(2, 8), min_size=len(chosen), max_size=len(chosen))
    layers = LayerArrays.of(LAYERS)[chosen]
    return layers, np.array(draw(bits)), np.array(draw(bits))


# --- who is here


def test_nobody_is_missing():
    assert sorted(built_in_targets()) == sorted(TARGETS)
    for name in TARGETS:
        assert isinstance(load(name), LayerModel) == (name in LAYER_TARGETS)


def test_every_model_has_a_target_of_its_own_name():
    files = built_in_targets()
    assert {read_target(files[name], name).model for name in files} == set(_built_in_models())
    assert set(_built_in_models()) <= set(files)


# --- what it says about itself


@pytest.mark.parametrize("name", TARGETS)
def test_a_model_says_what_it_answers_and_supports(name):
    model = load(name)
    assert model.quantities
    assert all(isinstance(unit, str) and unit for unit in model.quantities.values())
    assert set(range(2, 9)) <= set(model.weight_bits)
    assert set(range(2, 9)) <= set(model.act_bits)
    assert set(model.kinds) <= {"conv", "depthwise", "grouped", "linear"}
    assert all(isinstance(note, str) and note for note in model.notes)


@pytest.mark.parametrize("name", TARGETS)
def test_a_quantity_says_its_unit_where_its_name_ends_in_one(name):
    for quantity, unit in load(name).quantities.items():
        for suffix in ("ms", "mJ", "bytes", "bits", "cycles"):
            if quantity.endswith(f"_{suffix.lower()}") or quantity == suffix:
                assert unit == suffix


# --- reports


@pytest.mark.parametrize("graph", [GRAPH, EMPTY], ids=["two layers", "no layers"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_report_is_a_complete_json_document_of_finite_numbers(name, graph):
    found = report(name, graph)
    document = found.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document["total"]) == set(document["units"]) == set(load(name).quantities)
    assert all(0 <= value < math.inf for value in document["total"].values())
    assert [layer["name"] for layer in document["layers"]] == list(graph.names)
    for layer in found.layers:
        assert set(layer.costs) <= set(found.units)
        assert all(0 <= value < math.inf for value in layer.costs.values())
        assert not set(layer.costs) & {"name", "kind", "weight_bits", "act_bits"}
    assert document["hardware"] == load(name).spec
    assert document["batch"] == load(name).batch


@pytest.mark.parametrize("name", TARGETS)
def test_a_report_is_the_same_every_time(name):
    assert report(name, GRAPH) == report(name, GRAPH)


@pytest.mark.parametrize("name", TARGETS)
def test_a_policy_of_another_network_is_refused(name):
    with pytest.raises(PolicyError, match="left out: b"):
        load(name).report(GRAPH, QuantPolicy.uniform(["a"], 4), onnx=lambda: Path("x"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_dilated_kernel_is_costed_or_refused_by_name(name):
    graph = chain((6, 9, 9), replace(WIDE, dilation=(2, 2), groups=1))
    model = load(name)
    if model.is_dilation_supported:
        assert report(name, graph).total
    else:
        with pytest.raises(UnsupportedError, match="dilated kernel of layer 'wide'"):
            report(name, graph)


@pytest.mark.parametrize("bits", [0, 9, 16, -1])
@pytest.mark.parametrize("name", TARGETS)
def test_bits_without_a_rule_are_refused(name, bits):
    model, layers = load(name), LayerArrays.of(GRAPH)
    if bits not in model.weight_bits:
        with pytest.raises(UnsupportedError, match=f"{bits}-bit weights, as layer 'a' has"):
            model.check(GRAPH.names, layers, (bits, 8))
    if bits not in model.act_bits:
        with pytest.raises(UnsupportedError, match=f"{bits}-bit activations, as layer 'a' has"):
            model.check(GRAPH.names, layers, (8, bits))


@pytest.mark.parametrize("name", TARGETS)
def test_constants_and_options_are_in_the_signature(name):
    model = load(name)
    assert replace(model, batch=3).signature != model.signature
    assert replace(model, name="other").signature == model.signature


# --- layer models: layers are independent, and a table says the same


@pytest.mark.parametrize("name", LAYER_TARGETS)
@settings(max_examples=10)
@given(many=many_layers())
def test_many_layers_cost_what_each_costs_alone(name, many):
    model, (layers, weight_bits, act_bits) = load(name), many
    before = layers.table.copy()
    together = model.checked_costs(layers, weight_bits, act_bits)
    assert np.array_equal(layers.table, before)
    for i in range(len(layers)):
        one = slice(i, i + 1)
        alone = model.checked_costs(layers[one], weight_bits[one], act_bits[one])
        for quantity, values in together.items():
            assert alone[quantity][0] == values[i]


@pytest.mark.parametrize("name", LAYER_TARGETS)
@settings(max_examples=10)
@given(many=many_layers(), seed=st.integers(0, 999))
def test_the_order_of_layers_changes_no_cost(name, many, seed):
    model, (layers, weight_bits, act_bits) = load(name), many
    order = np.random.default_rng(seed).permutation(len(layers))
    here = model.checked_costs(layers, weight_bits, act_bits)
    there = model.checked_costs(layers[order], weight_bits[order], act_bits[order])
    for quantity, values in here.items():
        assert np.array_equal(values[order], there[quantity])
    totals, other = model.totals(here), model.totals(there)
    for quantity in totals:
        # Sums of some floats in another order: a few ulps.
        assert totals[quantity] == pytest.approx(other[quantity], rel=1e-13)


@pytest.mark.parametrize("name", LAYER_TARGETS)
@settings(max_examples=5)
@given(data=st.data())
def test_the_sum_of_a_table_is_the_direct_cost(name, data):
    model, graph = load(name), LayerGraph(LAYERS)
    bits = st.sampled_from([2, 5, 8])
    policy = QuantPolicy({n: LayerBits(data.draw(bits), data.draw(bits)) for n in graph.names})
    table = LookupTable.build(model, LayerArrays.of(graph), [2, 5, 8], [2, 5, 8])
    direct = model.report(graph, policy).total
    for quantity, total in table.bind(graph).policy_totals(policy).items():
        assert isinstance(total, type(direct[quantity]))
        if isinstance(total, int):
            assert total == direct[quantity]
        else:
            assert total == pytest.approx(direct[quantity], rel=1e-12)


@pytest.mark.parametrize("name", LAYER_TARGETS)
def test_many_networks_at_once_cost_what_each_costs(name):
    model, graph = load(name), LayerGraph(LAYERS)
    rng = np.random.default_rng(0)
    weight_bits, act_bits = rng.integers(2, 9, (2, 5, len(LAYERS)))
    layers = LayerArrays.of(graph)
    bound = LookupTable.build(model, layers).bind(graph)
    together = bound.totals(weight_bits, act_bits)
    for i in range(5):
        costs = model.checked_costs(layers, weight_bits[i], act_bits[i])
        for quantity, total in model.totals(costs).items():
            assert together[quantity][i] == pytest.approx(float(total), rel=1e-12)


@pytest.mark.parametrize("name", LAYER_TARGETS)
def test_no_layers_cost_an_empty_array(name):
    nothing = np.zeros(0, dtype=np.int64)
    for values in load(name).checked_costs(LayerArrays.of([]), nothing, nothing).values():
        assert values.shape == (0,)
    assert len(LookupTable.build(load(name), LayerArrays.of([])).layers) == 0
