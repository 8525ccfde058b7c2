"""ONNX files against the integer reference, ONNX's own evaluator, and ONNX Runtime's fusions."""

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from tests.export.graphs import (
    GraphBuilder,
    relu_net,
    residual_net,
    tiny_net,
    widened_net,
    windows_of,
)
from tests.export.random_graphs import random_net

from bitscout.errors import ExportError, UnsupportedError
from bitscout.export.checks.ort import LEVELS, run_onnx
from bitscout.export.graph import Grid, Input, IntegerGraph
from bitscout.export.onnx_qdq import onnx_model, onnx_payload, write_onnx
from bitscout.export.reference import Reference
from bitscout.export.windows import Windows
from bitscout.quantization.packing import packed_size

STORAGES = ("int8", "packed", "int4")


def differences(b, graph, path, storage="int8", n=16):
    """How many integers differ at each of ONNX Runtime's levels."""
    images = b.images(n)
    write_onnx(graph, path, storage)
    expected = graph.scores(Reference(graph).run(images))
    return [int((run_onnx(path, images, level)[0] != expected).sum()) for level in LEVELS]


def fused(graph, folder, storage="int8"):
    """Kinds of nodes of the optimised graph."""
    write_onnx(graph, folder / "net.onnx", storage)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folder / "net.onnx", options)
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("make", [tiny_net, residual_net, widened_net])
def test_power_of_two_networks_are_exact_at_every_level(make, storage, tmp_path):
    b, graph = make(1, power_of_two=True)

    assert differences(b, graph, tmp_path / "net.onnx", storage, n=200) == [0, 0, 0, 0]


@pytest.mark.parametrize("zero_point", [1, -2])
def test_ties_are_broken_alike_whatever_the_zero_point(zero_point, tmp_path):
    b, graph = residual_net(2, power_of_two=True, zero_point=zero_point)

    assert differences(b, graph, tmp_path / "net.onnx", n=200) == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(24))
def test_random_power_of_two_networks_are_exact_at_every_level(seed, tmp_path):
    b, graph = power_of_two_net(seed)

    storage = STORAGES[seed % 3]
    assert differences(b, graph, tmp_path / "net.onnx", storage) == [0, 0, 0, 0]


def power_of_two_net(seed):
    """The first random network from this seed on whose steps are powers of two."""
    seeds = range(100 * seed, 100 * seed + 100)
    return next((b, graph) for b, graph in map(random_net, seeds) if b.power_of_two)


@pytest.mark.parametrize("make", [tiny_net, residual_net, relu_net])
def test_float_steps_differ_on_few_outputs_and_by_little(make, tmp_path):
    b, graph = make(3)
    images = b.images(300)
    write_onnx(graph, tmp_path / "net.onnx")
    expected = graph.scores(Reference(graph).run(images))

    for level in LEVELS:
        outputs, _ = run_onnx(tmp_path / "net.onnx", images, level)
        # float32 holds the scores to 6e-8 of the largest partial sum.
        is_other = np.abs(outputs - expected) > 1e-5 * np.abs(expected).max()
        assert is_other.mean() < 1e-3
        assert (outputs.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("make", [tiny_net, residual_net])
def test_onnx_evaluator_computes_the_same(make, storage):
    b, graph = make(4, power_of_two=True)
    images = b.images(3)
    model = onnx_model(graph, storage)
    # It has no DequantizeLinear of opset 13; what is used here means the same in 21.
    model.opset_import[0].version, model.ir_version = 21, 10

    (outputs,) = ReferenceEvaluator(model).run(None, {"input": images})

    assert (outputs == graph.scores(Reference(graph).run(images))).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_files_keep_to_their_opset_and_pass_the_full_checker(storage):
    for seed in range(4):
        _, graph = random_net(seed)
        model = onnx_model(graph, storage)
        version = (model.opset_import[0].version, model.ir_version)

        assert version == ((21, 10) if storage == "int4" else (13, 8))
        assert len(model.opset_import) == 1
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        shape = inferred.graph.output[0].type.tensor_type.shape.dim
        assert (shape[0].dim_param, shape[1].dim_value) == ("batch", graph[graph.output].shape[0])


@pytest.mark.parametrize("storage", ["int8", "packed"])
def test_every_layer_stays_fused(storage, tmp_path):
    _, graph = tiny_net(0, one_step=False)
    kinds = fused(graph, tmp_path, storage)

    assert kinds["QLinearConv"] == 5
    assert kinds["QLinearGlobalAveragePool"] == kinds["QGemm"] == 1
    assert not kinds.keys() & {"Conv", "Gemm", "GlobalAveragePool", "Cast", "Mod", "MatMul"}


def test_additions_and_convolutions_with_one_reader_stay_fused(tmp_path):
    b = GraphBuilder(0)
    x = b.rescale(b.conv(b.input((3, 8, 8), signed=True), 8))
    for signed in (True, False):
        y = b.rescale(b.conv(x, 8, bits=5), signed=True)
        x = b.rescale(x, y, signed=signed)
    pooled = b.sum_pool(x, windows_of((8, 8), 2))
    x = b.rescale(pooled, divisor=4)
    kinds = fused(b.build(b.linear(b.flatten(x), 5), one_step=False), tmp_path)

    assert kinds["QLinearConv"] == 3
    assert kinds["QLinearAdd"] == 2
    assert kinds["QLinearAveragePool"] == 1


def test_codes_that_are_rescaled_are_rounded_twice(tmp_path):
    b = GraphBuilder(0, power_of_two=True)
    x = b.input((2, 4, 4))
    scale = b.ops[x].grid.scale
    once = b.to_grid([x], Grid(scale * 8, 8, 0, 255))
    twice = b.to_grid([once], Grid(scale * 32, 8, 0, 255))
    graph = b.build(b.linear(b.flatten(twice), 3), one_step=False)

    assert differences(b, graph, tmp_path / "net.onnx", n=100) == [0, 0, 0, 0]


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("zero_point", [0, 1])
@pytest.mark.parametrize("size", [(2, 2), (3, 3), (7, 1)])
def test_ties_of_averages_are_exact(size, zero_point, ratio, tmp_path):
    b = GraphBuilder(0, power_of_two=True)
    for kernel in (None, min(size)):
        x = b.input((4, *size) if kernel is None else (4, 8, 8), name=f"image{kernel}")
        windows = windows_of(b.ops[x].shape[1:], kernel, 1)
        pooled = b.sum_pool(x, windows)
        grid = b.grid(b.ops[x].grid.scale / ratio, 8, signed=True, zero_point=zero_point)
        graph = b.build(b.to_grid([pooled], grid, windows.counts[0, 0]), one_step=False)

        assert differences(b, graph, tmp_path / "net.onnx", n=100) == [0, 0, 0, 0]
        b.ops.clear()


def test_pools_of_irregular_windows_and_of_sums_are_exact(tmp_path):
    b = GraphBuilder(0, power_of_two=True)
    x = b.input((3, 7, 5), signed=True, zero_point=3)
    windows = Windows(((0, 3), (2, 5), (4, 7)), ((0, 3), (2, 5)), (7, 5))
    uneven = Windows(((0, 2), (1, 7)), ((0, 1), (1, 3), (0, 5)), (7, 5))
    sums = b.conv(x, 4, 3)
    parts = [
        b.rescale(b.sum_pool(x, uneven), divisor=uneven.counts, signed=True),
        b.rescale(b.max_pool(sums, uneven), signed=True),
        b.rescale(b.max_pool(x, uneven), signed=True),
        b.rescale(b.sum_pool(x, windows), signed=True),
    ]
    last = [b.linear(b.flatten(part), 4, bits=5) for part in parts]
    graph = b.build(b.concat(*last), one_step=False)

    assert differences(b, graph, tmp_path / "net.onnx", n=50) == [0, 0, 0, 0]


def test_an_input_on_two_grids_and_codes_as_output(tmp_path):
    b = GraphBuilder(0, power_of_two=True)
    left = b.input((2, 5, 5), bits=8)
    right = b.input((2, 5, 5), bits=4, name="coarse")
    x = b.rescale(b.conv(left, 3), b.conv(right, 3), bits=5, signed=True, zero_point=-2)
    graph = b.build(b.relu(x), one_step=False)

    assert differences(b, graph, tmp_path / "net.onnx", n=50) == [0, 0, 0, 0]


def test_files_are_the_same_every_time_and_leave_nothing_else(tmp_path):
    _, graph = tiny_net()
    for name in ("a.onnx", "b.onnx"):
        write_onnx(graph, tmp_path / name, "packed")

    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    with pytest.raises(ExportError, match="Cannot write"):
        write_onnx(graph, tmp_path / "nowhere" / "c.onnx")
    # A folder cannot be replaced by a file.
    (tmp_path / "c.onnx").mkdir()
    with pytest.raises(ExportError, match="Cannot write"):
        write_onnx(graph, tmp_path / "c.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "c.onnx"]


@pytest.mark.parametrize("storage", STORAGES)
def test_payload_is_what_the_storage_promises(storage, tmp_path):
    _, graph = tiny_net()
    path = tmp_path / "net.onnx"
    write_onnx(graph, path, storage)
    payload = onnx_payload(path)

    widths = {
        "int8": lambda layer: 8,
        "packed": lambda layer: layer.weight_bits,
        "int4": lambda layer: 4 if layer.weight_bits <= 4 else 8,
    }
    expected = sum(packed_size(x.weight.size, widths[storage](x)) for x in graph.layers)
    assert payload.weight_bytes == expected
    assert 8 * payload.bias_bytes == graph.bias_bits
    assert payload.file_bytes == path.stat().st_size
    if storage == "packed":
        # Every layer's weights fill whole bytes here.
        assert 8 * payload.weight_bytes == graph.weight_bits


@pytest.mark.parametrize("storage", STORAGES)
def test_no_weight_is_there_as_a_real_number(storage):
    _, graph = residual_net()
    floats = [
        tensor
        for tensor in onnx_model(graph, storage).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    ]

    # Steps and divisors: a vector for each layer, nothing that is larger than a feature map.
    assert all(len(tensor.dims) <= 2 for tensor in floats)
    assert max(np.prod(tensor.dims) for tensor in floats) <= 36


def test_the_file_says_what_it_is():
    _, graph = tiny_net(one_step=False)
    model = onnx_model(graph, "packed")
    said = {entry.key: entry.value for entry in model.metadata_props}

    bits = [layer["weight_bits"] for layer in json.loads(said["bitscout.layers"]).values()]
    assert bits == [8, 6, 5, 4, 3, 2]
    assert said["bitscout.storage"] == "packed"
    assert said["bitscout.producer"].startswith("bitscout ")
    assert "half_even" in said["bitscout.contract"]
    assert "normalised by the caller" in said["bitscout.input"]
    assert "int32 sums" in said["bitscout.output"]
    owners = {node.name.split("/")[0] for node in model.graph.node}
    assert owners == {op.name for op in graph}


def test_bad_files_and_steps_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x00 not an onnx file")
    with pytest.raises(ExportError, match=r"Cannot read .*Export it again"):
        onnx_payload(path)
    with pytest.raises(ExportError, match="Cannot read"):
        onnx_payload(tmp_path / "absent.onnx")
    model = onnx_model(tiny_net()[1])
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ExportError, match="Expected an ONNX file that `write_onnx` wrote"):
        onnx_payload(path)
    image = Input("image", (1, 2, 2), Grid(np.array(1e-42), 8, 0, 255))
    with pytest.raises(UnsupportedError, match=r"steps of 'image'.* float32"):
        onnx_model(IntegerGraph((image,), "image"))
