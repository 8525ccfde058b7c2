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


class Call(nn.Module):
    """Applies a function to the output of a convolution."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x * torch.sigmoid(x), "Cannot trace `mul` in the Call: it has no place in"),
        (lambda x: x[:, :, ::2], "Cannot trace `__getitem__` in the Call"),
        (lambda x: F.conv2d(x, torch.ones(1, 3, 1, 1)), "is no Conv2d on"),
        (lambda x: x + 1, "Cannot trace `add` in the Call: it adds something else"),
        (lambda x: x + x.mean((2, 3), keepdim=True), "adds something else than two results"),
        (lambda x: x.mean(1), "Cannot trace `mean` in the Call: it does not pool over height"),
        (lambda x: torch.cat((x, x), 3), "joins something else than channels"),
        (lambda x: x.reshape(1, 3, -1), "reshapes to something else than"),
        (lambda x: x.chunk(3, 1)[0], "Cannot trace `chunk` in the Call: it gives several tensors"),
    ],
)
def test_what_the_graph_cannot_say_is_named(function, message):
    with pytest.raises(UnsupportedError, match=message):
        trace(Call(function), (3, 4, 4))


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (nn.Sequential(nn.BatchNorm2d(3)), (3, 4, 4), "`batch_norm` in BatchNorm2d '0': it does"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(3)),
            (3, 4, 4),
            "does not follow a layer directly",
        ),
        (nn.Sequential(nn.Conv1d(3, 3, 1)), (3, 4), "Cannot trace `conv1d` in Conv1d '0'"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 1)), (3, 4, 4), "`conv_transpose2d`"),
        (nn.Sequential(nn.Linear(4, 2)), (3, 4), "is no Conv2d on .* and no Linear on"),
        (nn.Sequential(nn.LSTM(4, 2)), (3, 4), "Cannot trace `lstm`"),
        (
            nn.Sequential(nn.Conv2d(3, 3, 1)),
            (1, 4, 4),
            r"not run on an input of shape \(1, 4, 4\)",
        ),
    ],
)
def test_unsupported_modules_are_named(network, shape, message):
    with pytest.raises(UnsupportedError, match=message):
        trace(network, shape)


def test_a_layer_used_twice_is_rejected():
    conv = nn.Conv2d(3, 3, 1)
    with pytest.raises(UnsupportedError, match="is called twice"):
        trace(nn.Sequential(conv, nn.ReLU(), conv), (3, 4, 4))


def test_a_failed_trace_leaves_no_hooks_behind():
    network = Call(lambda x: x * x)
    with pytest.raises(UnsupportedError):
        trace(network, (3, 4, 4))
    assert network.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
