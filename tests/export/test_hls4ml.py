"""The profile ``hls4ml``: what it refuses, what QONNX and hls4ml compute of the rest."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.export.graphs import GraphBuilder, tiny_net, windows_of
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.export.checks.hls4ml import check_hls4ml_compiled
from bitscout.export.checks.qonnx import check_qonnx
from bitscout.export.checks.result import CheckInputs
from bitscout.export.graph import Grid
from bitscout.export.hls4ml_profile import check_hls4ml
from bitscout.export.lowering import lower
from bitscout.export.qonnx import write_qonnx
from bitscout.export.reference import Reference
from bitscout.quantization import (
    Add,
    PowerOfTwoPerTensorObserver,
    QuantConfig,
    layer_names,
    post_training_quantize,
)

pytest.importorskip("qonnx", reason="QONNX is an extra: pip install 'bitscout[deploy]'")


class ProfileBuilder(GraphBuilder):
    """Powers of two, one step for all weights of a layer."""

    def __init__(self, seed):
        super().__init__(seed, power_of_two=True)

    def weights(self, shape, bits):
        weight, scales = super().weights(shape, bits)
        return weight, np.full_like(scales, scales[0])

    def cut(self, x, quant_max):
        """Codes that end at the top of a ReLU6."""
        name = self.rescale(x)
        grid = Grid(self.ops[name].grid.scale, 8, 0, quant_max)
        self.ops[name] = replace(self.ops[name], grid=grid)
        return name


def every_operation():
    """All that the profile accepts: two readers of sums, a cut range, an addition, pools."""
    b = ProfileBuilder(0)
    stem = b.conv(b.input((3, 8, 8)), 6, 3, bits=4)
    x, shortcut = b.cut(stem, 101), b.rescale(stem, signed=True)
    x = b.rescale(b.conv(x, 6, 3, groups=6, bits=3), bits=4, spread=6)
    x = b.rescale(b.conv(x, 6, 1, bits=5, bias=False), signed=True)
    x = b.max_pool(b.rescale(x, shortcut, bits=7, spread=30), windows_of((8, 8), 2))
    x = b.concat(b.conv(x, 3, 1, bits=3), b.conv(x, 2, 1, bits=6))
    x = b.rescale(b.sum_pool(b.rescale(x), windows_of((4, 4), 2)), divisor=4)
    return b, b.build(b.linear(b.flatten(x), 5, bits=2))


def check_inputs(builder, graph, folder, n_images=40):
    images, reference = builder.images(n_images), Reference(graph)
    return CheckInputs(images, reference.quantize(images), reference.run(images), folder)


def test_the_executor_computes_the_integers_of_the_profile(tmp_path):
    builder, graph = every_operation()
    path = tmp_path / "network.onnx"
    payload = write_qonnx(graph, path, profile="hls4ml")
    # The pool's weights count: hls4ml has no pool that is right.
    assert payload > 4 * sum(op.weight.size for op in graph.layers)
    inputs = check_inputs(builder, graph, tmp_path)
    values = Reference(graph).tensors(inputs.images)
    assert (values["rescale2"] == 101).any()
    assert inputs.outputs.std(axis=0).all()
    (result,) = check_qonnx(graph, path, inputs)
    assert (result.state, result.mismatches, result.outputs) == ("passed", 0, 200)
    assert result.setting == "executor, hls4ml profile"


@pytest.mark.slow
@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
@pytest.mark.skipif(shutil.which("g++") is None, reason="hls4ml's simulation needs g++")
def test_compiled_hls4ml_predicts_the_same_integers(io_type, tmp_path):
    pytest.importorskip("hls4ml", reason="hls4ml is an extra: pip install 'bitscout[deploy]'")
    builder, graph = every_operation()
    path = tmp_path / "network.onnx"
    write_qonnx(graph, path, profile="hls4ml")
    inputs = check_inputs(builder, graph, tmp_path)
    (result,) = check_hls4ml_compiled(graph, path, inputs, io_type=io_type)
    assert (result.state, result.mismatches, result.outputs) == ("passed", 0, 200)


def test_without_its_tools_the_compiled_check_says_what_to_install(monkeypatch, tmp_path):
    import bitscout.export.checks.hls4ml as module

    builder, graph = every_operation()
    inputs = check_inputs(builder, graph, tmp_path, 1)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    (result,) = check_hls4ml_compiled(graph, tmp_path / "network.onnx", inputs)
    assert (result.state, result.reason) == ("not run", "no C++ compiler: install g++")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    (result,) = check_hls4ml_compiled(graph, tmp_path / "network.onnx", inputs)
    assert result.state == "not run"
    assert "pip install 'bitscout[deploy]'" in result.reason


def test_equal_networks_make_equal_files(tmp_path):
    for name in ("a", "b"):
        write_qonnx(every_operation()[1], tmp_path / name, profile="hls4ml")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Residual(nn.Module):
    """What a search makes: ReLU6, depthwise convolutions, an addition, an average."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.add = Add()
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.act(self.add(x, self.pointwise(self.depthwise(x))))
        return self.classifier(self.pool(x).flatten(1))


def quantized(**kwargs):
    """A network quantized at several widths, and its images; activations reach the ReLU6."""
    torch.manual_seed(0)
    network = Residual().eval()
    network.stem[1].weight.data.mul_(4)
    images = torch.randn(64, 3, 8, 8)
    bits = [LayerBits(4, 8), LayerBits(3, 6), LayerBits(8, 4), LayerBits(2, 8)]
    policy = QuantPolicy(dict(zip(layer_names(network), bits, strict=True)))
    return post_training_quantize(network, policy, images, QuantConfig(**kwargs)), images


def test_a_network_quantized_for_the_profile_passes_and_keeps_its_integers(tmp_path):
    network, images = quantized(weight_observer=PowerOfTwoPerTensorObserver())
    graph = lower(network, images[:1])
    check_hls4ml(graph)
    path = tmp_path / "network.onnx"
    write_qonnx(graph, path, profile="hls4ml")
    reference = Reference(graph)
    pixels = images.numpy()
    outputs = reference.run(pixels)
    inputs = CheckInputs(pixels, reference.quantize(pixels), outputs, tmp_path)
    (result,) = check_qonnx(graph, path, inputs)
    assert (result.state, result.mismatches) == ("passed", 0)
    with torch.no_grad():
        real = network(images).double().numpy()
    assert np.array_equal(real, graph.scores(outputs))


def test_a_bias_that_needs_a_coarser_step_raises_that_of_the_whole_layer():
    network, _ = quantized(weight_observer=PowerOfTwoPerTensorObserver())
    layer = network.pointwise
    layer.bias.data[3] = 1e6
    assert layer.fit_bias()
    steps = layer.weight_quantizer.steps()
    assert steps.unique().numel() == 1
    assert torch.frexp(steps).mantissa.eq(0.5).all()
    assert int(layer.bias_codes().abs().max()) < 2**29


def test_an_ordinary_network_is_refused_with_the_key_to_set(tmp_path):
    network, images = quantized()
    graph = lower(network, images[:1])
    path = tmp_path / "network.onnx"
    with pytest.raises(UnsupportedError) as caught:
        write_qonnx(graph, path, profile="hls4ml")
    first = graph.layers[0].name
    assert f"conv {first!r}" in str(caught.value)
    assert "not one power of two" in str(caught.value)
    assert "quantization: {profile: hls4ml}" in str(caught.value)
    assert not path.exists()


REFUSED = {
    "zero point": (
        lambda b, x: b.rescale(b.conv(x, 4), zero_point=3),
        "rescale 'rescale2' exactly: its zero point is 3, not 0",
    ),
    "groups": (lambda b, x: b.conv(x, 4, groups=2), "it has 2 groups for 4 to 4 channels"),
    "depth multiplier": (lambda b, x: b.conv(x, 8, groups=4), "4 groups for 4 to 8 channels"),
    "dilation": (lambda b, x: b.conv(x, 4, dilation=2), r"its dilation is \(2, 2\)"),
    "nine elements": (
        lambda b, x: b.rescale(b.sum_pool(x, windows_of((6, 6), 3)), divisor=9),
        r"it averages over \[9\] elements",
    ),
    "padded average": (
        lambda b, x: b.rescale(
            b.sum_pool(x, windows_of((6, 6), 2, 2, 1)),
            divisor=windows_of((6, 6), 2, 2, 1).counts,
        ),
        "its sums are not divided by one number",
    ),
    "padded maximum": (
        lambda b, x: b.max_pool(x, windows_of((6, 6), 2, 2, 1)),
        "its windows are padded or uneven",
    ),
    "divided addition": (
        lambda b, x: b.rescale(x, x, divisor=2),
        "it divides more than the sums of a pool",
    ),
    "channels of zeros": (
        lambda b, x: b.pad_channels(b.rescale(x), 0, 4),
        "it adds channels of zeros. Use shortcuts with a convolution",
    ),
    "feature map out": (lambda b, x: b.rescale(x), r"ends in one number per class.*\(4, 6, 6\)"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_hls4ml_would_compute_differently_is_refused(change, message):
    b = ProfileBuilder(1)
    x = change(b, b.input((4, 6, 6)))
    with pytest.raises(UnsupportedError, match=message):
        check_hls4ml(b.build(x, one_step=False))


def test_steps_that_are_no_powers_of_two_are_refused():
    with pytest.raises(UnsupportedError, match="input 'image' exactly: it has a step of"):
        check_hls4ml(tiny_net()[1])
