"""The interface: what a model says about itself, what it refuses, what its answers must be."""

import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from tests.hardware.toys import Npu

from bitscout.core import Layer, LayerArrays, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.hardware import HardwareModel, LayerModel, layer_kinds, signature, tunable
from bitscout.hardware.model import Origin

CONV = Layer("conv", "conv", 4, 8, kernel=(3, 3), output_size=(2, 2))
DEPTHWISE = Layer("dw", "conv", 8, 8, groups=8)
GROUPED = Layer("grouped", "conv", 8, 8, groups=2)
FC = Layer("fc", "linear", 8, 10)
GRAPH = LayerGraph((CONV, FC))
NPU = Npu(name="npu", rows=10, energy_nj=0.5)


def layer_model(answer, **attributes):
    """A model with one quantity, `cycles`, that answers `answer`."""

    class Answering(LayerModel):
        quantities: ClassVar = {"cycles": "cycles"}

        def costs(self, layers, weight_bits, act_bits):
            return answer

    for name, value in attributes.items():
        setattr(Answering, name, value)
    return Answering(name="answering")


# --- reports


def test_a_report_by_hand():
    report = NPU.report(GRAPH, QuantPolicy.uniform(GRAPH.names, 2, 4))
    # conv: 288 weights, 1152 MACs, reads the input; fc: 80 weights and MACs.
    conv = {"cycles": 231 + 14, "energy_mj": math.sqrt(2304 + 4 + 8) * 0.5 / 1e6}
    fc = {"cycles": 17 + 7, "energy_mj": math.sqrt(160 + 4 + 10) * 0.5 / 1e6}
    assert [layer.costs for layer in report.layers] == [conv, fc]
    assert report.total == {
        "cycles": 269,
        "energy_mj": pytest.approx(conv["energy_mj"] + fc["energy_mj"], rel=1e-15),
    }
    assert isinstance(report.total["cycles"], int)
    assert [layer.kind for layer in report.layers] == ["conv", "linear"]
    assert (report.hardware, report.batch) == ("npu:rows=10,energy_nj=0.5", 1)


def test_a_report_is_a_document_with_every_quantity_of_every_layer():
    document = NPU.report(GRAPH, QuantPolicy.uniform(GRAPH.names, 2, 4)).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["units"] == {"cycles": "cycles", "energy_mj": "mJ"}
    assert {
        "name": "fc",
        "kind": "linear",
        "macs": 80,
        "weight_bits": 2,
        "act_bits": 4,
    }.items() <= (document["layers"][1].items())
    assert document["layers"][1]["cycles"] == 24


def test_a_report_checks_the_policy_and_the_bits():
    with pytest.raises(PolicyError, match="left out: fc"):
        NPU.report(GRAPH, QuantPolicy.uniform(["conv"], 4))
    with pytest.raises(UnsupportedError, match="no rule for 5-bit weights, as layer 'conv' has"):
        NPU.report(GRAPH, QuantPolicy.uniform(GRAPH.names, 5))


# --- check


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (([4, 3], [8, 8]), r"no rule for 3-bit weights, as layer 'fc' .* supports 2, 4, 8 bits"),
        (([4, 4], [8, 6]), r"no rule for 6-bit activations, as layer 'fc' .* 4, 8, 16 bits"),
        ((5, 8), "no rule for 5-bit weights, as layer 'conv'"),
    ],
)
def test_bits_without_a_rule_are_refused_by_the_layers_name(bits, message):
    with pytest.raises(UnsupportedError, match=message):
        NPU.check(GRAPH.names, LayerArrays.of(GRAPH), bits)


def test_a_run_of_bits_is_said_as_a_run():
    with pytest.raises(UnsupportedError, match=r"it supports 2 to 8 bits\. Choose other bits"):
        layer_model({}).check(["fc"], LayerArrays.of([FC]), (9, 8))


@pytest.mark.parametrize("layer", [CONV, DEPTHWISE, GROUPED, FC], ids=lambda layer: layer.name)
def test_kinds_without_a_rule_are_refused_by_the_layers_name(layer):
    kind = str(layer_kinds(LayerArrays.of([layer]))[0])
    others = [name for name in ("conv", "depthwise", "grouped", "linear") if name != kind]
    layer_model({}, kinds=[kind]).check([layer.name], LayerArrays.of([layer]), (8, 8))
    with pytest.raises(UnsupportedError, match=f"{layer.name!r}, which is {kind}; it supports "):
        layer_model({}, kinds=others).check([layer.name], LayerArrays.of([layer]), (8, 8))


def test_kinds():
    layers = [CONV, DEPTHWISE, GROUPED, FC, replace(CONV, in_channels=1)]
    assert layer_kinds(LayerArrays.of(layers)).tolist() == [
        "conv",
        "depthwise",
        "grouped",
        "linear",
        "conv",
    ]


@pytest.mark.parametrize("dilation", [(2, 1), (1, 2)])
def test_dilated_kernels_are_refused_unless_there_is_a_rule(dilation):
    layers = LayerArrays.of([FC, replace(CONV, dilation=dilation)])
    with pytest.raises(UnsupportedError, match="dilated kernel of layer 'conv'"):
        layer_model({}).check(["fc", "conv"], layers, (8, 8))
    layer_model({}, is_dilation_supported=True).check(["fc", "conv"], layers, (8, 8))


def test_no_layers_are_supported_by_everybody():
    layer_model({}, kinds=[]).check([], LayerArrays.of([]), (99, 99))


def test_a_batch_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="`batch` of hardware 'npu' must be at least 1, got 0"):
        replace(NPU, batch=0)


# --- what a model may answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "announces `cycles` but `costs` returned only nothing"),
        ({"cylces": [1, 2]}, "announces `cycles` but `costs` returned only cylces"),
        ({"cycles": [1]}, r"`cycles` must have shape \(2,\), one value a layer, got \(1,\)"),
        ({"cycles": 5}, r"must have shape \(2,\), .* got \(\)"),
        ({"cycles": [[1, 2]]}, r"must have shape \(2,\), .* got \(1, 2\)"),
        ({"cycles": [1.0, math.nan]}, "must be finite and >= 0 for every layer, got nan"),
        ({"cycles": [math.inf, 1.0]}, "must be finite and >= 0 for every layer, got inf"),
        ({"cycles": [3, -2]}, "must be finite and >= 0 for every layer, got -2"),
        ({"cycles": ["1", "2"]}, "must be integers or floats, got <U1"),
        ({"cycles": [None, 2]}, "must be integers or floats, got object"),
        ({"cycles": [True, False]}, "must be integers or floats, got bool"),
        ({"cycles": [1j, 2]}, "must be integers or floats, got complex128"),
    ],
)
def test_an_answer_that_cannot_be_a_cost_is_refused(answer, message):
    with pytest.raises(ConfigError, match=f"Hardware 'answering'.*{message}"):
        layer_model(answer).report(GRAPH, QuantPolicy.uniform(GRAPH.names, 4))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([1, 2], dtype=np.uint8), np.int64),
        (np.array([1, 2], dtype=np.float32), np.float64),
        ([1, 2], np.int64),
        ([1, 2.0], np.float64),
    ],
)
def test_answers_are_summed_as_wide_numbers(values, dtype):
    model = layer_model({"cycles": values, "not announced": "x"})
    bits = np.array([4, 4])
    costs = model.checked_costs(LayerArrays.of(GRAPH), bits, bits)
    assert list(costs) == ["cycles"]
    assert costs["cycles"].dtype == dtype
    assert model.report(GRAPH, QuantPolicy.uniform(GRAPH.names, 4)).total == {"cycles": 3}


# --- identity


def test_two_models_of_equal_constants_are_equal_wherever_they_came_from():
    other = replace(NPU, origin=Origin({"rows": 10}, ("a note",)))
    assert other == NPU
    assert hash(other) == hash(NPU)
    assert other.notes == ("a note",)


def test_the_spec_says_what_differs_from_the_target():
    assert NPU.spec == "npu:rows=10,energy_nj=0.5"
    target = Origin({"rows": 10, "overhead": 3})
    assert replace(NPU, origin=target).spec == "npu:energy_nj=0.5,overhead=7"
    assert replace(NPU, origin=target, overhead=3, batch=2).spec == "npu:batch=2,energy_nj=0.5"
    assert layer_model({}).spec == "answering"


def test_the_signature_follows_constants_and_options_but_neither_name_nor_origin():
    assert len(NPU.signature) == 16
    assert replace(NPU, name="other", origin=Origin({}, ("note",))).signature == NPU.signature
    changes = [{"rows": 11}, {"energy_nj": 0.6}, {"overhead": 8}, {"batch": 2}, {"largest": 5}]
    signatures = {replace(NPU, **change).signature for change in changes}
    assert len(signatures | {NPU.signature}) == 6


@dataclass(frozen=True, kw_only=True)
class Same(Npu):
    pass


def test_the_signature_follows_the_class_and_its_source(monkeypatch):
    values = NPU.values()
    assert Same(**values).signature != NPU.signature
    before = NPU.signature
    monkeypatch.setattr(signature, "_source_digest", lambda model: "edited")
    assert NPU.signature != before


def test_the_source_of_a_users_module_counts(tmp_path, monkeypatch):
    source = (
        "from dataclasses import dataclass\n"
        "from bitscout.hardware import LayerModel\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Own(LayerModel):\n"
        "    quantities = {}\n"
        "    def costs(self, layers, weight_bits, act_bits):\n"
        "        return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_npu_one.py").write_text(source)
    (tmp_path / "own_npu_two.py").write_text(source)
    (tmp_path / "own_npu_three.py").write_text(f"{source}# edited\n")
    import own_npu_one
    import own_npu_three
    import own_npu_two

    assert own_npu_one.Own().signature == own_npu_two.Own().signature
    assert own_npu_one.Own().signature != own_npu_three.Own().signature


def test_a_class_without_source_has_a_signature():
    space = {"__name__": "__main__", "LayerModel": LayerModel}
    exec("class Typed(LayerModel):\n    quantities = {}\n    costs = None", space)
    assert len(space["Typed"]().signature) == 16


def test_values_are_constants_and_options_alone():
    assert NPU.values() == {
        "batch": 1,
        "rows": 10,
        "energy_nj": 0.5,
        "overhead": 7,
        "largest": None,
    }


def test_a_model_states_its_quantities():
    with pytest.raises(TypeError, match="quantities"):

        @dataclass(frozen=True, kw_only=True)
        class Silent(HardwareModel):
            speed: float = tunable(1.0)

            def report(self, graph, policy, *, onnx=None):
                raise NotImplementedError

        Silent()
