"""Sizes by hand, and against the bytes that are really written."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import Layer, LayerArrays, LayerBits, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, PolicyError
from bitscout.hardware import load_hardware, size_report
from bitscout.hardware.reference_networks import REFERENCE_NETWORKS, reference_network
from bitscout.hardware.size import SizeModel
from bitscout.quantization import pack_bits

GRAPH = LayerGraph(
    (
        Layer("conv", "conv", 3, 4, kernel=(3, 3), output_size=(8, 8)),
        Layer("head", "linear", 4, 10, has_bias=False),
    )
)
POLICY = QuantPolicy({"conv": LayerBits(5, 8), "head": LayerBits(3, 4)})


def total(spec, graph=GRAPH, policy=POLICY):
    return load_hardware(spec).report(graph, policy).total


def test_totals_of_two_layers_by_hand():
    report = size_report(GRAPH, POLICY)
    assert report.weight_bits == 108 * 5 + 40 * 3
    assert report.bias_bits == 4 * 32
    assert report.size_bits == 540 + 120 + 128
    assert report.macs == 108 * 64 + 40
    assert report.bops == 108 * 64 * 5 * 8 + 40 * 3 * 4


def test_metrics_are_in_bytes():
    metrics = size_report(GRAPH, POLICY).metrics(val_accuracy=0.5)
    assert metrics.size_bytes == 788 / 8
    assert metrics.weight_bytes == 660 / 8
    assert metrics.val_accuracy == 0.5


def test_a_policy_for_another_network_is_refused():
    for refused in (size_report, SizeModel().report):
        with pytest.raises(PolicyError, match="left out: head"):
            refused(GRAPH, QuantPolicy.uniform(["conv"], 4))


def test_the_model_answers_what_the_report_does():
    report, metrics = total("size"), size_report(GRAPH, POLICY).metrics()
    for name in ("size_bytes", "weight_bytes", "macs", "bops"):
        assert report[name] == metrics[name]
    assert report["params"] == 108 + 40 + 4


@pytest.mark.parametrize(
    ("packing", "packed_bytes"),
    [
        ("logical", (540 + 120 + 128) / 8),
        # 540 bits in 68 bytes, 120 in 15, 4 biases in 16.
        ("bitstream", 68 + 15 + 16),
        # 4 rows of 27 x 5 bits in 17 bytes, 10 rows of 4 x 3 bits in 2, 4 biases in 16.
        ("row", 4 * 17 + 10 * 2 + 16),
        # 6 five-bit values in a word, 18 words; 10 three-bit values, 4 words; 4 words of biases.
        ("word32", 4 * (18 + 4 + 4)),
    ],
)
def test_packed_bytes_by_hand(packing, packed_bytes):
    found = total(f"size:packing={packing}")
    assert found["packed_bytes"] == packed_bytes
    assert found["size_bytes"] == 788 / 8


def test_a_word_wastes_what_the_width_leaves_over():
    graph = LayerGraph((Layer("fc", "linear", 1000, 10, has_bias=False),))
    per_word = {2: 16, 3: 10, 4: 8, 5: 6, 6: 5, 7: 4, 8: 4}
    for bits, values in per_word.items():
        found = total("size:packing=word32", graph, QuantPolicy.uniform(["fc"], bits))
        assert found["packed_bytes"] == 4 * -(-10_000 // values)


def test_biases_scales_and_zero_points_by_hand():
    assert total("size:biases=false")["size_bytes"] == 660 / 8
    assert total("size:bias_bits=16")["size_bytes"] == (660 + 4 * 16) / 8
    scales = total("size:scales=true,scale_bits=16")
    assert scales["size_bytes"] == (660 + 128 + 14 * 16) / 8
    zero_points = total("size:zero_points=true")
    assert zero_points["size_bytes"] == (660 + 128 + 14 * 8) / 8
    assert {scales["weight_bytes"], zero_points["weight_bytes"]} == {660 / 8}


def test_every_stored_tensor_is_rounded_on_its_own():
    # 14 zero points of 3 bits: 4 in 12 bits and 10 in 30, so 2 + 4 bytes; 4 biases of 5 bits: 3.
    spec = "size:bias_bits=5,zero_points=true,zero_point_bits=3"
    assert total(spec)["packed_bytes"] == 68 + 15 + 3 + 2 + 4
    assert total(f"{spec},packing=row")["packed_bytes"] == 4 * 17 + 10 * 2 + 4 + 14
    assert total(f"{spec},packing=word32")["packed_bytes"] == 4 * (18 + 4 + 1 + 1 + 1)


def test_operations_are_for_the_batch_and_sizes_are_not():
    one, three = total("size"), total("size:batch=3")
    for name, value in one.items():
        assert three[name] == value * (3 if name in ("macs", "bops") else 1)


def test_groups_and_dilation_store_no_more():
    layer = Layer("dw", "conv", 8, 8, kernel=(3, 3), groups=8, dilation=(2, 2))
    found = total("size:packing=row", LayerGraph((layer,)), QuantPolicy.uniform(["dw"], 3))
    assert found["weight_bytes"] == 8 * 9 * 3 / 8
    assert found["packed_bytes"] == 8 * 4 + 8 * 4


layers = st.builds(
    lambda groups, ic, oc, kernel, size, has_bias: Layer(
        "layer",
        "conv",
        groups * ic,
        groups * oc,
        kernel=kernel,
        groups=groups,
        output_size=size,
        has_bias=has_bias,
    ),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 12),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.booleans(),
)
bit_widths = st.integers(2, 8)


@given(layer=layers, bits=bit_widths)
def test_a_bitstream_is_as_long_as_the_packed_codes(layer, bits):
    codes = np.zeros(layer.n_weights, dtype=np.int8)
    spec = "size:biases=false,packing="
    graph, policy = LayerGraph((layer,)), QuantPolicy.uniform(["layer"], bits)
    assert total(f"{spec}bitstream", graph, policy)["packed_bytes"] == pack_bits(codes, bits).size
    rows = codes.reshape(layer.out_channels, -1)
    in_rows = sum(pack_bits(row, bits).size for row in rows)
    assert total(f"{spec}row", graph, policy)["packed_bytes"] == in_rows


@given(
    layer=layers, bits=bit_widths, stored=st.tuples(st.booleans(), st.booleans(), st.booleans())
)
def test_packings_are_ordered_and_waste_less_than_they_may(layer, bits, stored):
    options = dict(zip(("biases", "scales", "zero_points"), stored, strict=True))
    graph, policy = LayerGraph((layer,)), QuantPolicy.uniform(["layer"], bits)
    found = {
        packing: SizeModel(packing=packing, **options).report(graph, policy).total["packed_bytes"]
        for packing in ("logical", "bitstream", "row", "word32")
    }
    assert found["logical"] <= found["bitstream"] <= found["row"]
    assert found["bitstream"] < found["logical"] + 1 + sum(stored)
    assert found["row"] < found["logical"] + layer.out_channels * (1 + sum(stored))
    assert found["bitstream"] <= found["word32"]
    assert found["word32"] % 4 == 0


@given(layer=layers, bits=bit_widths, act_bits=bit_widths)
def test_the_model_agrees_with_the_report_for_any_layer(layer, bits, act_bits):
    graph = LayerGraph((layer, replace(layer, name="again")))
    policy = QuantPolicy({"layer": LayerBits(bits, act_bits), "again": LayerBits(act_bits, bits)})
    metrics = size_report(graph, policy).metrics()
    for name in ("size_bytes", "weight_bytes", "macs", "bops"):
        assert total("size", graph, policy)[name] == metrics[name]


def test_many_layers_cost_what_each_costs_alone():
    model = SizeModel(packing="word32", scales=True)
    table = LayerArrays.of(GRAPH)
    weight_bits, act_bits = np.array([5, 3]), np.array([8, 4])
    together = model.costs(table, weight_bits, act_bits)
    for i in range(2):
        alone = model.costs(table[i : i + 1], weight_bits[i : i + 1], act_bits[i : i + 1])
        assert {name: values[0] for name, values in alone.items()} == {
            name: values[i] for name, values in together.items()
        }


@pytest.mark.parametrize("name", sorted(REFERENCE_NETWORKS))
def test_a_reference_network_at_8_bits_is_a_byte_a_weight(name):
    graph = reference_network(name)
    policy = QuantPolicy.uniform(graph.names, 8)
    found = total("size:biases=false", graph, policy)
    assert found["weight_bytes"] == found["size_bytes"] == found["packed_bytes"] == graph.n_weights
    assert found["macs"] == graph.macs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("packing=zip", "one of logical, bitstream, row, word32"),
        ("bias_bits=0", "`bias_bits` .* above 0 bits, got 0"),
        ("scale_bits=33", "`scale_bits` .* got 33"),
        ("zero_point_bits=-1", "`zero_point_bits` .* got -1"),
        ("biases=maybe", "true or false"),
        ("batch=0", "`batch`"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(f"size:{options}")
