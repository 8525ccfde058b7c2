"""QONNX files against the integer reference, in QONNX's own executor."""

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.export.graphs import GraphBuilder, relu_net, residual_net, tiny_net, widened_net

from bitscout.errors import ExportError
from bitscout.export.checks.qonnx import check_qonnx
from bitscout.export.checks.result import CheckInputs
from bitscout.export.graph import Grid
from bitscout.export.qonnx import write_qonnx
from bitscout.export.reference import Reference
from bitscout.export.windows import Windows

pytest.importorskip("qonnx", reason="QONNX is an extra: pip install 'bitscout[deploy]'")


def checked(builder, graph, folder, n_images=100, **kwargs):
    """Write the graph, check the file, return the one result."""
    path = folder / "network.onnx"
    write_qonnx(graph, path, **kwargs)
    return check_file(builder, graph, path, n_images)


def check_file(builder, graph, path, n_images=100):
    images, reference = builder.images(n_images), Reference(graph)
    outputs = reference.run(images)
    inputs = CheckInputs(images, reference.quantize(images), outputs, path.parent)
    (result,) = check_qonnx(graph, path, inputs, n_images)
    assert result.outputs == outputs.size
    return result


def widths_net():
    """Codes of every width, in either sign, and a range cut as by a ReLU6."""
    b = GraphBuilder(7)
    x = b.input((2, 7, 7), bits=7, signed=True, zero_point=5)
    for bits in range(2, 9):
        x = b.rescale(b.conv(x, 5, 2, bits=bits, pads=(1, 0, 0, 1)), bits=bits, spread=2**bits / 4)
        x = b.rescale(b.conv(x, 5, 1, bits=8), bits=bits, signed=True, spread=2**bits / 8)
    name = b.rescale(b.conv(x, 5, 1))
    b.ops[name] = replace(b.ops[name], grid=Grid(b.ops[name].grid.scale, 8, 0, 77))
    return b, b.build(b.linear(b.flatten(name), 4))


def irregular_net():
    """Windows no pooling operator has, of codes and of sums."""
    b = GraphBuilder(8)
    x = b.rescale(b.conv(b.input((3, 7, 5)), 6), zero_point=9)
    windows = Windows(((0, 3), (2, 5), (4, 7)), ((0, 2), (1, 4), (3, 5)), (7, 5))
    left = b.rescale(b.sum_pool(x, windows), divisor=windows.counts)
    right = b.max_pool(b.conv(x, 6), windows)
    x = b.rescale(left, b.rescale(right))
    return b, b.build(b.linear(b.flatten(x), 4, bits=3))


def unscaled_net():
    """The output is a feature map of codes with a zero point."""
    b = GraphBuilder(9)
    x = b.rescale(b.conv(b.input((3, 6, 6)), 4), bits=6, zero_point=21, spread=20)
    return b, b.build(x, one_step=False)


NETS = {
    "tiny": tiny_net,
    "tiny, powers of two": lambda: tiny_net(power_of_two=True),
    "residual": residual_net,
    "residual, odd zero point": lambda: residual_net(zero_point=3),
    "residual, powers of two": lambda: residual_net(power_of_two=True, zero_point=-5),
    "functional": relu_net,
    "widths": widths_net,
    "irregular windows": irregular_net,
    "codes out": unscaled_net,
    "more channels": widened_net,
    "a step for every class": lambda: tiny_net(one_step=False),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_the_executor_computes_the_integers_of_the_reference_and_counts_the_same_bits(
    make, tmp_path
):
    builder, graph = make()
    result = checked(builder, graph, tmp_path)
    assert (result.state, result.mismatches) == ("passed", 0), result.reason
    assert result.details["weight_bits"] == graph.weight_bits


def test_no_image_of_many_is_rounded_to_the_other_side(tmp_path):
    """Some would be, with real values in float32: the reason for integers in the carrier."""
    b = GraphBuilder(11)
    x = b.rescale(b.conv(b.input((3, 24, 24)), 16))
    graph = b.build(b.rescale(b.conv(x, 16, groups=16)), one_step=False)
    result = checked(b, graph, tmp_path, n_images=220)
    assert result.outputs > 2_000_000
    assert result.mismatches == 0


@pytest.mark.parametrize("zero_point", [0, 1])
def test_exact_ties_are_met_and_go_to_the_even_code(zero_point, tmp_path):
    b = GraphBuilder(12, power_of_two=True)
    x = b.input((1, 16, 16), bits=8)
    half = Grid(b.ops[x].grid.scale * 4, 8, 0, 255, zero_point)
    graph = b.build(b.to_grid([x], half), one_step=False)
    codes = Reference(graph).quantize(b.images(100))[x]
    assert (codes % 8 == 2).sum() > 100
    assert (codes % 8 == 6).sum() > 100
    assert checked(b, graph, tmp_path).mismatches == 0


@pytest.mark.parametrize("is_pooled", [False, True])
def test_sums_beyond_24_bits_stay_exact(is_pooled, tmp_path):
    b = GraphBuilder(13)
    conv = b.conv(b.input((3, 8, 8)), 6)
    b.ops[conv] = replace(b.ops[conv], bias=b.rng.integers(-(2**25), 2**25, 6))
    scale = b.ops[conv].grid.scale.mean()
    if is_pooled:
        pooled = b.sum_pool(b.relu(b.concat(conv, conv)))
        x = b.to_grid([pooled], Grid.sums(np.asarray(scale * 2**10)))
    else:
        x = b.to_grid([conv], Grid(np.asarray(scale * 2**18), 8, -127, 127))
    graph = b.build(x, one_step=False)
    outputs = Reference(graph).run(b.images(100))
    assert (outputs.reshape(100, -1).std(axis=0) > 0).mean() > 0.3
    assert checked(b, graph, tmp_path).mismatches == 0


def test_the_count_is_that_of_the_public_function(tmp_path):
    from qonnx.util.inference_cost import inference_cost

    _, graph = tiny_net()
    write_qonnx(graph, tmp_path / "network.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cost = inference_cost(str(tmp_path / "network.onnx"), discount_sparsity=False)
    assert cost["total_cost"]["total_mem_w_bits"] == graph.weight_bits


def test_the_cleaned_up_model_computes_the_same(tmp_path):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    builder, graph = residual_net(zero_point=3)
    path = tmp_path / "network.onnx"
    write_qonnx(graph, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = cleanup_model(ModelWrapper(str(path))).model
        names = [model.graph.input[0].name, model.graph.output[0].name]
        assert len(model.graph.node) > 20
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [{names[0]: "image", names[1]: "output"}.get(end, end) for end in ends]
    model.graph.input[0].name, model.graph.output[0].name = "image", "output"
    onnx.save(model, path)
    assert check_file(builder, graph, path, n_images=20).mismatches == 0


def test_the_file_states_its_versions_and_leaves_no_attribute_to_a_default(tmp_path):
    _, graph = residual_net()
    path = tmp_path / "network.onnx"
    payload = write_qonnx(graph, path)
    model = onnx.load(path)
    assert model.ir_version == 8
    opsets = {item.domain: item.version for item in model.opset_import}
    assert opsets == {"": 13, "qonnx.custom_op.general": 1}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    wanted = {"kernel_shape", "strides", "pads", "dilations", "group"}
    assert convs
    assert all({attribute.name for attribute in node.attribute} == wanted for node in convs)
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    initializers = {item.name: item for item in model.graph.initializer}
    assert all(not initializers[node.input[3]].dims for node in quants)
    modes = {a.s for node in quants for a in node.attribute if a.name == "rounding_mode"}
    assert modes == {b"ROUND"}
    elements = sum(
        op.weight.size + (0 if op.bias is None else op.bias.size) for op in graph.layers
    )
    assert payload == 4 * elements


def test_equal_networks_make_equal_files(tmp_path):
    for name in ("a", "b"):
        write_qonnx(residual_net()[1], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_place_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ExportError, match="Cannot write"):
        write_qonnx(tiny_net()[1], tmp_path / "taken")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]
    with pytest.raises(ExportError, match="Cannot write"):
        write_qonnx(tiny_net()[1], tmp_path / "missing" / "network.onnx")


def test_a_changed_weight_and_a_changed_width_fail_the_check(tmp_path):
    builder, graph = tiny_net()
    path = tmp_path / "network.onnx"
    write_qonnx(graph, path)
    model = onnx.load(path)
    weight = next(item for item in model.graph.initializer if item.name == "conv1_weight")
    codes = numpy_helper.to_array(weight).copy()
    codes.flat[0] += 1 if codes.flat[0] < 0 else -1
    weight.CopyFrom(numpy_helper.from_array(codes, weight.name))
    onnx.save(model, path)
    result = check_file(builder, graph, path)
    assert result.state == "failed"
    assert result.mismatches > 0
    assert result.details["weight_bits"] == graph.weight_bits

    write_qonnx(graph, path)
    model = onnx.load(path)
    quant = next(node for node in model.graph.node if node.input[0] == "fc14_weight")
    eight = next(node for node in model.graph.node if node.input[0] == "conv1_weight").input[3]
    quant.input[3] = eight
    onnx.save(model, path)
    result = check_file(builder, graph, path)
    assert result.mismatches == 0
    assert result.state == "failed"
    assert result.reason == (
        f"QONNX counts {graph.weight_bits + 480 * 6} bits of weights, "
        f"the network has {graph.weight_bits}"
    )


def test_a_file_that_is_not_onnx_is_named(tmp_path):
    builder, graph = tiny_net()
    path = tmp_path / "network.onnx"
    path.write_bytes(b"\x00\xffnot a model")
    with pytest.raises(ExportError, match=r"network\.onnx' is no ONNX file"):
        check_file(builder, graph, path)
    path.unlink()
    with pytest.raises(ExportError, match="is no ONNX file"):
        check_file(builder, graph, path)


def test_without_qonnx_the_check_says_what_to_install(monkeypatch, tmp_path):
    import bitscout.export.checks.qonnx as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    _, graph = tiny_net()
    inputs = CheckInputs(np.zeros((1, 3, 16, 16), np.float32), {}, np.zeros((1, 10)), tmp_path)
    (result,) = check_qonnx(graph, tmp_path / "network.onnx", inputs)
    assert result.state == "not run"
    assert "pip install 'bitscout[deploy]'" in result.reason


def test_where_float32_is_exact_nothing_is_cast(tmp_path):
    for power_of_two, is_cast in ((True, False), (False, True)):
        write_qonnx(tiny_net(power_of_two=power_of_two)[1], tmp_path / "network.onnx")
        kinds = {node.op_type for node in onnx.load(tmp_path / "network.onnx").graph.node}
        assert ("Cast" in kinds) == is_cast
