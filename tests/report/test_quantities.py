# SPDX-License-Identifier: Apache-2.0
"""Numbers with units: readable, lined up, and never more than the model said."""

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.hardware import CostReport, LayerCost
from bitscout.report.quantities import column, columns, dearest, shares

FACTORS = {
    "s": 1e3, "ms": 1.0, "µs": 1e-3, "ns": 1e-6,
    "J": 1e3, "mJ": 1.0, "µJ": 1e-3, "nJ": 1e-6,
    "GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0,
    "10^9": 1e9, "10^6": 1e6, "10^3": 1e3, "": 1.0,
}  # fmt: skip


def report(total, *layers, units=None):
    units = units or {name: name.rsplit("_", 1)[-1] for name in total}
    costs = tuple(
        LayerCost(f"layer{i}", "conv", 10, 8, 8, values) for i, values in enumerate(layers)
    )
    return CostReport("x", 1, units, total, costs)


@pytest.mark.parametrize(
    ("name", "unit", "value", "text"),
    [
        ("latency_ms", "ms", 117.98548, "117.99 ms"),
        ("latency_ms", "ms", 0.0004, "400.00 ns"),
        ("energy_mj", "mJ", 1588.682, "1.5887 J"),
        ("size_bytes", "bytes", 999_996, "1.0000 MB"),
        ("size_bytes", "bytes", 999_994, "999.99 kB"),
        ("size_bytes", "bytes", 17, "17 bytes"),
        ("size_bytes", "bytes", 17.5, "17.500 bytes"),
        ("cycles", "cycles", 58_992_740, "58.993 10^6"),
        ("bops", "bit operations", 5e9, "5.0000 10^9"),
        ("stall_cycles", "cycles", 5e4, "50.000 10^3 cycles"),
        ("speedup", "1", 2.5, "2.5000"),
        ("latency_ms", "ms", 0, "0 ms"),
    ],
)
def test_the_largest_value_has_five_digits_and_a_unit_that_suits_it(name, unit, value, text):
    assert column(name, unit, [value]).with_unit(value) == text


@given(
    st.sampled_from(
        [("latency_ms", "ms"), ("energy_mj", "mJ"), ("size_bytes", "bytes"), ("c", "c")]
    ),
    st.floats(1e-5, 1e11),
)
def test_what_is_written_is_the_value_to_four_digits(quantity, value):
    entry = column(*quantity, [value])
    digits, unit = entry.text(value).replace(",", ""), entry.unit
    assert isclose(float(digits) * FACTORS[unit], value, rel_tol=1e-4)
    if value >= 1:
        assert 1 <= float(digits) < 1000 or unit in ("s", "J", "GB", "10^9", "bytes", "")


def test_a_layer_is_written_with_the_decimals_and_the_unit_of_the_whole():
    entry = column("latency_ms", "ms", [30.0, 0.01])
    assert [entry.text(value) for value in (30.0, 0.01, None)] == ["30.000", "0.010", "–"]


def test_the_wanted_quantities_come_first_and_macs_never():
    names = ["dram_bits", "cycles", "macs", "energy_mj", "latency_ms"]
    found = columns(report(dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0)))
    assert [entry.name for entry in found] == ["latency_ms", "energy_mj", "cycles", "dram_bits"]


def test_shares_are_of_what_adds_up_and_of_nothing_else():
    found = report(
        {"a_ms": 4.0, "peak_bytes": 3.0}, *({"a_ms": v, "peak_bytes": 3.0} for v in (1, 3))
    )
    assert shares(found, "a_ms") == [0.25, 0.75]
    assert shares(found, "peak_bytes") is None
    assert shares(report({"a_ms": 1.0}, {"a_ms": 1.0}, {}), "a_ms") is None
    assert shares(report({"a_ms": 0.0}, {"a_ms": 0.0}), "a_ms") is None


def test_time_is_looked_at_before_energy_and_cycles_only_without_time():
    names = ("cycles", "energy_mj", "latency_ms", "size_bytes")
    found = dearest(report(dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0)))
    assert [entry.name for entry, _ in found] == ["latency_ms", "energy_mj"]
    only = dearest(report({"own_bits": 2.0}, {"own_bits": 2.0}))
    assert [entry.name for entry, _ in only] == ["own_bits"]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([2560.0], ["2.56"]),
        ([2048.0, 3200.0], ["2.048", "3.200"]),
        ([7886.0, 3000.0], ["7.886", "3.000"]),
        ([3000.0, 4000.0], ["3", "4"]),
        ([2560.5], ["2.5605"]),
        ([1234567.0], ["1.2346"]),
    ],
)
def test_whole_bytes_are_not_padded(values, written):
    entry = column("peak_memory_bytes", "bytes", values)
    assert [entry.text(value) for value in values] == written


@pytest.mark.parametrize(
    ("name", "unit", "values", "written"),
    [
        ("energy_mj", "mJ", [0.14823, 0.0103, 0.000121], ["148", "10.3", "0.121"]),
        ("energy_mj", "mJ", [0.0099996, 0.0], ["10.0", "0"]),
        ("latency_ms", "ms", [999.96, 12.345], ["1,000", "12.3"]),
        ("peak_memory_bytes", "bytes", [6656.0, 3200.0], ["6.66", "3.20"]),
        ("peak_memory_bytes", "bytes", [3200.0], ["3.2"]),
        ("cycles", "cycles", [444.0, 12.0], ["444", "12"]),
    ],
)
def test_summaries_have_three_digits(name, unit, values, written):
    entry = column(name, unit, values)
    assert [entry.brief(value) for value in values] == written
    assert entry.brief(None) == "–"


def test_parts_of_whole_bytes_keep_their_digits():
    layers = tuple(
        LayerCost(
            f"l{i}", "conv", 1, 8, 8, {"a_bytes": 2500.0, "b_bytes": 2048.0, "c_bytes": 452.0}
        )
        for i in range(2)
    )
    units = dict.fromkeys(("a_bytes", "b_bytes", "c_bytes"), "bytes")
    found = {e.name: e for e in columns(CostReport("x", 1, units, {}, layers))}
    assert [found[f"{n}_bytes"].text(v) for n, v in (("a", 2500.0), ("b", 2048.0))] == [
        "2.500",
        "2.048",
    ]
