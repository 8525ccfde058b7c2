# SPDX-License-Identifier: Apache-2.0
"""Microcontroller memory: uNAS's own figures, mixed bits by hand, and our exported code."""

import numpy as np
import pytest
import torch

from bitscout.core import Layer, LayerBits, LayerGraph, Node, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.export.c.program import Program
from bitscout.export.lowering import lower
from bitscout.hardware import Microcontroller, load_hardware, reference_network
from bitscout.hardware.reference_networks.builder import GraphBuilder
from bitscout.networks import resnet, trace
from bitscout.quantization import layer_names, post_training_quantize


def bytes_policy(graph):
    return QuantPolicy.uniform(graph.names, 8, 8)


def convolution_and_dense():
    net = GraphBuilder("golden 1", (3, 32, 32))
    net.conv("conv", 5, 3, padding=0)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def residual_and_pool():
    net = GraphBuilder("golden 2", (3, 32, 32))
    a = net.conv("a", 16, 3)
    net.conv("b", 16, 3)
    c = net.conv("c", 16, 3)
    net.add("add", a, c)
    net.pool("pool", "avg_pool", 8, stride=8)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def two_branches():
    net = GraphBuilder("golden 3", (8, 16, 16))
    a = net.conv("a", 8)
    net.conv("dw", 8, 3, groups=8)
    left = net.conv("left", 16)
    right = net.conv("right", 16, source=a)
    net.add("add", left, right)
    net.conv("reduce", 4, stride=2)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def inverted_residuals():
    net = GraphBuilder("golden 4", (3, 96, 96))
    net.conv("stem", 16, 3, stride=2)
    for i, (outputs, t, stride) in enumerate(
        ((8, 1, 1), (16, 6, 2), (16, 6, 1), (24, 6, 2), (24, 6, 1))
    ):
        source, inputs = net.last, net.channels
        if t > 1:
            net.conv(f"{i}.expand", inputs * t)
        net.conv(f"{i}.depthwise", inputs * t, 3, stride=stride, groups=inputs * t)
        net.conv(f"{i}.project", outputs)
        if stride == 1 and inputs == outputs:
            net.add(f"{i}.add", source, net.last)
    net.adaptive_pool("pool")
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


@pytest.mark.parametrize(
    ("build", "peak", "peak_with_input", "flash", "work", "loads_compute"),
    [
        (convolution_and_dense, 4510, 7572, 45150, 166500, 504010),
        (residual_and_pool, 49152, 49152, 7658, 5196288, 15621642),
        (two_branches, 10240, 10240, 3078, 111104, 345866),
        (inverted_residuals, 138240, 138240, 20274, 8004336, 24486490),
    ],
)
def test_the_golden_graphs_of_unas(build, peak, peak_with_input, flash, work, loads_compute):
    graph = build()
    unas = load_hardware("mcu-unas:w_mem=1")
    total = unas.report(graph, bytes_policy(graph)).total
    assert total == {
        "flash_bytes": flash,
        "peak_memory_bytes": peak,
        "macs": graph.macs,
        "work": work,
        "loads_compute": loads_compute,
    }
    with_input = load_hardware("mcu-unas:include_input=true")
    assert with_input.peak_memory(graph, bytes_policy(graph)) == peak_with_input


def mixed_network():
    """A stem, two branches that meet in an addition, a concatenation with the stem, a head."""
    layers = (
        Layer("stem", "conv", 1, 3, output_size=(3, 5), input_size=(3, 5)),
        Layer("left", "conv", 3, 3, output_size=(3, 5), input_size=(3, 5)),
        Layer("right", "conv", 3, 3, output_size=(3, 5), input_size=(3, 5)),
        Layer("head", "linear", 6, 7, has_bias=False),
    )
    nodes = (
        Node("input", "input", (), (1, 3, 5)),
        Node("stem", "conv", ("input",), (3, 3, 5)),
        Node("left", "conv", ("stem",), (3, 3, 5)),
        Node("right", "conv", ("stem",), (3, 3, 5)),
        Node("add", "add", ("left", "right"), (3, 3, 5)),
        Node("concat", "concat", ("stem", "add"), (6, 3, 5)),
        Node("pool", "avg_pool", ("concat",), (6, 1, 1)),
        Node("flatten", "flatten", ("pool",), (6,)),
        Node("head", "linear", ("flatten",), (7,)),
    )
    return LayerGraph(layers, nodes)


MIXED = QuantPolicy(
    {
        "stem": LayerBits(2, 7),
        "left": LayerBits(3, 2),
        "right": LayerBits(5, 4),
        "head": LayerBits(7, 3),
    }
)


def test_an_element_takes_the_bits_of_its_most_demanding_reader():
    model = Microcontroller(order="given", in_place_add=False, output_bits=6)
    memory = model.memory(mixed_network(), MIXED)
    # 45 elements of the stem at 4 bits (`right`); behind it everything is read by `head` at 3.
    assert dict(zip(memory.graph.names, memory.sizes, strict=True)) == {
        "input": 14,
        "stem": 23,
        "left": 17,
        "right": 17,
        "add": 17,
        "concat": 34,
        "pool": 3,
        "head": 6,
    }
    assert memory.live_bytes == (37, 40, 57, 74, 74, 37, 9)


def test_layers_have_their_flash_and_what_is_in_memory_while_they_run():
    report = Microcontroller(order="given", output_bits=6).report(mixed_network(), MIXED)
    layers = [
        (e.name, e.costs["flash_bytes"], e.costs["peak_memory_bytes"]) for e in report.layers
    ]
    # Weights as bitstreams and four bytes a bias: 3 x 2, 9 x 3, 9 x 5 and 42 x 7 bits.
    assert layers == [("stem", 13, 37), ("left", 16, 40), ("right", 18, 57), ("head", 37, 9)]
    assert report.total["flash_bytes"] == 13 + 16 + 18 + 37
    # The addition takes the place of an operand, so the concatenation is the peak.
    assert report.total["peak_memory_bytes"] == 74
    assert report.notes[-1] == (
        "Memory is fullest while `concat` runs, in bytes: stem 23, add 17, concat 34."
    )
    # 45 + 135 + 135 + 42 products, 45 additions, 6 windows of 15 pixels.
    assert report.total["macs"] == 45 + 135 + 135 + 42
    assert report.total["work"] == report.total["loads_compute"] == 357 + 45 + 90
    assert report.units["flash_bytes"] == report.units["peak_memory_bytes"] == "bytes"


def test_packings_scales_and_biases_of_flash():
    def flash(**options):
        return Microcontroller(**options).report(mixed_network(), MIXED).total["flash_bytes"]

    # Words hold 16, 10, 6 and 4 weights of 2, 3, 5 and 7 bits; four bytes for each bias.
    assert flash(packing="word32") == 4 * (1 + 1 + 2 + 11) + 36
    assert flash(scales=True) == flash() + 4 * 16
    assert flash(bias_bits=8) == flash() - 3 * 9


def test_a_batch_multiplies_activations_and_operations_but_not_flash():
    graph = two_branches()
    one = Microcontroller(order="given", w_mem=1).report(graph, bytes_policy(graph)).total
    four = (
        Microcontroller(order="given", w_mem=1, batch=4).report(graph, bytes_policy(graph)).total
    )
    assert four.pop("flash_bytes") == one.pop("flash_bytes")
    assert four == {name: 4 * value for name, value in one.items()}


def test_the_exact_order_is_never_worse_and_here_better():
    # `wide` swells, so it should run before the result of `left` has to be kept.
    net = GraphBuilder("order", (4, 8, 8))
    source = net.conv("stem", 4)
    left = net.conv("left", 8, source=source)
    net.conv("wide", 32, source=source)
    net.add("add", net.conv("right", 8), left)
    graph = net.graph()
    policy = bytes_policy(graph)
    as_given = Microcontroller(order="given").memory(graph, policy)
    exact = Microcontroller().memory(graph, policy)
    assert as_given.peak_bytes == 64 * (8 + 32 + 8)
    assert exact.peak_bytes == 64 * (4 + 32 + 8)
    assert exact.names == ("stem", "wide", "right", "left", "add")


def test_additions_in_place_need_equal_numbers_of_values():
    # ResNet-20's shortcut has half the channels of the sum; at 8 and 4 bits the bytes would agree.
    add = Node("add", "add", ("half", "full"), (4, 2, 2))
    layers = tuple(
        Layer(name, "conv", 4, n, output_size=(2, 2), input_size=(2, 2))
        for name, n in (("full", 4), ("half", 2), ("next", 4))
    )
    nodes = (
        Node("input", "input", (), (4, 2, 2)),
        *(
            Node(layer.name, "conv", ("input",), (layer.out_channels, 2, 2))
            for layer in layers[:2]
        ),
        add,
        Node("next", "conv", ("add",), (4, 2, 2)),
    )
    graph = LayerGraph(layers, nodes)
    memory = Microcontroller(include_input=False).memory(graph, bytes_policy(graph))
    assert memory.graph.replaces[memory.graph.names.index("add")] == (1,)


def test_pools_of_single_pixels_and_flattening_are_views():
    one_pixel = GraphBuilder("view", (3, 1, 1))
    one_pixel.conv("conv", 5)
    one_pixel.adaptive_pool("pool")
    one_pixel.pool("same", "max_pool", 3, stride=1, padding=1)
    one_pixel.flatten()
    memory = Microcontroller().memory(one_pixel.graph(), QuantPolicy.uniform(["conv"], 8))
    assert memory.graph.names == ("input", "conv", "same")
    # VGG's last pool does nothing at its own resolution, and something at others.
    for size, is_operator in ((224, False), (256, True)):
        graph = reference_network("vgg16", (3, size, size))
        names = Microcontroller().memory(graph, bytes_policy(graph)).names
        assert ("avgpool" in names) == is_operator


def test_gates_products_and_moves_take_what_they_take():
    layers = (Layer("conv", "conv", 2, 6, input_size=(5, 1), output_size=(5, 1), has_bias=False),)
    nodes = (
        Node("input", "input", (), (2, 5, 1)),
        Node("conv", "conv", ("input",), (6, 5, 1)),
        Node("q", "rearrange", ("conv",), (5, 3)),
        Node("k", "rearrange", ("conv",), (3, 5)),
        Node("scores", "matmul", ("q", "k"), (5, 5)),
        Node("values", "matmul", ("scores", "q"), (5, 3)),
        Node("norm", "other", ("values",), (5, 3)),
        Node("gate", "multiply", ("norm", "q"), (5, 3)),
        Node("view", "flatten", ("gate",), (15,)),
    )
    graph = LayerGraph(layers, nodes)
    report = Microcontroller(w_mem=1, w_comp=0).report(graph, bytes_policy(graph))
    products, gate, norm, moves = 5 * 5 * 3 + 5 * 3 * 5, 15, 15, 15 + 15
    assert report.total["macs"] == 5 * 2 * 6
    assert report.total["work"] == 60 + products + gate + norm
    assert report.total["loads_compute"] == 2 * 60 + 2 * products + 2 * gate + norm + moves
    memory = Microcontroller(order="given").memory(graph, bytes_policy(graph))
    assert dict(zip(memory.names, memory.live_bytes, strict=True)) == {
        "conv": 10 + 30,
        "q": 30 + 15,
        "k": 30 + 15 + 15,
        "scores": 15 + 15 + 25,
        "values": 15 + 25 + 15,
        "norm": 15 + 15 + 15,
        "gate": 15 + 15 + 15,
    }


def test_attention_as_one_function_takes_what_its_two_products_take():
    class Attention(torch.nn.Module):
        def __init__(self, fused):
            super().__init__()
            self.fused = fused

        def forward(self, x):
            q, k, v = x.chunk(3, 2)
            if self.fused:
                return torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v

    work = []
    for fused in (True, False):
        graph = trace(Attention(fused), (7, 12))
        work.append(Microcontroller().report(graph, QuantPolicy({})).total["work"])
    assert work == [2 * 7 * 7 * 4] * 2


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "mobilenet_v2", "alexnet"])
def test_memory_falls_with_the_bits_of_activations(name):
    graph = reference_network(name)
    model = Microcontroller(output_bits=2)
    peaks = [model.peak_memory(graph, QuantPolicy.uniform(graph.names, 8, b)) for b in range(2, 9)]
    assert peaks == sorted(peaks)
    # The tensors of the peak have multiples of 8 elements, and nothing is rounded.
    np.testing.assert_array_equal(np.array(peaks) * 8 // np.arange(2, 9), peaks[-1])


def test_exported_code_holds_exactly_these_tensors():
    net, shape = resnet(8, base_width=4), (3, 8, 8)
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    policy = QuantPolicy.uniform(layer_names(net), 8)
    program = Program.of(lower(post_training_quantize(net, policy, images).eval(), images))
    expected = Microcontroller(include_input=False).peak_memory(trace(net, shape), policy)
    assert program.memory.tensor_peak_bytes == expected
    assert program.memory.arena_bytes >= expected


def test_a_network_without_nodes_has_no_peak():
    graph = LayerGraph(mixed_network().layers)
    with pytest.raises(
        UnsupportedError, match=r"cannot tell the peak memory .* Give a graph with"
    ):
        Microcontroller().report(graph, MIXED)


def test_a_policy_for_another_network_is_refused():
    with pytest.raises(PolicyError, match="left out: head"):
        Microcontroller().peak_memory(
            mixed_network(), QuantPolicy.uniform(["stem", "left", "right"], 8)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bias_bits=0", "`bias_bits` of hardware 'mcu' must be above 0 bits, got 0"),
        ("output_bits=33", "`output_bits` of hardware 'mcu' must be from 1 to 32, got 33"),
        ("w_mem=-1", "`w_mem` of hardware 'mcu' must be finite, >= 0, got -1"),
        ("order=best", "exact"),
        ("packing=logical", "bitstream"),
        ("batch=0", "`batch`"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(f"mcu:{options}")
