"""What the check in ONNX Runtime answers about good, foreign and damaged files."""

import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state
from tests.export.graphs import residual_net, tiny_net

from bitscout.export.checks import ort
from bitscout.export.checks.ort import LEVELS, check_onnxruntime
from bitscout.export.checks.result import CheckInputs
from bitscout.export.onnx_qdq import write_onnx
from bitscout.export.reference import Reference


def inputs_of(b, graph, folder, n=70):
    """More images than one batch of the check."""
    reference, images = Reference(graph), b.images(n)
    return CheckInputs(images, reference.quantize(images), reference.run(images), folder)


@pytest.mark.parametrize("one_step", [True, False])
def test_integers_are_compared_where_steps_are_powers_of_two(one_step, tmp_path):
    b, graph = tiny_net(0, power_of_two=True, one_step=one_step)
    write_onnx(graph, tmp_path / "net.onnx", "packed")

    results = check_onnxruntime(graph, tmp_path / "net.onnx", inputs_of(b, graph, tmp_path))

    assert [r.setting for r in results] == [f"packed, level {level}" for level in LEVELS]
    for result in results:
        assert (result.name, result.state, result.grid) == ("ONNX Runtime", "passed", "exact")
        assert (result.outputs, result.mismatches, result.argmax_agreement) == (700, 0, 1.0)


def test_two_threads_compute_the_same(tmp_path):
    b, graph = residual_net(0, power_of_two=True)
    write_onnx(graph, tmp_path / "net.onnx")
    inputs = inputs_of(b, graph, tmp_path)

    results = check_onnxruntime(graph, tmp_path / "net.onnx", inputs, threads=2)

    assert [r.mismatches for r in results] == [0, 0, 0, 0]


@pytest.mark.parametrize("power_of_two", [True, False])
def test_another_bias_fails_at_every_level(power_of_two, tmp_path):
    b, graph = tiny_net(0, power_of_two=power_of_two, one_step=False)
    path = tmp_path / "net.onnx"
    write_onnx(graph, path)
    model = onnx.load(path)
    (bias,) = [x for x in model.graph.initializer if x.name == f"{graph.layers[-1].name}.bias"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 3000, bias.name))
    onnx.save(model, path)

    results = check_onnxruntime(graph, path, inputs_of(b, graph, tmp_path))

    assert {r.state for r in results} == {"failed"}
    assert {r.grid for r in results} == {"exact" if power_of_two else "8 bit"}
    assert all(r.mismatches > 350 for r in results)


def test_one_step_too_much_fails_where_float32_is_exact(tmp_path):
    b, graph = tiny_net(0, power_of_two=True, one_step=False)
    write_onnx(graph, tmp_path / "net.onnx")
    inputs = inputs_of(b, graph, tmp_path, n=5)
    inputs.outputs[3, 4] += 1

    results = check_onnxruntime(graph, tmp_path / "net.onnx", inputs)

    assert [(r.state, r.mismatches, r.max_lsb) for r in results] == [("failed", 1, 1)] * 4


def test_damaged_and_absent_files_fail_with_a_reason(tmp_path):
    b, graph = tiny_net()
    inputs = inputs_of(b, graph, tmp_path, n=2)
    path = tmp_path / "net.onnx"
    write_onnx(graph, path)
    path.write_bytes(path.read_bytes()[:1000])

    for broken in (path, tmp_path / "absent.onnx"):
        results = check_onnxruntime(graph, broken, inputs)

        assert [r.state for r in results] == ["failed"] * 4
        assert all("ONNXRuntimeError" in r.reason and "\n" not in r.reason for r in results)


def test_an_error_without_a_message_is_a_failure(tmp_path, monkeypatch):
    b, graph = tiny_net()

    def fail(*args):
        raise state.Fail

    monkeypatch.setattr(ort, "run_onnx", fail)
    results = check_onnxruntime(graph, tmp_path / "net.onnx", inputs_of(b, graph, tmp_path, n=2))
    assert [(r.state, r.reason) for r in results] == [("failed", "no message")] * 4
