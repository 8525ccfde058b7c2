# SPDX-License-Identifier: Apache-2.0
"""Tracing modules: equal to the arithmetic of the space, and honest about what it cannot say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitscout.core import Layer
from bitscout.errors import UnsupportedError
from bitscout.networks import build_network, resnet, trace
from bitscout.space import BompSpace

SPACES = {
    "cifar10": BompSpace(),
    "cifar10, divisor 1": BompSpace(channel_divisor=1),
    "cifar100": BompSpace(widths="cifar100", n_classes=100, input_shape=(3, 16, 16)),
    "cifar100, divisor 1": BompSpace(widths="cifar100", channel_divisor=1, input_shape=(3, 11, 6)),
    "digits": BompSpace(input_shape=(1, 8, 8)),
    "digits, divisor 1": BompSpace(input_shape=(1, 8, 8), channel_divisor=1),
}


def candidates(space):
    """The seed, both reductions in block 7, everything absent, and random ones."""
    seed, rng = space.seed_values(), np.random.default_rng(7)
    absent = {f"block{p}.repetitions": 0 for p in range(2, 7)}
    both = {"block5.repetitions": 0, "block6.repetitions": 0, "block7.kernel": 2}
    return [seed, seed | both, seed | absent, *(space.sample(rng) for _ in range(6))]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_trace_of_the_built_network_is_what_the_space_computes(space):
    for values in candidates(space):
        network = build_network(space.architecture(values), generator_seed=0)
        traced, computed = trace(network, space.input_shape), space.layers(values)
        assert traced.layers == computed.layers
        assert traced.nodes == computed.nodes


class Functional(nn.Module):
    """Everything the graph knows, written as functions, with control flow in Python."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding=(1, 0), dilation=1, groups=2)
        self.third = nn.Conv2d(8, 6, 2, bias=False)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        x = F.relu(self.first(x))
        for _ in range(2):
            x = x + F.hardswish(x)
        y = self.second(F.dropout(x, training=self.training))
        x = F.max_pool2d(x, (2, 1)) if x.shape[2] > 1 else x
        y += x
        x = torch.cat((x, y), dim=1)
        x = F.avg_pool2d(self.third(F.pad(x, (0, 1, 0, 1))), 2)
        return self.head(x.mean((2, 3)).reshape(len(x), -1))


def test_functions_and_control_flow_are_followed():
    graph = trace(Functional(), (3, 8, 6))
    assert [(node.name, node.op, node.inputs, node.shape) for node in graph.nodes] == [
        ("input", "input", (), (3, 8, 6)),
        ("first", "conv", ("input",), (4, 8, 6)),
        ("add", "add", ("first", "first"), (4, 8, 6)),
        ("add_1", "add", ("add", "add"), (4, 8, 6)),
        ("second", "conv", ("add_1",), (4, 4, 6)),
        ("max_pool", "max_pool", ("add_1",), (4, 4, 6)),
        ("add_2", "add", ("second", "max_pool"), (4, 4, 6)),
        ("concat", "concat", ("max_pool", "add_2"), (8, 4, 6)),
        ("third", "conv", ("concat",), (6, 4, 6)),
        ("avg_pool", "avg_pool", ("third",), (6, 2, 3)),
        ("avg_pool_1", "avg_pool", ("avg_pool",), (6,)),
        ("head", "linear", ("avg_pool_1",), (5,)),
    ]
    assert graph["second"] == Layer(
        "second", "conv", 4, 4, (3, 1), (2, 1), 2, (8, 6), (4, 6), has_bias=True
    )
    windows = {node.name: node.kernel for node in graph.nodes if node.kernel}
    assert windows == {"max_pool": (2, 1), "avg_pool": (2, 2)}
    # The padding of `third` is its own, though written as a function.
    assert graph["third"].input_size == (4, 6)
    assert [layer.has_bias for layer in graph] == [True, True, False, False]


def test_batch_norm_gives_its_layer_a_bias_and_folding_changes_nothing():
    conv = nn.Conv2d(1, 2, 1, bias=False)
    plain = trace(nn.Sequential(conv), (1, 4, 4))
    normed = trace(nn.Sequential(conv, nn.BatchNorm2d(2), nn.ReLU(inplace=True)), (1, 4, 4))
    assert [plain["0"].has_bias, normed["0"].has_bias] == [False, True]
    linear = nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2))
    assert trace(linear, (3,))["0"].has_bias


@pytest.mark.parametrize(
    ("pool", "kernel"),
    [
        (nn.MaxPool2d(3, stride=2, padding=1), (3, 3)),
        (nn.AvgPool2d(kernel_size=(4, 2)), (4, 2)),
        (nn.AdaptiveAvgPool2d(2), None),
        (nn.AdaptiveMaxPool2d((1, 2)), None),
    ],
)
def test_pools_with_a_fixed_window_say_which(pool, kernel):
    assert trace(nn.Sequential(pool), (3, 8, 8)).nodes[-1].kernel == kernel


def test_the_module_is_left_as_it_was():
    network = resnet(8)
    network.stage1.eval()
    training = [part.training for part in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trace(network, (3, 16, 16))
    assert [part.training for part in network.modules()] == training
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_double_precision_and_channels_last_networks_can_be_traced():
    network = resnet(8).double().to(memory_format=torch.channels_last)
    assert trace(network, (3, 8, 8)).layers == trace(resnet(8), (3, 8, 8)).layers


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 2))

    def forward(self, x):
        return x @ self.matrix


def nodes_after_conv(function, shape=(4, 4, 4)):
    """Return op and shape of every node behind the convolution, four channels of 4x4."""
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1), Function(function)), (3, *shape[1:]))
    return [(node.op, node.shape) for node in graph.nodes[2:]]


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "nodes"),
    [
        # Of one result, value by value: part of the layer before.
        (lambda x: x * torch.sigmoid(x), []),
        (lambda x: x * F.relu6(x + 3) / 6, []),
        (lambda x: (1 - x).abs().clamp(max=1), []),
        (lambda x: x.expand(2, 4, 4, 4), []),
        (lambda x: x.contiguous().clone(), []),
        # Names for the same values.
        (lambda x: x.reshape(2, 4, -1), [("flatten", (4, 16))]),
        (lambda x: x.unsqueeze(2), [("flatten", (4, 1, 4, 4))]),
        (lambda x: x.view(-1), [("flatten", (64,))]),
        # Values moved.
        (lambda x: x[:, :, ::2], [("rearrange", (4, 2, 4))]),
        (lambda x: x.chunk(2, 1)[0], [("rearrange", (2, 4, 4)), ("rearrange", (2, 4, 4))]),
        (lambda x: x.unbind(1)[0], [("rearrange", (4, 4))] * 4),
        (lambda x: x.transpose(1, 3), [("rearrange", (4, 4, 4))]),
        (lambda x: F.interpolate(x, scale_factor=2), [("rearrange", (4, 8, 8))]),
        (lambda x: F.pixel_shuffle(x, 2), [("rearrange", (1, 8, 8))]),
        (lambda x: F.pad(x, (1, 1)) * 2, [("rearrange", (4, 4, 6))]),
        (lambda x: torch.cat((x, x), 3), [("rearrange", (4, 4, 8))]),
        (lambda x: torch.cat((x, x), -3), [("concat", (8, 4, 4))]),
        # Of several results.
        (lambda x: x + x, [("add", (4, 4, 4))]),
        (lambda x: x - F.max_pool2d(x, 1), [("max_pool", (4, 4, 4)), ("other", (4, 4, 4))]),
        (
            lambda x: x * x.mean((2, 3), keepdim=True),
            [("avg_pool", (4, 1, 1)), ("multiply", (4, 4, 4))],
        ),
        (
            lambda x: x + x.mean((2, 3), keepdim=True),
            [("avg_pool", (4, 1, 1)), ("other", (4, 4, 4))],
        ),
        (lambda x: x @ x, [("matmul", (4, 4, 4))]),
        (lambda x: torch.einsum("nchw,nchv->ncwv", x, x), [("matmul", (4, 4, 4))]),
        (lambda x: F.scaled_dot_product_attention(x, x, x), [("matmul", (4, 4, 4))]),
        # Anything else is said to be something else.
        (lambda x: x.mean(1), [("other", (4, 4))]),
        (lambda x: x.cumsum(1), [("other", (4, 4, 4))]),
        (lambda x: F.group_norm(x, 2), [("other", (4, 4, 4))]),
        # Pools of one dimension after the other.
        (lambda x: x.mean(3).mean(2), [("avg_pool", (4, 4)), ("avg_pool", (4,))]),
        (lambda x: x.amax((2, 3)), [("max_pool", (4,))]),
        (lambda x: x.flatten(2).mean(-1), [("flatten", (4, 16)), ("avg_pool", (4,))]),
    ],
)
def test_functions_have_a_word_in_the_graph(function, nodes):
    assert nodes_after_conv(function) == nodes


def test_windows_of_means_over_one_dimension_are_known():
    graph = trace(Function(lambda x: x.mean(3).mean(2)), (3, 4, 6))
    assert [node.kernel for node in graph.nodes] == [None, (1, 6), (4, 1)]


def test_a_changed_part_of_a_tensor_is_not_lost():
    def half(x):
        x[:, :2] = x[:, 2:] * 2
        return x.mean((2, 3))

    assert nodes_after_conv(half) == [
        ("rearrange", (2, 4, 4)),
        ("other", (4, 4, 4)),
        ("avg_pool", (4,)),
    ]


def test_a_change_through_a_view_is_not_lost():
    def through_view(x):
        x[:, :2].relu_()
        return x.mean((2, 3))

    assert [op for op, _ in nodes_after_conv(through_view)] == ["rearrange", "other", "avg_pool"]


def test_a_linear_layer_on_tokens_is_a_convolution_of_so_many_rows():
    tokens = Function(lambda x: x.flatten(2).transpose(1, 2))
    graph = trace(nn.Sequential(tokens, nn.Linear(3, 5)), (3, 4, 6))
    assert graph["1"] == Layer("1", "conv", 3, 5, input_size=(24, 1), output_size=(24, 1))
    assert graph.macs == 24 * 3 * 5
    graph = trace(
        nn.Sequential(Function(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(3, 5)), (3, 4, 6)
    )
    assert graph["1"].output_size == (4, 6)


def test_a_layer_that_runs_several_times_has_all_its_outputs():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    graph = trace(nn.Sequential(conv, nn.ReLU(), conv), (3, 4, 4))
    once = trace(nn.Sequential(conv), (3, 4, 4))
    assert (graph.macs, graph.n_weights) == (2 * once.macs, once.n_weights)
    assert [(node.name, node.inputs) for node in graph.nodes[1:]] == [
        ("0", ("input",)),
        ("0_1", ("0",)),
    ]


def test_a_layer_that_runs_on_several_resolutions_has_all_their_pixels():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x):
            small = self.norm(self.head(F.max_pool2d(x, 2)))
            return self.head(x).mean((2, 3)) + small.mean((2, 3))

    layer = trace(Pyramid(), (3, 4, 6))["head"]
    assert layer.macs == 3 * 4 * (4 * 6 + 2 * 3)
    assert not layer.has_bias  # Only one of its uses has a batch norm behind it.


def test_batch_norm_is_not_folded_where_something_else_reads_the_layer():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return x + self.norm(x)

    graph = trace(Early(), (3, 4, 4))
    assert not graph["conv"].has_bias
    assert [(node.name, node.op) for node in graph.nodes[2:]] == [
        ("norm", "other"),
        ("add", "add"),
    ]


def test_layers_keep_their_names_whatever_they_are_called():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.add, self.output = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            y = self.input(x)
            return self.output(x + y + self.add(y))

    graph = trace(Named(), (3, 4, 4))
    assert graph.names == ("input", "add", "output")
    assert [(node.name, node.inputs) for node in graph.nodes] == [
        ("input_", ()),
        ("input", ("input_",)),
        ("add_", ("input_", "input")),
        ("add", ("input",)),
        ("add_2", ("add_", "add")),
        ("output", ("add_2",)),
    ]


def test_operations_beside_weights_in_one_module_do_not_hide_the_layer():
    class Sliced(nn.Conv2d):
        def forward(self, x):
            return super().forward(x[:, :3])

    graph = trace(nn.Sequential(Sliced(3, 5, 1)), (4, 4, 4))
    assert [(node.name, node.op) for node in graph.nodes[1:]] == [
        ("0.rearrange", "rearrange"),
        ("0", "conv"),
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_no_python_calls_is_seen_too():
    scripted = torch.jit.script(swish)
    assert nodes_after_conv(lambda x: scripted(x).mean((2, 3))) == [("avg_pool", (4,))]


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (nn.Sequential(nn.Conv1d(3, 3, 1)), (3, 4), "Cannot trace `conv1d` in Conv1d '0'"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 1)), (3, 4, 4), "upsampling and a Conv2d"),
        (nn.Sequential(nn.LSTM(4, 2)), (3, 4), "Cannot trace `lstm`"),
        (nn.Sequential(nn.Bilinear(4, 4, 2)), (4,), "TypeError"),
        (Product(), (3, 4), r"`matmul` in the Product \(.*test_trace.py:\d+\) multiplies by a"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1)),
            (1, 4, 4),
            "not run on an input of 1x4x4: in Conv2d '0', RuntimeError: Given groups=1",
        ),
    ],
)
def test_unsupported_modules_are_named(network, shape, message):
    with pytest.raises(UnsupportedError, match=message):
        trace(network, shape)


def test_a_failed_trace_leaves_no_hooks_behind():
    network = Function(lambda x: x @ torch.ones(7))
    with pytest.raises(UnsupportedError):
        trace(network, (3, 4, 4))
    assert network.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
