"""Published and recorded figures of Bit Fusion, and rules that can be checked by hand."""

import csv
from math import prod
from pathlib import Path

import numpy as np
import pytest

from bitscout.core import LayerArrays, QuantPolicy
from bitscout.hardware import load_hardware
from bitscout.hardware.reference_networks import reference_network

DATA = Path(__file__).parents[3] / "shared" / "data" / "bitfusion"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/bitfusion")
# Our names and the columns of the recorded rows.
COUNTERS = {
    "cycles": "cycles",
    "stall_cycles": "stalls",
    "wbuf_read_bits": "wbuf_rd_bits",
    "wbuf_write_bits": "wbuf_wr_bits",
    "ibuf_read_bits": "ibuf_rd_bits",
    "ibuf_write_bits": "ibuf_wr_bits",
    "obuf_read_bits": "obuf_rd_bits",
    "obuf_write_bits": "obuf_wr_bits",
    "dram_read_bits": "dram_rd_bits",
    "dram_write_bits": "dram_wr_bits",
}


def read(name):
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def convolution(**columns):
    """Return one convolution, square where only the height is given."""
    for name in ("kernel", "stride", "output"):
        side = columns.pop(name, 1)
        columns |= {f"{name}_height": side, f"{name}_width": side}
    return LayerArrays.from_columns(**{name: np.array([value]) for name, value in columns.items()})


def cost_of(hardware, layers, weight_bits, act_bits):
    bits = (np.full(len(layers), width) for width in (weight_bits, act_bits))
    return load_hardware(hardware).costs(layers, *bits)


def totals(network, weight_bits, act_bits, hardware):
    graph = reference_network(network)
    policy = QuantPolicy.uniform(graph.names, weight_bits, act_bits)
    total = load_hardware(hardware).report(graph, policy).total
    return total["latency_ms"], total["energy_mj"]


def benchmark_layers(rows):
    """Return the recorded benchmarks' layers, in the order of `rows`."""
    geometry = {(row["network"], row["layer"]): row for row in read("benchmarks_geometry.csv")}
    shapes = [geometry[row["network"], row["layer"]] for row in rows]

    def column(name):
        return np.array([int(shape[name]) for shape in shapes])

    layers = LayerArrays.from_columns(
        is_linear=np.array([shape["type"] == "fc" for shape in shapes]),
        in_channels=column("IC"),
        out_channels=column("OC"),
        kernel_height=column("K"),
        kernel_width=column("K"),
        stride_height=column("S"),
        stride_width=column("S"),
        output_height=column("O"),
        output_width=column("O"),
        reads_input=column("im2col"),
    )
    return layers, column("w_bits"), column("a_bits")


@needs_data
@pytest.mark.parametrize("name", ["benchmarks_default.csv", "benchmarks_m256_bw4096.csv"])
def test_every_recorded_row_of_the_original_is_met(name):
    rows = read(name)
    hardware = load_hardware(
        "bitfusion:batch=16",
        rows=int(rows[0]["N"]),
        columns=int(rows[0]["M"]),
        dram_bits_per_cycle=int(rows[0]["if_width"]),
        wbuf_bytes=int(rows[0]["wbuf_B"]),
        ibuf_bytes=int(rows[0]["ibuf_B"]),
        obuf_bytes=int(rows[0]["obuf_B"]),
    )
    costs = hardware.costs(*benchmark_layers(rows))
    assert len(rows) == 61
    for ours, theirs in COUNTERS.items():
        np.testing.assert_array_equal(costs[ours], [int(row[theirs]) for row in rows])
    energy_nj = [float(row["energy_nJ"]) for row in rows]
    np.testing.assert_allclose(costs["energy_mj"] * 1e6, energy_nj, rtol=1e-9)


# ms per image, mJ of the batch of 16, speed-up and energy gain over Eyeriss, as printed.
BIT_FUSION_PAPER = {
    "AlexNet": (4.708311, 131.946, 1.866, 1.556),
    "SVHN": (0.164690, 4.220, 8.574, 10.573),
    "CIFAR10": (0.411713, 11.591, 13.406, 14.772),
    "LeNet-5": (0.051294, 1.141, 2.724, 4.298),
    "VGG-7": (0.352811, 9.249, 7.662, 9.866),
    "RESNET-18": (6.134998, 169.666, 1.946, 1.853),
    "RNN": (0.049323, 1.257, 2.657, 5.143),
    "LSTM": (0.042147, 1.080, 2.434, 4.783),
}


@needs_data
def test_gains_over_eyeriss_are_those_of_the_bit_fusion_paper():
    rows = read("benchmarks_default.csv")
    costs = load_hardware("bitfusion:batch=16").costs(*benchmark_layers(rows))
    networks = np.array([row["network"] for row in rows])
    speed_ups, gains = [], []
    for network, (ms, mj, speed_up, gain) in BIT_FUSION_PAPER.items():
        ours_ms = costs["latency_ms"][networks == network].sum() / 16
        ours_mj = costs["energy_mj"][networks == network].sum()
        assert ours_ms == pytest.approx(ms, abs=5.1e-7)
        assert ours_mj == pytest.approx(mj, abs=5.1e-4)
        # Eyeriss takes what its printed ratio to the printed figure says.
        speed_ups.append(ms * speed_up / ours_ms)
        gains.append(mj * gain / ours_mj)
    # "3.9x speedup and 5.1x energy savings over Eyeriss", abstract of arXiv 1712.01507.
    assert prod(speed_ups) ** (1 / 8) == pytest.approx(3.925, abs=1e-3)
    assert prod(gains) ** (1 / 8) == pytest.approx(5.117, abs=1e-3)


def test_a_layer_by_hand():
    # K=1, O=4, 24 -> 64 channels, 6-bit weights, 3-bit inputs: f = 1 * 2, Nf = 32 rows. The best
    # tile is one position and 32 columns, so 32 tiles; weights and inputs stay on chip.
    layer = convolution(in_channels=24, out_channels=64, output=4)
    costs = {name: values.item() for name, values in cost_of("bitfusion", layer, 6, 3).items()}
    weights, inputs, outputs = 64 * 32 * 6, 16 * 24 * 3, 16 * 64 * 32
    assert (weights, inputs, outputs) == (12288, 1152, 32768)
    assert costs["compute_cycles"] == 32
    assert costs["stall_cycles"] == 241 + 171  # ceil(46208 / 192) + ceil(32768 / 192)
    assert costs["cycles"] == 444
    assert costs["wbuf_read_bits"] == 24 * 16 * 64 * 6 == 147456
    assert costs["wbuf_write_bits"] == weights
    assert costs["ibuf_read_bits"] == 24 * 16 * 64 * 3 == 73728
    assert costs["ibuf_write_bits"] == inputs
    assert costs["obuf_read_bits"] == costs["obuf_write_bits"] == outputs + 64 * 16 * 32 == 65536
    assert costs["dram_read_bits"] == weights + inputs + outputs == 46208
    assert costs["dram_write_bits"] == outputs
    # nJ: 32 cycles, then bits times nJ a bit.
    nanojoules = (
        32 * 0.235104
        + 147456 * 2.136565625e-5
        + 12288 * 2.891615625e-5
        + 73728 * 5.9474375e-5
        + 1152 * 1.137040625e-4
        + 65536 * 3.31553125e-5
        + 65536 * 7.30840625e-5
        + (46208 + 32768) * 15e-3
    )
    assert nanojoules == pytest.approx(1207.147561416, rel=1e-12)
    assert costs["energy_mj"] * 1e6 == pytest.approx(nanojoules, rel=1e-12)
    assert costs["latency_ms"] == pytest.approx(444 / 500e6 * 1e3, rel=1e-14)


@pytest.mark.parametrize(
    ("weight_bits", "act_bits", "latency_ms", "energy_mj"),
    [
        (8, 8, 20.0757, 31.0662),  # HAQ, Table 4: 20.08 ms, 31.03 mJ.
        (6, 4, 11.0835, 16.5656),
        (6, 6, 19.9783, 26.8106),
        (4, 4, 7.8448, 13.4656),
    ],
)
def test_mobilenet_v1_in_the_setting_of_haq(weight_bits, act_bits, latency_ms, energy_mj):
    found = totals("mobilenet_v1", weight_bits, act_bits, "bitfusion-haq")
    assert found == pytest.approx((latency_ms, energy_mj), abs=5.1e-5)


@pytest.mark.parametrize(
    ("network", "bits", "options", "latency_ms", "energy_mj"),
    [
        # Totals of the original simulator, recorded with the reference rows.
        ("resnet18", (8, 8), "batch=16", 117.985, 175.643),
        ("resnet18", (4, 4), "batch=16", 42.524, 73.029),
        # Printed 52.695; a search over every tile and order in plain Python gives 52.69424.
        ("resnet18", (2, 2), "batch=16", 31.644, 52.694),
        ("resnet18", (4, 8), "batch=16", 65.720, 109.257),
        ("resnet18", (8, 8), "batch=1", 7.448, 10.411),
        ("vgg16", (8, 8), "batch=16", 1001.474, 1588.682),
        ("vgg16", (4, 4), "batch=16", 297.552, 522.012),
        ("resnet50", (8, 8), "batch=16", 288.865, 426.991),
        ("resnet50", (4, 4), "batch=16", 152.899, 249.339),
        ("mobilenet_v2", (8, 8), "depthwise=dense", 24.813, 35.914),
        ("mobilenet_v2", (8, 8), "depthwise=dense,batch=16", 393.144, 582.559),
        ("mobilenet_v2", (8, 8), "depthwise=ic1", 5.472, 8.397),
        ("mobilenet_v2", (8, 8), "depthwise=ic1,batch=16", 84.020, 128.861),
    ],
)
def test_totals_of_well_known_networks(network, bits, options, latency_ms, energy_mj):
    found = totals(network, *bits, f"bitfusion:{options}")
    assert found == pytest.approx((latency_ms, energy_mj), abs=5.5e-4)


def test_mobilenet_v2_channel_by_channel_takes_57_ms():
    latency_ms, _ = totals("mobilenet_v2", 8, 8, "bitfusion:depthwise=per_channel")
    assert latency_ms == pytest.approx(56.6, abs=0.05)


def test_fewer_bits_may_cost_more_energy():
    # Cycles come first: at 5 bits a schedule of fewer cycles takes more energy.
    dense = "bitfusion:depthwise=dense,batch=16"
    five, six = (totals("mobilenet_v2", bits, bits, dense) for bits in (5, 6))
    assert five == pytest.approx((391.364, 518.145), abs=1e-3)
    assert six == pytest.approx((391.858, 514.975), abs=1e-3)
    assert five[0] < six[0]
    assert five[1] > six[1]


def test_fewer_bits_may_cost_more_cycles():
    # A block of 8f channels: at 2 bits it is 128 wide, and 32 channels are padded to it.
    depthwise = convolution(in_channels=32, out_channels=32, groups=32, kernel=3, output=14)
    cycles = [
        cost_of("bitfusion:depthwise=block", depthwise, bits, bits)["cycles"].item()
        for bits in (2, 4, 8)
    ]
    assert cycles == [12161, 2828, 9520]


def test_larger_buffers_may_be_slower():
    # More data stays on chip, and it is filled and drained outside of the computation.
    layer = convolution(in_channels=128, out_channels=32, kernel=3, output=4)
    doubled = "bitfusion:wbuf_bytes=131072,ibuf_bytes=65536,obuf_bytes=32768"
    small, large = (cost_of(name, layer, 8, 8)["cycles"].item() for name in ("bitfusion", doubled))
    assert (small, large) == (1900, 3052)


GEOMETRY = {"kernel": 3, "stride": 2, "output": 14}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("mode", "grouped", "plain", "repeats"),
    [
        # 96 channels, each filtered on its own; a block is 8f = 8, 32 or 128 of them.
        ("dense", (96, 96, 96), lambda f: (96, 96), lambda f: 1),
        ("ic1", (96, 96, 96), lambda f: (1, 96), lambda f: 1),
        ("per_channel", (96, 96, 96), lambda f: (1, 1), lambda f: 96),
        ("block", (96, 96, 96), lambda f: (8 * f, 8 * f), lambda f: -(-96 // (8 * f))),
        # Twice as many outputs as inputs.
        ("ic1", (48, 96, 48), lambda f: (1, 96), lambda f: 1),
        # 12 groups of 6 -> 10 channels; of a block floor(8f / 6) groups, at least one.
        ("dense", (72, 120, 12), lambda f: (72, 120), lambda f: 1),
        ("ic1", (72, 120, 12), lambda f: (6, 120), lambda f: 1),
        ("per_channel", (72, 120, 12), lambda f: (6, 10), lambda f: 12),
        (
            "block",
            (72, 120, 12),
            lambda f: (6 * (8 * f // 6), 10 * (8 * f // 6)),
            lambda f: -(-12 // (8 * f // 6)),
        ),
        ("block", (320, 320, 2), lambda f: (160, 160), lambda f: 2),
    ],
)
def test_groups_become_plain_convolutions(mode, grouped, plain, repeats, bits):
    factor = (8 // bits) ** 2
    names = ("in_channels", "out_channels", "groups")
    layer = convolution(**dict(zip(names, grouped, strict=True)), **GEOMETRY)
    one = convolution(**dict(zip(names[:2], plain(factor), strict=True)), **GEOMETRY)
    found = cost_of(f"bitfusion:depthwise={mode}", layer, bits, bits)
    expected = cost_of("bitfusion", one, bits, bits)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name] * repeats(factor), rtol=1e-14)


@pytest.mark.parametrize("mode", ["dense", "ic1", "block", "per_channel"])
def test_convolutions_without_groups_do_not_depend_on_the_mode(mode):
    layer = convolution(in_channels=24, out_channels=48, **GEOMETRY)
    assert cost_of(f"bitfusion:depthwise={mode}", layer, 4, 4) == cost_of("bitfusion", layer, 4, 4)


def test_only_a_convolution_that_reads_the_image_is_laid_out_beforehand():
    # Patches of 3x3 at stride 1 repeat inputs nine times, so it shows in the traffic.
    conv, image = (
        cost_of("bitfusion", convolution(in_channels=3, out_channels=32, kernel=3, output=32,
                                         reads_input=is_first), 8, 8)
        for is_first in (0, 1)
    )  # fmt: skip
    assert image["ibuf_write_bits"] > conv["ibuf_write_bits"]
    assert image["compute_cycles"] < conv["compute_cycles"]  # ceil(27 / 16), not 9 ceil(3 / 16).
    linear, first = (
        cost_of("bitfusion", convolution(in_channels=30, out_channels=100, is_linear=1,
                                         reads_input=is_first), 8, 8)
        for is_first in (0, 1)
    )  # fmt: skip
    assert linear == first


def test_a_report_says_which_layer_reads_the_image():
    graph = reference_network("resnet20")
    report = load_hardware("bitfusion").report(graph, QuantPolicy.uniform(graph.names, 8, 8))
    first = convolution(in_channels=3, out_channels=16, kernel=3, output=32, reads_input=1)
    assert report.layers[0].costs["cycles"] == cost_of("bitfusion", first, 8, 8)["cycles"].item()
    for name in ("cycles", "energy_mj"):
        assert report.total[name] == pytest.approx(
            sum(layer.costs[name] for layer in report.layers), rel=1e-12
        )
    assert any("batch of 1" in note for note in report.notes)
    assert any("depthwise=ic1" in note for note in report.notes)
