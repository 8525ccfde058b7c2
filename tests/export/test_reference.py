"""The executor against a naive one: PyTorch's int64 convolutions and rational numbers."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.export.graphs import GraphBuilder, relu_net, residual_net, tiny_net
from tests.export.random_graphs import random_net
from torch.nn import functional as F

from bitscout.errors import DataError
from bitscout.export import reference as reference_module
from bitscout.export.graph import Conv, Grid, Input, IntegerGraph
from bitscout.export.reference import Reference

NETS = {
    "tiny": lambda seed: tiny_net(seed),
    "tiny, powers of two": lambda seed: tiny_net(seed, power_of_two=True),
    "residual": lambda seed: residual_net(seed),
    "residual, zero point": lambda seed: residual_net(seed, zero_point=3),
    "residual, powers of two": lambda seed: residual_net(seed, power_of_two=True, zero_point=3),
    "sums": lambda seed: relu_net(seed),
}


def naive(graph, codes):
    """Every tensor as int64, NCHW, operation by operation and element by element."""
    tensors = {}
    for op in graph:
        operands = [
            tensors[name] - (0 if op.kind == "concat" else graph[name].grid.zero_point)
            for name in op.inputs
        ]
        zero = 0 if op.kind in ("conv", "linear", "sum_pool", "rescale", "concat") else (
            op.grid.zero_point)  # fmt: skip
        result = codes[op.name] - zero if op.kind == "input" else NAIVE[op.kind](op, *operands)
        tensors[op.name] = result + zero
    return tensors


def naive_conv(op, x):
    top, left, bottom, right = op.pads
    padded = F.pad(torch.from_numpy(x), (left, right, top, bottom))
    weight = torch.from_numpy(op.weight.astype(np.int64))
    bias = None if op.bias is None else torch.from_numpy(op.bias)
    options = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups}
    return F.conv2d(padded, weight, bias, **options).numpy()


def naive_linear(op, x):
    bias = 0 if op.bias is None else op.bias
    return x @ op.weight.T.astype(np.int64) + bias


def naive_rescale(op, *operands):
    result = np.empty_like(operands[0])
    for index in np.ndindex(*result.shape):
        channel = index[1]
        total = sum(
            int(x[index]) * int(np.broadcast_to(m, op.shape[0])[channel])
            for x, m in zip(operands, op.multiplier, strict=True)
        )
        shift = int(np.broadcast_to(op.shift, op.shape[0])[channel])
        divisor = int(op.divisor[index[2:]] if op.divisor.ndim else op.divisor)
        value = round(Fraction(total, divisor << shift)) + op.grid.zero_point
        result[index] = min(max(value, op.grid.quant_min), op.grid.quant_max)
    return result


def naive_pool(reduce):
    def pool(op, x):
        result = np.empty((len(x), *op.shape), dtype=np.int64)
        for i, (top, bottom) in enumerate(op.windows.rows):
            for j, (left, right) in enumerate(op.windows.columns):
                result[:, :, i, j] = reduce(x[:, :, top:bottom, left:right], axis=(2, 3))
        return result

    return pool


NAIVE = {
    "conv": naive_conv,
    "linear": naive_linear,
    "rescale": naive_rescale,
    "sum_pool": naive_pool(np.sum),
    "max_pool": naive_pool(np.max),
    "relu": lambda op, x: np.maximum(x, 0),
    "concat": lambda op, *operands: np.concatenate(operands, axis=1),
    "flatten": lambda op, x: x.reshape(len(x), -1),
}


def assert_agrees_with_naive(builder, graph, n_images):
    reference = Reference(graph)
    images = builder.images(n_images)
    codes = reference.quantize(images)
    expected = naive(graph, codes)
    actual = reference.tensors(images)
    assert list(actual) == list(expected)
    for name, values in expected.items():
        assert actual[name].dtype == np.int64
        np.testing.assert_array_equal(actual[name], values, err_msg=name)
    np.testing.assert_array_equal(reference.run(images), expected[graph.output])
    np.testing.assert_array_equal(reference.run_codes(codes), expected[graph.output])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_tensor_is_that_of_the_naive_executor(net, seed):
    assert_agrees_with_naive(*NETS[net](seed), n_images=3)


@given(st.integers(0, 2**32 - 1))
def test_every_tensor_of_a_random_graph_is_that_of_the_naive_executor(seed):
    assert_agrees_with_naive(*random_net(seed), n_images=2)


def test_the_nets_are_not_trivial():
    for make in NETS.values():
        builder, graph = make(0)
        tensors = Reference(graph).tensors(builder.images(8))
        for name, values in tensors.items():
            assert len(np.unique(values)) >= min(4, values[0].size), name


@pytest.mark.parametrize("net", NETS)
def test_a_batch_is_a_loop_over_its_images(net, monkeypatch):
    builder, graph = NETS[net](5)
    images = builder.images(7)
    together = Reference(graph).run(images)
    monkeypatch.setattr(reference_module, "BATCH_ELEMENTS", 1)
    single = Reference(graph)
    one_by_one = np.concatenate([single.run(image[None]) for image in images])
    np.testing.assert_array_equal(together, one_by_one)
    np.testing.assert_array_equal(together, single.run(images))
    np.testing.assert_array_equal(Reference(graph).run(images[::-1]), together[::-1])


@pytest.mark.parametrize("net", NETS)
def test_no_images_give_no_outputs(net):
    builder, graph = NETS[net](0)
    reference = Reference(graph)
    images = builder.images(0)
    output = graph[graph.output]
    assert reference.run(images).shape == (0, *output.shape)
    assert {k: v.shape for k, v in reference.tensors(images).items()} == {
        op.name: (0, *op.shape) for op in graph
    }


def input_graph(scale, zero_point=0):
    grid = Grid(np.array(scale), 4, -7, 7, zero_point)
    return IntegerGraph((Input("image", (1, 1, 1), grid),), "image")


def test_images_are_quantized_half_to_even_in_float32_and_saturate():
    values = np.array([0.25, 0.75, -0.25, 1.25, 3.4, 3.8, -99.0, np.inf, -np.inf, 0.0])
    codes = Reference(input_graph(0.5)).run(values.astype(np.float32).reshape(-1, 1, 1, 1))
    assert codes.reshape(-1).tolist() == [0, 2, 0, 2, 7, 7, -7, 7, -7, 0]


def test_parity_of_an_image_is_that_before_the_zero_point():
    values = np.array([0.25, 0.75, 1.25], dtype=np.float32).reshape(-1, 1, 1, 1)
    assert Reference(input_graph(0.5, 1)).run(values).reshape(-1).tolist() == [1, 3, 3]


def test_quantization_of_images_is_that_of_torch():
    images = torch.linspace(-3, 3, 40001).reshape(-1, 1, 1, 1)
    scale = float(np.float32(0.0937))
    codes = Reference(input_graph(scale, 2)).quantize(images.numpy())["image"]
    expected = ((images / torch.tensor(scale)).round() + 2).clamp(-7, 7)
    np.testing.assert_array_equal(codes, expected.numpy())


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.0937, 0.7])
def test_images_next_to_ties_are_divided_and_not_multiplied_by_the_reciprocal(scale):
    scale = np.float32(scale)
    ties = (np.arange(-7, 7, dtype=np.float32) + np.float32(0.5)) * scale
    sides = [np.nextafter(ties, np.float32(side)) for side in (-9, 9)]
    images = np.concatenate([ties, *sides]).reshape(-1, 1, 1, 1)
    codes = Reference(input_graph(float(scale))).quantize(images)["image"]
    expected = (torch.from_numpy(images) / torch.tensor(scale)).round().clamp(-7, 7)
    np.testing.assert_array_equal(codes, expected.numpy())


def test_an_output_that_others_read_is_still_the_output():
    builder, graph = tiny_net()
    middle = replace(graph, output=graph.ops[4].name)
    images = builder.images(3)
    expected = Reference(graph).tensors(images)[middle.output]
    np.testing.assert_array_equal(Reference(middle).run(images), expected)


def big_conv(in_channels, kernel, bias):
    """All products at their largest, so that sums are far beyond 2**24."""
    grid = Grid(np.array(1.0), 8, 0, 255)
    image = Input("image", (in_channels, kernel, kernel), grid)
    weight = np.full((2, in_channels, kernel, kernel), 127, dtype=np.int8)
    weight[1] = -127
    # An odd sum: a float32 beyond 2**24 would lose its last bit.
    weight[:, 0, 0, 0] = (126, -126)
    conv = Conv("conv", ("image",), (2, 1, 1), Grid.sums(np.array(1.0)), weight, 8,
                np.ones(2), np.array(bias))  # fmt: skip
    return IntegerGraph((image, conv), "conv")


@pytest.mark.parametrize("channels", [55, 56, 57, 58, 200])
def test_sums_beyond_what_float32_holds_are_exact(channels):
    codes = np.full((2, channels, 3, 3), 255)
    codes[1, 0, 0, 0] = 254
    result = Reference(big_conv(channels, 3, [3, -3])).run_codes({"image": codes})
    total = 255 * (127 * (channels * 9) - 1)
    expected = [[total + 3, -total - 3], [total - 126 + 3, -total + 126 - 3]]
    assert result.reshape(2, 2).tolist() == expected


def test_padding_stands_for_zero_and_is_the_zero_point():
    b = GraphBuilder(0)
    x = b.input((2, 3, 3), signed=True, zero_point=5)
    graph = b.build(b.flatten(b.rescale(b.conv(x, 4, 3, bias=False), signed=True)))
    codes = {"image": np.full((1, 2, 3, 3), 5)}
    assert not Reference(graph).run_codes(codes).any()


@pytest.mark.parametrize("shape", [(2, 3, 16, 15), (3, 16, 16), (2, 4, 16, 16), ()])
def test_images_of_another_shape_are_refused(shape):
    _, graph = tiny_net()
    with pytest.raises(DataError, match=r"images of shape \(N, 3, 16, 16\)"):
        Reference(graph).run(np.zeros(shape, dtype=np.float32))


def test_nan_is_refused():
    images = np.zeros((1, 3, 16, 16), dtype=np.float32)
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        Reference(tiny_net()[1]).run(images)


def test_codes_out_of_range_are_refused():
    reference = Reference(tiny_net()[1])
    for bad in (-1, 256):
        with pytest.raises(DataError, match="from 0 to 255"):
            reference.run_codes({"image": np.full((1, 3, 16, 16), bad)})


def test_codes_of_another_input_are_refused():
    with pytest.raises(DataError, match="codes of the input 'image'"):
        Reference(tiny_net()[1]).run_codes({"picture": np.zeros((1, 3, 16, 16), dtype=int)})


def test_inputs_of_different_lengths_are_refused():
    grid = Grid(np.array(1.0), 8, 0, 255)
    graph = IntegerGraph((Input("a", (1, 1, 1), grid), Input("b", (1, 1, 1), grid)), "a")
    codes = {"a": np.zeros((1, 1, 1, 1), dtype=int), "b": np.zeros((2, 1, 1, 1), dtype=int)}
    with pytest.raises(DataError, match=r"as many images for every input, got \[1, 2\]"):
        Reference(graph).run_codes(codes)
