"""The search against a literal one, and what must hold of any schedule."""

import numpy as np
import pytest
from tests.hardware.literal_bitfusion import Accelerator, Geometry, cheapest, sizes

from bitscout.core import LayerArrays
from bitscout.hardware import load_hardware
from bitscout.hardware.bitfusion import search

COUNTERS = ("wbuf_read", "wbuf_write", "ibuf_read", "ibuf_write", "obuf_read", "obuf_write",
            "dram_read", "dram_write")  # fmt: skip


def random_layers(rng, n, *, is_small=False):
    """Return geometries with bits from 1 to 8; a few have one position or channel."""
    most = 4 if is_small else 56
    kernel = rng.choice([1, 1, 2, 3, 5], n)
    output = np.where(rng.random(n) < 0.15, 1, rng.integers(1, most + 1, n))
    stride = rng.integers(1, 4, n)
    widest = 40 if is_small else 600
    in_channels = np.where(rng.random(n) < 0.1, 1, rng.integers(1, widest, n))
    out_channels = np.where(rng.random(n) < 0.1, 1, rng.integers(1, widest, n))
    is_im2col = rng.random(n) < 0.2
    weight_bits, act_bits = rng.integers(1, 9, (2, n))
    columns = (kernel, output, stride, in_channels, out_channels, is_im2col, weight_bits, act_bits)
    return [Geometry(*(value.item() for value in row)) for row in zip(*columns, strict=True)]


def arrays(layers):
    """Return (layers, weight bits, activation bits) as the model takes them."""
    column = {name: np.array([getattr(g, name) for g in layers]) for name in Geometry._fields}
    table = LayerArrays.from_columns(
        in_channels=column["in_channels"],
        out_channels=column["out_channels"],
        kernel_height=column["kernel"],
        kernel_width=column["kernel"],
        stride_height=column["stride"],
        stride_width=column["stride"],
        output_height=column["output"],
        output_width=column["output"],
        reads_input=column["is_im2col"],
    )
    return table, column["weight_bits"], column["act_bits"]


def random_machine(rng):
    rows, columns = (int(2 ** rng.integers(1, 5)) for _ in range(2))
    wbuf = rows * columns * 128 * int(2 ** rng.integers(0, 3))
    ibuf = rows * 128 * int(2 ** rng.integers(0, 4))
    obuf = columns * 128 * int(2 ** rng.integers(0, 3))
    energies = (float(e) for e in rng.uniform(1e-5, 1e-3, 7))
    return Accelerator(
        rows, columns, int(rng.choice([31, 64, 192, 1000])), wbuf, ibuf, obuf,
        0.235104 * rows * columns / 512, *energies,
    )  # fmt: skip


def model_of(machine, batch):
    given = machine._asdict()
    energies = {f"{place}_nj_per_bit": given.pop(place) for place in (*COUNTERS[:6], "dram")}
    given.pop("core")
    return load_hardware("bitfusion", batch=batch, **given, **energies)


@pytest.mark.parametrize("seed", range(10))
def test_every_counter_equals_a_literal_search(seed):
    rng = np.random.default_rng(seed)
    machine = Accelerator() if seed == 0 else random_machine(rng)
    batch = int(rng.choice([1, 2, 3, 4]))
    layers = random_layers(rng, 25, is_small=True)
    costs = model_of(machine, batch).costs(*arrays(layers))
    for index, layer in enumerate(layers):
        cycles, energy, counters = cheapest(layer, batch, machine)
        assert costs["cycles"][index] == cycles
        assert costs["compute_cycles"][index] == counters["compute"]
        assert costs["stall_cycles"][index] == counters["stalls"]
        for place in COUNTERS:
            assert costs[f"{place}_bits"][index] == counters[place], (layer, place)
        # Sums of nine products in the same order; the core's energy is another product.
        assert costs["energy_mj"][index] * 1e6 == pytest.approx(energy, rel=1e-14)


def test_tile_sizes_of_the_literal_search():
    # The oracle's own rule, by hand from "min(2^i, X), i = 0..ceil(log2 X)".
    assert sizes(1) == [1]
    assert sizes(6) == [1, 2, 4, 6]
    assert sizes(8) == [1, 2, 4, 8]
    assert sizes(97, 32) == [32, 64, 97]
    assert sizes(10, 32) == [10]


@pytest.mark.parametrize("batch", [1, 16])
def test_costs_are_within_the_bounds_of_any_schedule(batch):
    layers, w, a = arrays(random_layers(np.random.default_rng(batch), 150))
    costs = load_hardware("bitfusion", batch=batch).costs(layers, w, a)
    factor = (8 // np.maximum(w, 2)) * (8 // np.maximum(a, 2))
    outputs = batch * layers.output_height**2 * layers.out_channels * 32
    assert (costs["cycles"] * 16 * 32 * factor >= layers.macs * batch).all()
    assert (costs["dram_write_bits"] >= outputs).all()
    assert (costs["dram_read_bits"] >= layers.n_weights * w + costs["dram_write_bits"]).all()
    assert (costs["cycles"] * 192 >= costs["dram_read_bits"] + costs["dram_write_bits"]).all()


def test_more_bandwidth_never_costs_cycles():
    given = arrays(random_layers(np.random.default_rng(0), 150))
    cycles = [
        load_hardware("bitfusion", dram_bits_per_cycle=bits).costs(*given)["cycles"]
        for bits in (64, 96, 192, 200, 384, 1024)
    ]
    assert (np.diff(cycles, axis=0) <= 0).all()


def test_a_table_equals_its_rows_one_by_one(monkeypatch):
    layers, w, a = arrays(random_layers(np.random.default_rng(1), 40))
    hardware = load_hardware("bitfusion:batch=4")
    together = hardware.costs(layers, w, a)
    monkeypatch.setattr(search, "_MAX_GRID", 1000)
    monkeypatch.setattr(search, "_MAX_ORDERS", 100)
    cut = hardware.costs(layers, w, a)
    alone = [hardware.costs(layers[i : i + 1], w[i : i + 1], a[i : i + 1]) for i in range(40)]
    for name in hardware.quantities:
        np.testing.assert_array_equal(together[name], cut[name])
        np.testing.assert_array_equal(together[name], [row[name][0] for row in alone])


def test_layers_may_come_in_any_order_and_repeatedly():
    rng = np.random.default_rng(2)
    layers, w, a = arrays(random_layers(rng, 30))
    index = rng.integers(0, 30, 80)
    hardware = load_hardware("bitfusion")
    once, shuffled = (
        hardware.costs(layers, w, a),
        hardware.costs(layers[index], w[index], a[index]),
    )
    for name in hardware.quantities:
        np.testing.assert_array_equal(once[name][index], shuffled[name])


def test_no_layers_cost_nothing():
    layers, w, a = arrays(random_layers(np.random.default_rng(3), 2))
    costs = load_hardware("bitfusion").costs(layers[:0], w[:0], a[:0])
    assert all(values.shape == (0,) for values in costs.values())


def test_energy_is_the_sum_of_its_parts_and_time_of_its_cycles():
    given = arrays(random_layers(np.random.default_rng(4), 30))
    costs = load_hardware("bitfusion:frequency_hz=2e8").costs(*given)
    parts = sum(costs[f"{place}_mj"] for place in ("core", "wbuf", "ibuf", "obuf", "dram"))
    np.testing.assert_allclose(costs["energy_mj"], parts, rtol=1e-14)
    np.testing.assert_allclose(costs["latency_ms"], costs["cycles"] / 2e5, rtol=1e-14)
    np.testing.assert_array_equal(costs["cycles"], costs["compute_cycles"] + costs["stall_cycles"])
    # Energy per cycle is that of the synthesis, whatever the clock.
    np.testing.assert_allclose(costs["core_mj"], costs["compute_cycles"] * 0.235104e-6, rtol=1e-14)
