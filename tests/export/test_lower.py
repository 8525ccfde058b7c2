"""The integer graph against the fake-quantized network it was lowered from."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.export.lowered import (
    assert_equal_integers,
    images_like,
    quantized,
    random_policy,
)
from tests.export.random_modules import RandomNet
from torch import nn
from torch.nn import functional as F

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.lowering import lower
from bitscout.export.packed_structure import is_same
from bitscout.export.reference import Reference
from bitscout.networks import build_network, resnet
from bitscout.quantization import Add, layer_names
from bitscout.space import BompSpace

SEEDS = st.integers(0, 2**20)
RANDOM = settings(
    max_examples=15, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@RANDOM
@given(SEEDS)
def test_random_networks_equal_their_integers_in_float32(seed):
    net = RandomNet(seed)
    x = images_like(net.image_shape, seed=seed)
    module = quantized(net, x, seed, add_bits=2 + seed % 7, pool_bits=8 - seed % 7)
    lowered = assert_equal_integers(module, x)
    assume(not rounded_in_float32(lowered.graph))
    np.testing.assert_array_equal(
        lowered.graph.scores(Reference(lowered.graph).run(x.numpy())), module(x).detach().numpy()
    )


@RANDOM
@given(SEEDS)
def test_random_networks_with_any_steps_equal_their_integers_in_float64(seed):
    net = RandomNet(seed, functional=True)
    x = images_like(net.image_shape, seed=seed)
    module = quantized(net, x, seed, exact_steps=False).double()
    try:
        assert_equal_integers(module, x.double())
    except UnsupportedError:
        assume(False)


@RANDOM
@given(SEEDS)
def test_functions_on_real_tensors_equal_their_integers_where_float32_is_exact(seed):
    net = RandomNet(seed, functional=True)
    x = images_like(net.image_shape, seed=seed)
    module = quantized(net, x, seed)
    try:
        graph = lower(module, x)
    except UnsupportedError:
        assume(False)
    assume(not rounded_in_float32(graph))
    assert_equal_integers(module, x)


@pytest.mark.parametrize("seed", range(3))
def test_candidates_of_the_search_space_equal_their_integers(seed):
    space = BompSpace()
    values = space.sample(np.random.default_rng(seed))
    net = build_network(space.architecture(values), generator_seed=seed)
    x = images_like((3, 32, 32), 8, seed)
    assert_equal_integers(quantized(net, x, policy=space.policy(values)), x)


@pytest.mark.parametrize("act_bits", [2, 8])
def test_residual_networks_equal_their_integers(act_bits):
    net = resnet(depth=8, n_classes=10, in_channels=3, base_width=8, generator_seed=1)
    x = images_like((3, 16, 16), 32)
    module = quantized(net, x, policy=random_policy(net, 1, high=act_bits))
    lowered = assert_equal_integers(module, x)
    assert rounded_in_float32(lowered.graph) == ()


@pytest.mark.parametrize("widths", [(4, 8, 16), (4, 6, 12)])
def test_shortcuts_without_parameters_equal_their_integers(widths):
    net = resnet(depth=8, base_width=4, shortcut="padding", generator_seed=2)
    for stage, inputs, outputs in zip((net.stage2, net.stage3), widths, widths[1:], strict=False):
        stage[0].first.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        stage[0].first.norm = nn.BatchNorm2d(outputs)
        stage[0].second.conv = nn.Conv2d(outputs, outputs, 3, 1, 1)
        stage[0].second.norm = nn.BatchNorm2d(outputs)
    net.classifier = nn.Linear(widths[-1], 5)
    x = images_like((3, 16, 16), 32)
    lowered = assert_equal_integers(quantized(net.eval(), x), x)
    added = [op for op in lowered.graph if op.kind == "pad_channels"]
    assert [op.shape[0] for op in added] == list(widths[1:])
    # No weight is there that the network does not have.
    assert sum(op.weight.size for op in lowered.graph.layers) == sum(
        part.weight.numel() for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)
    )


class Padding(nn.Module):
    """Pads what a convolution of 3 channels gives."""

    def __init__(self, pad, **options):
        super().__init__()
        self.conv, self.pad, self.options = nn.Conv2d(2, 3, 1), pad, options

    def forward(self, x):
        return F.pad(self.conv(x).relu(), self.pad, **self.options)


@pytest.mark.parametrize(("pad", "kinds"), [((0,) * 6, 0), ((0, 0, 0, 0, 1, 0), 1)])
def test_channels_of_zeros_may_come_first_and_no_channel_is_no_operation(pad, kinds):
    x = images_like((2, 4, 4), 16)
    module = nn.Sequential(Padding(pad), nn.Conv2d(3 + kinds, 2, 1)).eval()
    lowered = assert_equal_integers(quantized(module, x), x)
    assert sum(op.kind == "pad_channels" for op in lowered.graph) == kinds


@pytest.mark.parametrize(
    ("pad", "options", "message"),
    [
        ((0, 0, 0, 0, 0, 1), {"value": 1.0}, "pads with something else than zeros"),
        ((0, 0, 0, 0, 0, -1), {}, "pads with something else than zeros"),
        ((1, 1, 0, 0, 0, 1), {}, "pads pixels and channels at once. Pad one behind the other"),
        ((0, 0, 0, 0, 0, 1), {}, "reads a tensor with more channels that nothing has quantized"),
    ],
)
def test_other_padding_is_refused(pad, options, message):
    x = images_like((2, 4, 4), 16)
    with pytest.raises(UnsupportedError, match=message):
        lower(quantized(Padding(pad, **options).eval(), x), x)


def trained(module, x):
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    return module.eval()


def test_learned_steps_equal_their_integers_after_training():
    net = resnet(depth=8, n_classes=5, in_channels=3, base_width=4, generator_seed=1)
    x = images_like((3, 8, 8), 16)
    module = quantized(net, x, learn_weight_steps=True, learn_act_steps=True, exact_steps=False)
    before = lower(module, x).layers[0].weight_scale
    module = trained(module, x).double()
    assert (lower(module, x.double()).layers[0].weight_scale != before).any()
    assert_equal_integers(module, x.double())


def test_fine_tuned_weights_equal_their_integers():
    net = resnet(depth=8, n_classes=5, in_channels=3, base_width=4, generator_seed=1)
    x = images_like((3, 8, 8), 16)
    assert_equal_integers(trained(quantized(net, x), x), x)


class Joining(nn.Module):
    """Two convolutions, and a last layer that reads what a function makes of their results."""

    def __init__(self, join, last):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(2))
        self.join = join
        self.last = last

    def forward(self, x):
        return self.last(self.join(*[conv(x) for conv in self.convs]))


LONE = {
    "convolution": (nn.Conv2d(3, 4, 3, padding=1), (3, 5, 6)),
    "linear": (nn.Linear(6, 4), (6,)),
    "linears": (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), (6,)),
    "relu last": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 5, 5)),
    "pool last": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2, ceil_mode=True)), (3, 5, 5)),
    "max pool last": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (3, 6, 6)),
    "upsampling": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3)), (3, 3, 3)),
    "sum by keyword": (
        Joining(lambda a, b: torch.add(a, other=b), nn.Conv2d(4, 3, 1)),
        (3, 5, 5),
    ),
    "sum by two keywords": (
        Joining(lambda a, b: torch.add(input=a, other=b), nn.Conv2d(4, 3, 1)),
        (3, 5, 5),
    ),
    "padding": (nn.Sequential(nn.ZeroPad2d((1, 0, 2, 0)), nn.Conv2d(3, 4, 3)), (3, 5, 5)),
    "padding behind a relu": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ZeroPad2d(1), nn.ReLU6(), nn.Conv2d(3, 4, 3)),
        (3, 5, 5),
    ),
}


@pytest.mark.parametrize("name", LONE)
def test_small_networks_equal_their_integers(name):
    net, shape = copy.deepcopy(LONE[name])
    x = images_like(shape)
    module = quantized(net, x, exact_steps=False).double()
    lowered = assert_equal_integers(module, x.double())
    assert lowered.graph[lowered.graph.output].shape == tuple(module(x[:1].double()).shape[1:])


def pooled(x):
    return F.max_pool2d(x, 2, 1)


CLAMPED_PARTS = {
    "pooled ReLU": lambda a, b: (pooled(F.relu(a)), pooled(b)),
    "pooled ReLU6": lambda a, b: (pooled(F.relu6(a)), pooled(b)),
    "pooled clamp": lambda a, b: (pooled(a.clamp(-0.1, 0.2)), pooled(b)),
    "pooled twice": lambda a, b: (pooled(pooled(F.relu(a))), pooled(pooled(b))),
    "ReLU of a pooled clamp": lambda a, b: (F.relu(pooled(a.clamp(-0.1, 0.2))), pooled(b)),
    "clamp of a pooled ReLU": lambda a, b: (pooled(F.relu(a)).clamp(-0.1, 0.2), pooled(b)),
    "flat ReLU": lambda a, b: (F.relu(a).flatten(1), b.flatten(1)),
    "flat pooled ReLU": lambda a, b: (pooled(F.relu(a)).flatten(1), b.flatten(1)),
    "joined ReLU": lambda a, b: (torch.cat([pooled(F.relu(a)), pooled(a)], 1), pooled(b)),
}


@pytest.mark.parametrize("name", CLAMPED_PARTS)
def test_parts_of_a_concatenation_share_its_grid(name):
    parts = CLAMPED_PARTS[name]
    x = images_like((3, 5, 5))
    y = torch.cat(parts(*[torch.zeros(1, 4, 5, 5)] * 2), 1)
    last = nn.Conv2d(y.shape[1], 3, 1) if y.ndim == 4 else nn.Linear(y.shape[1], 3)
    net = Joining(lambda a, b: torch.cat(parts(a, b), 1), last)
    module = quantized(net, x, exact_steps=False).double()
    graph = assert_equal_integers(module, x.double()).graph
    concats = [op for op in graph if op.kind == "concat"]
    assert concats
    for concat in concats:
        assert concat.grid.is_signed
        for part in concat.inputs:
            assert is_same(graph[part].grid, concat.grid)


class Branches(nn.Module):
    """What torch.fx cannot trace: Python that depends on shapes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.blocks[1].weight = self.blocks[0].weight
        self.add = Add()

    def forward(self, x):
        y = self.add(F.relu(self.first(x)), self.second(x))
        if y.shape[2] % 2 == 0:
            y = F.max_pool2d(y, 2)
        for block in self.blocks:
            while y.shape[-1] > 3:
                y = F.max_pool2d(y, 2)
            y = block(y)
        return y.mean((-1, -2)) if len(y) else y


def test_python_that_branches_on_shapes_is_followed():
    x = images_like((3, 8, 8))
    lowered = assert_equal_integers(quantized(Branches(), x), x)
    assert sum(op.kind == "max_pool" for op in lowered.graph) == 2


def test_an_input_read_with_different_widths_is_quantized_for_each():
    x = images_like((3, 8, 8))
    bits = {"first": (4, 3), "second": (4, 7), "blocks.0": (2, 2), "blocks.1": (8, 8)}
    policy = QuantPolicy({name: LayerBits(*pair) for name, pair in bits.items()})
    lowered = assert_equal_integers(quantized(Branches(), x, policy=policy), x)
    assert [op.grid.bit_width for op in lowered.graph.inputs] == [3, 7]


def test_results_of_one_layer_are_quantized_once_for_readers_with_the_same_grid():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.add = Add()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.add(y, y)

    x = images_like((3, 4, 4))
    graph = assert_equal_integers(quantized(Twice(), x), x).graph
    assert [op.kind for op in graph] == ["input", "conv", "rescale", "rescale"]


def test_sizes_and_weights_are_those_of_the_policy():
    x = images_like((3, 8, 8))
    module = quantized(Branches(), x, seed=3)
    graph = lower(module, x)
    for layer in graph.layers:
        quant = module.get_submodule(layer.name)
        assert layer.weight_bits == quant.weight_quantizer.bit_width
        np.testing.assert_array_equal(layer.weight, quant.weight_codes())
    assert layer_names(Branches()) == [layer.name for layer in graph.layers]


def test_lowering_leaves_the_network_as_it_was():
    x = images_like((3, 8, 8))
    module = quantized(Branches(), x).train()
    state = copy.deepcopy(module.state_dict())
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    lower(module, x)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert hooks == [
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()
    ]


def test_lowering_works_inside_inference_mode_and_for_one_image():
    x = images_like((3, 8, 8))
    module = quantized(Branches(), x)
    with torch.inference_mode():
        inside = lower(module, x[:1])
    assert [op.name for op in inside] == [op.name for op in lower(module, x)]


def test_reads_name_the_codes_of_every_module():
    x = images_like((3, 8, 8))
    lowered = assert_equal_integers(quantized(Branches(), x), x)
    pool = "function_sites.pool"
    assert set(lowered.reads) == {"first", "second", "add", "blocks.0", "blocks.1", pool}
    assert [read.tensor for read in lowered.reads["add"]] == ["add.a", "add.b"]
    codes = lowered.graph[lowered.reads["blocks.1"][0].tensor].grid
    assert not codes.is_sums


def test_padding_in_front_of_a_convolution_is_its_own():
    net, shape = copy.deepcopy(LONE["padding"])
    x = images_like(shape)
    lowered = assert_equal_integers(quantized(net, x), x)
    assert lowered.graph.layers[0].pads == (2, 1, 0, 0)
    assert lowered.reads["1"][0].pads == (2, 1, 0, 0)
