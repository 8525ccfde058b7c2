# SPDX-License-Identifier: Apache-2.0
"""What a network costs, from every kind of source, against counts by hand and direct reports."""

import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import bitscout
from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.hardware import CostReport, HardwareModel, LayerModel, reference_network
from bitscout.pipeline import cost, load_config, onnx_writer, plan_cost
from bitscout.pipeline.cost_arguments import read_settings
from bitscout.pipeline.load import apply_setting
from bitscout.pipeline.spaces import build_space

MAKER = """
import torch
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )

ready = make()

class Nested:
    make = make

def broken():
    raise ValueError("no weights here")

def number():
    return 3

class Odd(nn.Module):
    def forward(self, x):
        return {}["key"]
"""


@dataclass(frozen=True, kw_only=True)
class Npu(LayerModel):
    """Latency is the MACs at the wider operand; odd widths of weights have no rule."""

    quantities: ClassVar = {"latency_ms": "ms"}
    weight_bits = (2, 4, 6, 8)
    name: str = "npu"

    def costs(self, layers, weight_bits, act_bits):
        return {"latency_ms": self.batch * layers.macs * np.maximum(weight_bits, act_bits) / 1e6}


@dataclass(frozen=True, kw_only=True)
class Board(HardwareModel):
    """Answers with the size of the file it was given."""

    quantities: ClassVar = {"size_bytes": "bytes"}
    needs_file = True
    name: str = "board"

    def report(self, graph, policy, *, onnx=None):
        total = {"size_bytes": onnx().stat().st_size}
        return CostReport("board", self.batch, self.quantities, total, ())


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A complete made-up run on disk."""
    path = Path(__file__).parents[1] / "report" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("bitscout_test_synthetic", path)
    synthetic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synthetic)
    directory = tmp_path_factory.mktemp("runs") / "done"
    return synthetic.write_run(synthetic.make_result(directory, n_trials=24, seed=4))


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """A module of networks in the current directory, importable under a name of its own."""
    (tmp_path / "bitscout_test_maker.py").write_text(MAKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "bitscout_test_maker"


def bits_of(report):
    return {(layer.weight_bits, layer.act_bits) for layer in report.layers}


# --- sources


def test_a_built_in_network_costs_what_the_model_says_of_its_layers():
    graph = reference_network("resnet20")
    policy = QuantPolicy.uniform(graph.names, 4, 6)
    found = cost("resnet20", Npu(), bits=(4, 6))
    assert found.reports == (Npu().report(graph, policy),)
    assert found.reports[0].total["latency_ms"] == pytest.approx(graph.macs * 6 / 1e6, rel=1e-12)


def test_a_built_in_network_takes_another_input():
    large, small = cost("resnet20", Npu()), cost("resnet20", Npu(), input_shape="3x16x16")
    ratios = [
        a.macs / b.macs
        for a, b in zip(large.reports[0].layers, small.reports[0].layers, strict=True)
    ]
    assert set(ratios[:-1]) == {4.0}
    assert ratios[-1] == 1.0  # The classifier sees one pixel either way.


def test_a_preset_is_the_seed_network_of_its_space_at_its_own_bits():
    space = build_space(load_config("quickstart"), (1, 8, 8), 10)
    values = space.seed_values()
    (report,) = cost("quickstart", "size").reports
    assert report.total["size_bytes"] * 8 == space.size_bits([space.encode(values)])[0]
    policy = {layer.name: [layer.weight_bits, layer.act_bits] for layer in report.layers}
    assert policy == space.policy(values).to_json()


@pytest.mark.parametrize(
    "settings",
    [["space.bits=[2,3]"], ("space.bits=[2,3]",), {"space.bits": [2, 3]}, {"space.bits": (2, 3)}],
)
def test_settings_change_the_configuration(settings):
    (report,) = cost("quickstart", "size", settings=settings).reports
    assert bits_of(report) <= {(2, 8), (3, 8)}


@pytest.mark.parametrize(
    "value", [5, 1e-7, True, None, "a: b", "ünï 😀", "1e3", [1, {"k": None}], Path("a/b")]
)
def test_a_setting_means_the_same_as_a_value_and_as_text(value):
    (text,) = read_settings({"data.key": value})
    document = {}
    apply_setting(document, text)
    assert document == {"data": {"key": str(value) if isinstance(value, Path) else value}}


def test_a_module_costs_what_its_import_path_costs_and_stays_as_it_was(maker):
    module = importlib.import_module(maker).make().train()
    found = cost(module, Npu(), input_shape=(3, 6, 5), bits=4)
    expected = cost(f"{maker}:make", Npu(), input_shape=(3, 6, 5), bits=4)
    assert found.reports == expected.reports
    assert found.network == "Sequential"
    assert module.training
    assert cost(module, Board(), input_shape="3x6x5").reports[0].total["size_bytes"] > 100


def test_a_built_in_network_takes_options():
    graph = reference_network("mobilenet_v1", width=0.25)
    (report,) = cost("mobilenet_v1:width=0.25", Npu()).reports
    assert [layer.macs for layer in report.layers] == [layer.macs for layer in graph]
    assert cost("mobilenet_v1:width=0.25", Npu(), input_shape="3x64x64").network == (
        "mobilenet_v1:width=0.25 on 3x64x64"
    )


@pytest.mark.parametrize("attribute", ["make", "ready", "Nested.make"])
def test_an_import_path_may_be_a_function_a_module_or_an_attribute_of_a_class(maker, attribute):
    (report,) = cost(f"{maker}:{attribute}", Npu(), input_shape=(3, 6, 5)).reports
    assert [layer.macs for layer in report.layers] == [4 * 3 * 9 * 30, 20]


def test_the_best_candidate_of_a_run_has_its_own_policy(run_directory):
    result = bitscout.load_result(run_directory)
    best = result.best_final
    assert best.number != result.best.number
    (report,) = cost(run_directory, "size").reports
    assert report.total["size_bytes"] == best.metrics.size_bytes
    for number in (0, result.trials[-1].number):  # any trial, trained in full or not
        (report,) = cost(run_directory, "size", candidate=number).reports
        assert report.total["size_bytes"] == result.trials[number].metrics.size_bytes


def test_a_baseline_is_named(run_directory):
    result = bitscout.load_result(run_directory)
    baseline = result.baselines[0]
    found = cost(run_directory, "size", candidate=baseline.name)
    assert found.reports[0].total["size_bytes"] == baseline.metrics.size_bytes
    assert baseline.label in found.network


# --- bits, batch, hardware


@pytest.mark.parametrize(
    ("bits", "pair"),
    [(6, (6, 6)), ("6", (6, 6)), ("6/4", (6, 4)), ((6, 4), (6, 4)), (None, (8, 8))],
)
def test_bits_are_given_in_several_ways_and_default_to_eight(bits, pair):
    found = cost("resnet20", Npu(), bits=bits)
    assert bits_of(found.reports[0]) == {pair}
    assert ("default" in found.bits) == (bits is None)


def test_a_policy_is_a_mapping_or_a_file(tmp_path):
    names = reference_network("resnet20").names
    policy = {name: [2 + 2 * (i % 4), 3 + i % 5] for i, name in enumerate(names)}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    for bits in (policy, QuantPolicy.from_json(policy), str(tmp_path / "policy.json")):
        (report,) = cost("resnet20", Npu(), bits=bits).reports
        found = {layer.name: [layer.weight_bits, layer.act_bits] for layer in report.layers}
        assert found == policy


def test_bits_replace_those_of_a_configuration():
    (report,) = cost("quickstart", "size", bits="2/3").reports
    assert bits_of(report) == {(2, 3)}


def test_a_batch_goes_to_all_hardware():
    found = cost("resnet20", [Npu(), "bitfusion"], batch=4)
    assert [report.batch for report in found.reports] == [4, 4]
    one = cost("resnet20", Npu()).reports[0].total["latency_ms"]
    assert found.reports[0].total["latency_ms"] == 4 * one


def test_without_hardware_there_are_size_and_memory():
    hardware = [report.hardware for report in cost("resnet20").reports]
    assert hardware == ["size", "mcu"]


def test_one_report_is_flat_and_several_are_also_listed():
    single = cost("resnet20", Npu()).to_json()
    assert set(single) >= {"hardware", "batch", "total", "layers"}
    assert set(single["layers"][0]) >= {
        "name", "macs", "weight_bits", "act_bits", "latency_ms",
    }  # fmt: skip
    assert "reports" not in single
    several = cost("resnet20", [Npu(), "size"]).to_json()
    assert [entry["hardware"] for entry in several["reports"]] == ["npu", "size"]
    assert {key: several[key] for key in several["reports"][0]} == several["reports"][0]
    json.dumps(several, allow_nan=False)


# --- files


def test_hardware_that_needs_a_file_gets_one(maker):
    found = cost(f"{maker}:make", Board(), input_shape=(3, 6, 5), bits="4/8")
    assert found.reports[0].total["size_bytes"] > 100
    assert cost("quickstart", Board()).reports[0].total["size_bytes"] > 100


def test_the_same_network_gives_the_same_file_and_leaves_the_module_alone(tmp_path):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    module.append(nn.Linear(4 * 36, 3)).train()
    policy = QuantPolicy.uniform(["0", "4"], 4)
    first = onnx_writer(module, policy, (1, 8, 8))
    before = torch.random.get_rng_state()
    content = first().read_bytes()
    assert onnx_writer(module, policy, (1, 8, 8))().read_bytes() == content
    assert onnx_writer(module, QuantPolicy.uniform(["0", "4"], 3), (1, 8, 8))().read_bytes() != (
        content
    )
    assert module.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_file_goes_with_its_writer():
    space = build_space(load_config("quickstart"), (1, 8, 8), 10)
    values = space.seed_values()
    writer = onnx_writer(space.architecture(values), space.policy(values), (1, 8, 8))
    path = writer()
    assert writer() == path
    assert path.is_file()
    del writer
    assert not path.parent.exists()


def test_a_table_of_layers_cannot_be_measured():
    with pytest.raises(UnsupportedError, match="resnet20 is a table of layers"):
        cost("resnet20", Board())


# --- bad input


@pytest.mark.parametrize(
    ("source", "options", "parts"),
    [
        ("mobilenet-v2", {}, ["'mobilenet-v2'", "Did you mean 'mobilenet_v2'?", "quickstart"]),
        ("quikstart", {}, ["Did you mean 'quickstart'?"]),
        ("", {}, ["network, preset or run ''"]),
        ("nowhere/run", {}, ["'nowhere/run'"]),
        ("resnet20", {"bits": 9}, ["`bits` (--bits)", "2 to 8", "9"]),
        ("resnet20", {"bits": "8/8/8"}, ["`bits` (--bits)", "'8/8/8'"]),
        ("resnet20", {"bits": "8/"}, ["`bits` (--bits)", "'8/'"]),
        ("resnet20", {"bits": 6.5}, ["`bits` (--bits)", "6.5"]),
        ("resnet20", {"bits": "none.json"}, ["none.json", "No such file"]),
        ("resnet20", {"input_shape": "3x32"}, ["`input_shape` (--input)", "CxHxW", "'3x32'"]),
        ("resnet20", {"input_shape": "3x0x32"}, ["`input_shape` (--input)", "'3x0x32'"]),
        ("resnet20", {"input_shape": (784,)}, ["`input_shape` (--input)", "CxHxW", "784"]),
        ("resnet20", {"candidate": 3}, ["`candidate` (--candidate) belongs to a run", "built-in"]),
        ("resnet20", {"settings": ["a=1"]}, ["`settings` (--set) belongs to a preset"]),
        (
            "quickstart",
            {"input_shape": (3, 8, 8)},
            ["`input_shape` (--input) belongs to an import path"],
        ),
        ("resnet20", {"batch": 0}, ["`batch` (--batch)", "at least 1, got 0."]),
        ("resnet20", {"batch": 1.5}, ["a whole number, at least 1, got 1.5."]),
        ("resnet20", {"batch": True}, ["got True."]),
        ("a" * 300, {}, ["There is no network, preset or run 'aaa"]),
        ("quickstart", {"settings": "a=1"}, ["`settings` (--set)", "a mapping", "got 'a=1'"]),
        ("quickstart", {"settings": ["a"]}, ["`settings` (--set)", "got ['a']"]),
        ("quickstart", {"settings": 5}, ["`settings` (--set)", "got 5"]),
        ("quickstart", {"settings": {"space.bit": 5}}, ["`space.bit` is not a key"]),
        ("resnet20", {"settings": {"a": 1}}, ["`settings` (--set) belongs to a preset"]),
        (None, {}, ["`source` must be", "torch.nn.Module, got None."]),
        (["resnet20"], {}, ["got ['resnet20']."]),
        (nn.ReLU, {}, ["got <class 'torch.nn", "Pass a module, not its class."]),
        (nn.ReLU(), {}, ["`input_shape` (--input) is needed for ReLU"]),
        (nn.ReLU(), {"candidate": 1}, ["`candidate` (--candidate) belongs to a run", "a module"]),
        (nn.Linear(3, 4), {"input_shape": (5,)}, ["does not run on an input", "5"]),
        ("resnet18:width=2", {}, ["no option 'width'"]),
    ],
)
def test_what_is_not_understood_is_named(source, options, parts):
    with pytest.raises((ConfigError, UnsupportedError)) as caught:
        cost(source, Npu(), **options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "parts"),
    [
        ("mke", ["no 'mke'", "Did you mean 'make'?"]),
        ("broken", ["broken() failed", "ValueError: no weights here"]),
        ("number", ["must make a torch.nn.Module", "int"]),
        ("Odd", ["does not run on an input of 3x6x5", "in the Odd (", "KeyError"]),
    ],
)
def test_what_goes_wrong_in_foreign_code_is_told_in_one_message(maker, attribute, parts):
    with pytest.raises((ConfigError, UnsupportedError)) as caught:
        cost(f"{maker}:{attribute}", Npu(), input_shape=(3, 6, 5))
    for part in parts:
        assert part in str(caught.value)


def test_an_import_path_needs_a_shape_and_a_module_that_exists(maker):
    with pytest.raises(
        ConfigError, match=rf"`input_shape` \(--input\) is needed for {maker}:make"
    ):
        cost(f"{maker}:make", Npu())
    with pytest.raises(ConfigError, match=r"'no_such_module_here' of .* cannot be imported"):
        cost("no_such_module_here:make", Npu(), input_shape=(3, 8, 8))


def test_a_candidate_that_is_not_there_is_told_with_those_that_are(run_directory):
    with pytest.raises(
        bitscout.errors.RunError, match=r"no candidate '99'.*trials 0 to 23, .*seed-8"
    ):
        cost(run_directory, Npu(), candidate=99)


def test_a_policy_must_cover_the_network_and_be_one(tmp_path):
    with pytest.raises(PolicyError, match="not in the network: other"):
        cost("resnet20", Npu(), bits={"other": [4, 4]})
    for text, part in (
        ('{"a": [4, 9]}', "policy.json: Policy of layer 'a': `act_bits` must be in .*, got 9"),
        ("[4]", "must map each layer"),
        ("{", "is not JSON"),
    ):
        (tmp_path / "policy.json").write_text(text)
        with pytest.raises(bitscout.errors.BitscoutError, match=part):
            cost("resnet20", Npu(), bits=str(tmp_path / "policy.json"))


def test_bits_without_a_rule_are_refused_by_the_model():
    with pytest.raises(UnsupportedError, match="'npu' has no rule for 5-bit weights"):
        cost("resnet20", Npu(), bits="5/8")


def test_a_configuration_brings_its_own_hardware(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("hardware: [bitfusion:batch=4, mcu]\n")
    reports = cost(path).reports
    assert [report.hardware for report in reports] == ["bitfusion:batch=4", "mcu"]
    assert [report.hardware for report in cost(path, "size").reports] == ["size"]
    assert [report.batch for report in cost(path, batch=2).reports] == [2, 2]


def test_no_bits_at_all_are_refused():
    with pytest.raises(ConfigError, match=r"must be W or W/A"):
        cost("resnet20", bits=())


@pytest.mark.parametrize(
    "hardware",
    [["mcu", "size", "mcu"], ["mcu", {"name": "mcu"}], [Npu(), Npu()], ["mcu", "mcu:batch=1"]],
)
def test_the_same_hardware_twice_is_refused(hardware):
    with pytest.raises(ConfigError, match=r"`hardware` \(--hardware\) has (mcu|npu) twice"):
        cost("resnet20", hardware)


@pytest.mark.parametrize("hardware", [5, [5], [["mcu"]]])
def test_what_is_no_hardware_is_refused(hardware):
    with pytest.raises(ConfigError, match="by its name or as a mapping"):
        cost("resnet20", hardware)


def test_a_plan_has_reports_in_spite_of_hardware_without_a_rule():
    plan = plan_cost("resnet20", [Npu(), "size"], bits="5/8")
    with pytest.raises(UnsupportedError, match="5-bit weights"):
        plan.report(plan.models[0])
    with pytest.raises(UnsupportedError, match="5-bit weights"):
        plan.carry_out()
    (expected,) = cost("resnet20", "size", bits="5/8").reports
    assert plan.report(plan.models[1]) == expected
