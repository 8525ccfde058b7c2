"""The systolic array by hand, against a plain loop, and against the configurations published."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import Layer, LayerArrays, LayerBits, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware import load_hardware
from bitscout.hardware.dsp_packing import best_packing
from bitscout.hardware.reference_networks import reference_network, resnet20
from bitscout.hardware.systolic import SystolicFpga

CONV = Layer("conv", "conv", 16, 40, kernel=(3, 3), input_size=(14, 14), output_size=(14, 14))
DEPTHWISE = replace(CONV, name="depthwise", in_channels=16, out_channels=16, groups=16)
GROUPED = replace(CONV, name="grouped", in_channels=32, out_channels=64, groups=2)
LINEAR = Layer("linear", "linear", 100, 10)


def report(layer, bits, spec):
    graph = LayerGraph((layer,))
    return load_hardware(spec).report(graph, QuantPolicy({layer.name: LayerBits(*bits)})).total


def ceil_cycles_by_loop(layer, n_acts, n_weights, rows, columns):
    """Count the cycles one by one: channels of a group, filters, pixels and entries at a time."""
    cycles = 0
    entries = layer.in_channels // layer.groups * layer.kernel[0] * layer.kernel[1]
    for _group in range(layer.groups):
        for _filters in range(0, layer.out_channels // layer.groups, rows):
            for _pixels in range(0, layer.output_size[0] * layer.output_size[1], n_acts):
                cycles += len(range(0, entries, columns * n_weights))
    return cycles


# --- by hand


@pytest.mark.parametrize(
    ("layer", "bits", "cycles", "cycles_16bit"),
    [
        # 4 bits: 3 x 2. 196 pixels in 66, 40 filters in 2 x 32, 144 entries in 3 x (32 x 2).
        (CONV, (4, 4), 66 * 2 * 3, 196 * 2 * 5),
        # 2 bits: 5 x 3.
        (CONV, (2, 2), 40 * 2 * 2, 196 * 2 * 5),
        # One row a channel: 16 channels, 9 entries fit in one step.
        (DEPTHWISE, (4, 4), 16 * 66, 16 * 196),
        # Two groups of 32 filters with 144 entries.
        (GROUPED, (8, 8), 2 * 98 * 1 * 5, 2 * 196 * 1 * 5),
        (LINEAR, (4, 4), 1 * 1 * 2, 1 * 1 * 4),
    ],
    ids=["conv 4 bit", "conv 2 bit", "depthwise", "grouped", "linear"],
)
def test_rounded_cycles_by_hand(layer, bits, cycles, cycles_16bit):
    total = report(layer, bits, "systolic-fpga:mode=ceil,rows=32,columns=32")
    assert (total["cycles"], total["cycles_16bit"]) == (cycles, cycles_16bit)
    assert total["speedup"] == cycles_16bit / cycles
    assert total["latency_ms"] == pytest.approx(cycles / 200e6 * 1e3, rel=1e-15)


def test_ideal_cycles_by_hand():
    total = report(CONV, (2, 2), "systolic-fpga:rows=8,columns=4")
    macs = 40 * 16 * 9 * 196
    assert total["cycles"] == macs / (15 * 32)
    assert total["cycles_16bit"] == macs / 32
    assert total["speedup"] == pytest.approx(15, rel=1e-15)


def test_operations_count_the_additions_inside_a_multiplier():
    for bits, operations in ((8, 2), (6, 2), (4, 8), (3, 8), (2, 23)):
        total = report(CONV, (bits, bits), "systolic-fpga:count=ops")
        assert total["speedup"] == pytest.approx(operations, rel=1e-14)


def test_rows_are_filters_and_columns_are_entries_of_a_patch():
    more_rows = report(CONV, (8, 8), "systolic-fpga:mode=ceil,rows=40,columns=1")
    assert more_rows["cycles"] == 98 * 144
    more_columns = report(CONV, (8, 8), "systolic-fpga:mode=ceil,rows=1,columns=144")
    assert more_columns["cycles"] == 98 * 40


def test_activations_take_the_wide_port():
    total = report(CONV, (2, 8), "systolic-fpga:mode=ceil,rows=40,columns=1")
    packing = best_packing(8, 2, signed=True, accumulate=2)
    assert (packing.n_acts, packing.n_weights) != (
        (swapped := best_packing(2, 8, signed=True, accumulate=2)).n_acts,
        swapped.n_weights,
    )
    assert total["cycles"] == ceil(196 / packing.n_acts) * ceil(144 / packing.n_weights)


@pytest.mark.parametrize("mode", ["ideal", "ceil"])
def test_a_batch_costs_as_much_for_each_input(mode):
    one = report(CONV, (4, 3), f"systolic-fpga:mode={mode}")
    five = report(CONV, (4, 3), f"systolic-fpga:mode={mode},batch=5")
    assert five["cycles"] == 5 * one["cycles"]
    assert five["cycles_16bit"] == 5 * one["cycles_16bit"]
    assert five["speedup"] == pytest.approx(one["speedup"], rel=1e-15)


def test_filling_the_array_costs_once_a_layer():
    without = report(CONV, (4, 4), "systolic-fpga:mode=ceil,batch=3")
    with_fill = report(CONV, (4, 4), "systolic-fpga:mode=ceil,batch=3,fill_cycles=40")
    assert with_fill["cycles"] == without["cycles"] + 40
    assert with_fill["cycles_16bit"] == without["cycles_16bit"] + 40


def test_dilation_changes_nothing():
    dilated = replace(CONV, dilation=(2, 2))
    for mode in ("ideal", "ceil"):
        spec = f"systolic-fpga:mode={mode}"
        assert report(dilated, (4, 4), spec) == report(CONV, (4, 4), spec)


# --- properties

layers = st.builds(
    lambda groups, ic, oc, kernel, size: Layer(
        "layer", "conv", groups * ic, groups * oc, kernel=kernel, groups=groups, output_size=size
    ),
    st.sampled_from([1, 1, 2, 7]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
bits = st.integers(2, 8)
sides = st.integers(1, 20)


@given(layer=layers, act_bits=bits, weight_bits=bits, rows=sides, columns=sides)
def test_rounded_cycles_equal_a_plain_loop(layer, act_bits, weight_bits, rows, columns):
    total = report(
        layer, (weight_bits, act_bits), f"systolic-fpga:mode=ceil,rows={rows},columns={columns}"
    )
    packing = best_packing(act_bits, weight_bits, signed=True, accumulate=2)
    operands = (packing.n_acts, packing.n_weights)
    assert total["cycles"] == ceil_cycles_by_loop(layer, *operands, rows, columns)
    assert total["cycles_16bit"] == ceil_cycles_by_loop(layer, 1, 1, rows, columns)


@given(layer=layers, act_bits=bits, weight_bits=bits, rows=sides, columns=sides)
def test_rounding_never_saves_cycles(layer, act_bits, weight_bits, rows, columns):
    spec = f"systolic-fpga:rows={rows},columns={columns}"
    both = [report(layer, (weight_bits, act_bits), f"{spec},mode={m}") for m in ("ideal", "ceil")]
    assert both[0]["cycles"] <= both[1]["cycles"] * (1 + 1e-12)
    assert both[0]["cycles_16bit"] <= both[1]["cycles_16bit"] * (1 + 1e-12)


@pytest.mark.parametrize("mode", ["ideal", "ceil"])
def test_many_layers_cost_what_each_costs_alone(mode):
    model = load_hardware(f"systolic-fpga:mode={mode},batch=4")
    graph = LayerGraph((CONV, DEPTHWISE, GROUPED, LINEAR))
    weight_bits, act_bits = np.array([2, 3, 5, 8]), np.array([4, 8, 5, 2])
    together = model.costs(LayerArrays.of(graph), weight_bits, act_bits)
    for i, layer in enumerate(graph):
        alone = model.costs(LayerArrays.of([layer]), weight_bits[i : i + 1], act_bits[i : i + 1])
        for name, values in alone.items():
            assert values[0] == together[name][i]


def test_the_speedup_of_a_network_is_that_of_its_total_cycles():
    model = load_hardware("systolic-fpga:mode=ceil")
    graph = LayerGraph((CONV, LINEAR))
    found = model.report(graph, QuantPolicy({"conv": LayerBits(2, 2), "linear": LayerBits(8, 8)}))
    totals = [
        sum(layer.costs[name] for layer in found.layers) for name in ("cycles", "cycles_16bit")
    ]
    assert [found.total["cycles"], found.total["cycles_16bit"]] == totals
    assert found.total["speedup"] == totals[1] / totals[0]


def test_totals_of_many_networks_are_those_of_each():
    model = load_hardware("systolic-fpga")
    costs = {
        name: np.array([[1.0, 2.0], [3.0, 4.0]]) * factor
        for name, factor in {"cycles": 1, "latency_ms": 2, "cycles_16bit": 6, "speedup": 1}.items()
    }
    totals = model.totals(costs)
    assert totals["cycles"].tolist() == [3.0, 7.0]
    assert totals["speedup"].tolist() == [6.0, 6.0]


def test_a_network_without_layers_costs_nothing():
    total = load_hardware("systolic-fpga").report(LayerGraph(()), QuantPolicy({})).total
    assert total == {"cycles": 0, "latency_ms": 0, "cycles_16bit": 0, "speedup": 1}


# --- published

# Table IV prints 19 bit-widths for the 20 layers of ResNet-20 and 17 for the 18 of ResNet-18.
RESNET20_PRINTED = [8, *[3] * 7, 2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 8]
# Pairs completed, one bit-width for both layers of a residual block.
RESNET20_BITS = [8, *[3] * 8, 2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 8]
RESNET18_PRINTED = [8, 6, 6, 4, 4, 6, 6, 4, 4, 4, 2, 2, 3, 3, 2, 2, 6]


def speedup_over(baseline, graph, bits, spec):
    """Return the speed-up over another network at 16 bits."""
    model = load_hardware(spec)
    policy = QuantPolicy({n: LayerBits(b, b) for n, b in zip(graph.names, bits, strict=True)})
    uniform = QuantPolicy.uniform(baseline.names, 8)
    wide = model.report(baseline, uniform).total["cycles_16bit"]
    return wide / model.report(graph, policy).total["cycles"]


@pytest.mark.parametrize(
    ("bits", "mults", "ops", "megabytes"),
    [
        # The last bit-width repeated; and pairs completed, whose size is Table III's 0.052 MB.
        ([*RESNET20_PRINTED, 8], 8.63, 10.98, 0.065),
        (RESNET20_BITS, 9.53, 12.70, 0.052),
    ],
    ids=["as printed", "pairs completed"],
)
def test_the_published_resnet20(bits, mults, ops, megabytes):
    graph, baseline = resnet20(widths=(16, 24, 48)), resnet20()
    assert speedup_over(baseline, graph, bits, "systolic-fpga") == pytest.approx(mults, abs=0.005)
    in_ops = speedup_over(baseline, graph, bits, "systolic-fpga:count=ops")
    assert in_ops == pytest.approx(ops, abs=0.005)
    policy = QuantPolicy({n: LayerBits(b, b) for n, b in zip(graph.names, bits, strict=True)})
    size = load_hardware("size:biases=false").report(graph, policy).total["size_bytes"]
    assert round(size / 1e6, 3) == megabytes


def test_the_published_resnet20_is_416832_bits():
    graph = resnet20(widths=(16, 24, 48))
    policy = QuantPolicy(
        {n: LayerBits(b, b) for n, b in zip(graph.names, RESNET20_BITS, strict=True)}
    )
    assert load_hardware("size").report(graph, policy).total["weight_bytes"] * 8 == 416_832


def published_resnet18():
    """Return ResNet-18 at the widths of Table IV: 1.25 and 0.875 in its first two stages."""
    scaled = {64: 80, 128: 112}
    return LayerGraph(
        tuple(
            replace(
                layer,
                in_channels=scaled.get(layer.in_channels, layer.in_channels),
                out_channels=scaled.get(layer.out_channels, layer.out_channels),
            )
            for layer in reference_network("resnet18")
        )
    )


@pytest.mark.parametrize("shortcut_bits", [4, 6, 8])
@pytest.mark.parametrize(
    "bits",
    [[*RESNET18_PRINTED, 6], [*RESNET18_PRINTED[:9], 4, *RESNET18_PRINTED[9:]]],
    ids=["as printed", "pairs completed"],
)
def test_the_published_resnet18_is_not_as_fast_as_printed(bits, shortcut_bits):
    baseline, graph = reference_network("resnet18"), published_resnet18()
    rest = iter(bits)
    given = [shortcut_bits if "downsample" in name else next(rest) for name in graph.names]
    found = speedup_over(baseline, graph, given, "systolic-fpga")
    assert 3.2 < found < 3.6
    assert speedup_over(baseline, graph, given, "systolic-fpga:count=ops") < 4  # Printed: 10.90.


@pytest.mark.parametrize(
    ("name", "megabytes"), [("resnet18", 23.38), ("resnet20", 0.54), ("resnet50", 51.3)]
)
def test_sizes_of_the_16_bit_baselines(name, megabytes):
    graph = reference_network(name)
    # Convolutions and classifiers alone: whether the paper counts batch norms is not stated.
    assert graph.n_weights * 2 / 1e6 == pytest.approx(megabytes, rel=0.01)


def test_the_derived_packing_is_the_published_one():
    model = load_hardware("systolic-fpga")
    assert model.published_mults == ((2, 15), (3, 6), (4, 6), (6, 2), (8, 2))
    for bits, products in model.published_mults:
        for signed in (False, True):
            assert replace(model, signed=signed).packing(bits, bits).mults == products
    assert "A DSP makes as many products as published." in model.notes


def test_a_note_says_where_the_packing_is_not_the_published_one():
    notes = load_hardware("systolic-fpga:accumulate=4").notes
    assert any("12 at 2 bits (published: 15)" in note for note in notes)


def test_published_products_are_read_as_they_are_written():
    model = load_hardware("systolic-fpga:published_mults=2:15 8:2")
    assert load_hardware(model.spec) == model


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rows=0", "`rows` .* above 0 PEs, got 0"),
        ("columns=-1", "`columns` .* above 0 PEs, got -1"),
        ("clock_hz=0", "`clock_hz` .* above 0"),
        ("accumulate=0", "`accumulate` .* above 0"),
        ("batch=0", "`batch` .* at least 1"),
        ("mode=ceil,fill_cycles=-1", "`fill_cycles` .* at least 0 cycles, got -1"),
        ("mode=ceil,count=ops", "`count=ops` needs `mode=ideal`"),
        ("fill_cycles=9", "`fill_cycles` needs `mode=ceil`"),
        ("mode=fast", "one of ideal, ceil"),
        ("act_port_bits=1", "at least 2 bits"),
        ("published_mults=many", "bits:products"),
        ({"name": "systolic-fpga", "published_mults": 15}, "bits:products"),
        ({"name": "systolic-fpga", "published_mults": {2: None}}, "bits:products"),
        ({"name": "systolic-fpga", "published_mults": {0: 4}}, "bits:products"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    spec = options if isinstance(options, dict) else f"systolic-fpga:{options}"
    with pytest.raises(ConfigError, match=message):
        load_hardware(spec)


def test_a_multiplier_too_narrow_for_the_baseline_is_refused():
    with pytest.raises(UnsupportedError, match="16 x 16 bits"):
        load_hardware("systolic-fpga:weight_port_bits=12")


def test_a_model_without_a_target_file_needs_its_constants():
    model = SystolicFpga(
        rows=4,
        columns=4,
        clock_hz=1e8,
        act_port_bits=27,
        weight_port_bits=18,
        accumulator_bits=48,
    )
    assert len(model.notes) == 1
