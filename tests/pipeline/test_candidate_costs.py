"""What a sampler is told of thousands of candidates is what a trial is told of one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bitscout.core import Metrics
from bitscout.errors import UnsupportedError
from bitscout.hardware import CostReport, HardwareModel, LayerModel, load_hardware, size_report
from bitscout.pipeline.candidate_costs import IMPOSSIBLE, CandidateCosts
from bitscout.space import BompSpace

SPACE = BompSpace()
MIXED = BompSpace(widths="cifar100", act_bits=5, input_shape=(1, 21, 21))
COSTS = ("cycles", "latency_ms", "energy_mj", "peak_memory_bytes", "flash_bytes", "macs", "bops")


def rows_of(space, n=12, seed=0):
    random = space.sample_indices(np.random.default_rng(seed), n)
    return np.vstack([space.seed_indices(), random])


def one_by_one(costs, rows):
    for row in rows:
        values = costs.space.decode(row)
        yield costs.of(costs.space.architecture(values), costs.space.policy(values))


@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["cifar10", "5-bit activations"])
@pytest.mark.parametrize(
    "specs",
    [
        [],
        ["bitfusion"],
        ["bitfusion:depthwise=dense,batch=16", "mcu"],
        ["systolic-fpga:mode=ceil"],
        ["mcu:in_place_add=false,include_input=false,packing=row,batch=3"],
        ["mcu-unas", "size"],
    ],
    ids=lambda specs: "+".join(spec.partition(":")[0] for spec in specs) or "none",
)
def test_a_batch_is_the_loop(space, specs):
    costs = CandidateCosts(space, tuple(load_hardware(spec) for spec in specs))
    rows = rows_of(space)
    batch = costs.batch(rows, costs.batch_metrics)
    assert set(batch) == set(costs.batch_metrics)
    assert {"size_bytes", "macs", "bops"} <= set(batch)
    for i, metrics in enumerate(one_by_one(costs, rows)):
        for name, values in batch.items():
            assert values[i] == pytest.approx(metrics[name], rel=1e-12), name


def test_peak_memory_is_exact_for_many_networks():
    for options in ("", ":in_place_add=false", ":include_input=false,output_bits=32"):
        costs = CandidateCosts(SPACE, (load_hardware(f"mcu{options}"),))
        rows = rows_of(SPACE, 40, seed=1)
        peaks = costs.batch(rows, ("peak_memory_bytes",))["peak_memory_bytes"]
        model = costs.models[0]
        for row, peak in zip(rows, peaks, strict=True):
            values = SPACE.decode(row)
            assert peak == model.peak_memory(SPACE.layers(values), SPACE.policy(values))


def test_the_larger_value_counts_where_two_models_know_a_quantity():
    specs = ("bitfusion", "systolic-fpga:rows=4,columns=4")
    alone = [CandidateCosts(SPACE, (load_hardware(spec),)) for spec in specs]
    both = CandidateCosts(SPACE, tuple(load_hardware(spec) for spec in specs))
    rows = rows_of(SPACE, 4)
    each = [costs.batch(rows, ("latency_ms",))["latency_ms"] for costs in alone]
    together = both.batch(rows, ("latency_ms",))["latency_ms"]
    np.testing.assert_array_equal(together, np.maximum(*each))
    for models in (both.models, both.models[::-1]):
        (metrics,) = one_by_one(CandidateCosts(SPACE, models), rows[:1])
        assert metrics["latency_ms"] == together[0]


def test_without_hardware_metrics_are_the_papers_definitions():
    costs = CandidateCosts(SPACE)
    values = SPACE.seed_values()
    expected = size_report(SPACE.layers(values), SPACE.policy(values)).metrics()
    assert costs.of(SPACE.architecture(values), SPACE.policy(values)) == expected
    # A model with its own idea of a size or a batch does not change them.
    other = CandidateCosts(SPACE, (load_hardware("size:packing=word32,batch=4"),))
    assert other.of(SPACE.architecture(values), SPACE.policy(values)) == expected


@dataclass(frozen=True, kw_only=True)
class NoSeven(LayerModel):
    """Has no rule for kernels of 7, and says so in `costs`."""

    quantities: ClassVar = {"latency_ms": "ms"}

    def costs(self, layers, weight_bits, act_bits):
        if (layers.kernel_height == 7).any():
            msg = "no rule for a kernel of 7"
            raise UnsupportedError(msg)
        return {"latency_ms": layers.macs / 1e6}


@dataclass(frozen=True, kw_only=True)
class RefusesSeven(LayerModel):
    """Has no rule for kernels of 7, and says so before it is asked."""

    quantities: ClassVar = {"latency_ms": "ms"}

    def refusal(self, layers, weight_bits, act_bits):
        found = np.flatnonzero(layers.kernel_height == 7)
        return (int(found[0]), "a kernel of 7") if len(found) else None

    def costs(self, layers, weight_bits, act_bits):
        assert (layers.kernel_height != 7).all()
        return {"latency_ms": layers.macs / 1e6}


@dataclass(frozen=True, kw_only=True)
class EvenBits(LayerModel):
    """Declares few bits."""

    quantities: ClassVar = {"latency_ms": "ms"}
    weight_bits: ClassVar = (4, 6, 8)

    def costs(self, layers, weight_bits, act_bits):
        return {"latency_ms": layers.macs / 1e6}


def test_networks_with_bits_that_are_not_declared_are_impossible():
    space = BompSpace(repetitions=(1,), kernels=(3,))
    costs = CandidateCosts(space, (EvenBits(name="even"),))
    rows = np.vstack([space.seed_indices()] * 2)
    rows[1, [choice.name for choice in space.choices].index("stem.bits")] = 1  # 5 bits
    latency = costs.batch(rows, ("latency_ms",))["latency_ms"]
    assert latency[0] < 1e6 < latency[1] == IMPOSSIBLE
    assert costs.metrics_with_holes == ("latency_ms",)
    values = space.decode(rows[1])
    with pytest.raises(UnsupportedError, match=r"5-bit weights, as layer 'stem.conv' has"):
        costs.of(space.architecture(values), space.policy(values))


@pytest.mark.parametrize("model", [NoSeven, RefusesSeven])
def test_networks_without_a_rule_are_impossible_and_the_others_known(model):
    costs = CandidateCosts(SPACE, (model(name="no-seven"),))
    rows = rows_of(SPACE, 30)
    latency = costs.batch(rows, ("latency_ms",))["latency_ms"]
    has_seven = [
        any(layer.kernel[0] == 7 for layer in SPACE.layers(SPACE.decode(row))) for row in rows
    ]
    assert 5 < sum(has_seven) < 31
    assert (latency >= IMPOSSIBLE).tolist() == has_seven
    # The more layers, the farther away.
    counts = [
        sum(layer.kernel[0] == 7 for layer in SPACE.layers(SPACE.decode(row))) for row in rows
    ]
    np.testing.assert_allclose(
        latency[latency >= IMPOSSIBLE] / IMPOSSIBLE, [c for c in counts if c]
    )
    macs = costs.batch(rows, ("macs",))["macs"]
    known = ~np.array(has_seven)
    np.testing.assert_allclose(latency[known], macs[known] / 1e6, rtol=1e-12)


@dataclass(frozen=True, kw_only=True)
class Board(HardwareModel):
    """Sees a file; counts how often it is asked."""

    quantities: ClassVar = {"latency_ms": "ms", "energy_mj": "mJ"}
    needs_file: ClassVar[bool] = True
    asked: ClassVar[list] = []

    def report(self, graph, policy, *, onnx=None):
        self.asked.append(onnx())
        return CostReport(self.spec, 1, self.quantities, {"latency_ms": 2.5, "energy_mj": 0.1}, ())


def test_a_board_is_asked_after_everything_is_computed(tmp_path):
    Board.asked.clear()
    costs = CandidateCosts(
        SPACE, (Board(name="board"), load_hardware("bitfusion")), lambda a, p: lambda: tmp_path
    )
    values = SPACE.seed_values()
    network = (SPACE.architecture(values), SPACE.policy(values))
    computed = costs.computed(*network)
    assert not Board.asked
    assert computed["energy_mj"] != 0.1  # That of Bit Fusion, which is computed.
    known = costs.measured(*network, computed)
    assert Board.asked == [tmp_path]
    assert known == costs.of(*network)
    assert known["latency_ms"] == max(2.5, computed["latency_ms"])
    assert costs.is_measured
    assert not CandidateCosts(SPACE, costs.models[1:]).is_measured
    # Samplers are not told: nobody knows without asking the board.
    assert "latency_ms" not in costs.batch_metrics
    assert "cycles" in costs.batch_metrics


def test_metrics_are_json_numbers():
    costs = CandidateCosts(SPACE, (load_hardware("bitfusion"), load_hardware("mcu")))
    (metrics,) = one_by_one(costs, rows_of(SPACE, 0))
    assert isinstance(metrics, Metrics)
    assert {*COSTS} <= set(metrics.to_json())
    assert all(type(value) in (int, float) for value in metrics.to_json().values())
    assert type(metrics.cycles) is type(metrics.peak_memory_bytes) is int
