# SPDX-License-Identifier: Apache-2.0
"""Any network in, the same network fake-quantized out; what is refused, by name."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.quantization import (
    ActivationQuantizer,
    Add,
    MaxAbsObserver,
    QuantAdd,
    QuantAvgPool,
    QuantConfig,
    QuantConv2d,
    QuantLinear,
    calibrate,
    layer_names,
    parameter_groups,
    post_training_quantize,
    prepare,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    def __init__(self, act=nn.ReLU6):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.act = act()
        self.body = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 2, groups=8), nn.BatchNorm2d(8), act()
        )
        self.project = nn.Conv2d(8, 8, 1)
        self.add = Add()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.add(x, self.project(self.body(x)))
        return self.head(self.pool(x).flatten(1))


class ThirdParty(nn.Module):
    """Functional activations, one activation for all, arbitrary names, nested containers."""

    def __init__(self):
        super().__init__()
        self.Conv_A = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.inner = nn.ModuleDict({"x y": nn.Sequential(nn.Sequential(nn.Conv2d(6, 6, 1)))})
        self.act = nn.ReLU(inplace=True)
        self.head = nn.ModuleList([nn.Linear(6, 4)])

    def forward(self, x):
        x = self.act(self.Conv_A(x))
        x = F.relu(self.inner["x y"](x)) + x
        return self.head[0](self.act(x.mean((2, 3))))


def seed_parameters(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return net.eval()


def quantized(net, x, bits=8, **config):
    policy = QuantPolicy.uniform(layer_names(net), bits)
    return post_training_quantize(net, policy, x, QuantConfig(**config))


@pytest.mark.parametrize("build", [Residual, lambda: Residual(nn.ReLU), ThirdParty])
def test_eight_bits_stay_close_to_the_real_network(build):
    net, x = seed_parameters(build()), randn(32, 3, 8, 8)
    real = net(x)
    # Each of at most 7 quantizers adds an error of about half an 8-bit step, 0.4 % of the range.
    assert (quantized(net, x)(x) - real).abs().max() < 7 * 0.004 * 2 * real.abs().max()


@pytest.mark.parametrize("build", [Residual, ThirdParty])
def test_more_bits_are_closer(build):
    net, x = seed_parameters(build()), randn(32, 3, 8, 8)
    errors = [(quantized(net, x, bits)(x) - net(x)).square().mean() for bits in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def test_every_operation_of_ours_is_replaced_under_its_own_name():
    net = prepare(
        seed_parameters(Residual()),
        QuantPolicy.uniform(["stem.0", "body.1", "project", "head"], 4),
        randn(1, 3, 8, 8),
    )
    kinds = {name: type(child) for name, child in net.named_modules()}
    assert kinds["stem.0"] is kinds["body.1"] is kinds["project"] is QuantConv2d
    assert kinds["head"] is QuantLinear
    assert kinds["add"] is QuantAdd
    assert kinds["pool"] is QuantAvgPool
    assert kinds["stem.1"] is kinds["act"] is kinds["body.3"] is nn.Identity


def test_lone_linear_layer_is_named_by_the_empty_path():
    net, x = nn.Linear(4, 3), randn(16, 4)
    result = quantized(net, x)
    assert isinstance(result, QuantLinear)
    assert (result(x) - net(x)).abs().max() < 0.05
    assert layer_names(net) == [""]


def test_bits_of_every_layer_are_those_of_the_policy():
    net = seed_parameters(Residual())
    names = layer_names(net)
    policy = QuantPolicy({name: LayerBits(2 + i, 8 - i) for i, name in enumerate(names)})
    result = prepare(net, policy, randn(1, 3, 8, 8))
    for name, bits in policy.items():
        layer = result.get_submodule(name)
        assert layer.weight_quantizer.bit_width == bits.weight_bits
        assert layer.input_quantizer.bit_width == bits.act_bits


def test_original_is_left_untouched():
    net, x = seed_parameters(Residual()).train(), randn(8, 3, 8, 8)
    before = copy.deepcopy(net.state_dict())
    result = quantized(net, x)
    for parameter in result.parameters():
        parameter.data.add_(1.0)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert net.training
    assert type(net.head) is nn.Linear


def test_signs_follow_what_arrives():
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    result = quantized(net, x)
    signs = {
        name: child.is_signed
        for name, child in result.named_modules()
        if isinstance(child, ActivationQuantizer)
    }
    assert signs == {
        "stem.0.input_quantizer": True,
        "body.1.input_quantizer": False,
        "project.input_quantizer": False,
        "add.a_quantizer": False,
        "add.b_quantizer": True,
        "pool.input_quantizer": True,
        "head.input_quantizer": True,
    }
    assert not quantized(net, x.abs()).stem[0].input_quantizer.is_signed


class Hidden(Residual):
    """The same network with its activations as functions, which `prepare` cannot merge."""

    def __init__(self, act):
        super().__init__(act)
        self.function = F.relu if act is nn.ReLU else F.relu6
        self.body[3] = nn.Identity()
        del self.act

    def forward(self, x):
        x = self.function(self.stem(x))
        x = self.add(x, self.project(self.function(self.body(x))))
        return self.head(self.pool(x).flatten(1))


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("learn_act_steps", [False, True])
def test_merged_activations_change_neither_values_nor_gradients(act, learn_act_steps):
    x = 3 * randn(8, 3, 8, 8)

    def result(net):
        net = quantized(
            seed_parameters(net), x, 4, learn_act_steps=learn_act_steps, bias_correction=False
        )
        y = net(x)
        y.square().sum().backward()
        return y, {name: parameter.grad for name, parameter in net.named_parameters()}

    (y, gradients), (z, others) = result(Residual(act)), result(Hidden(act))
    torch.testing.assert_close(y, z, rtol=0, atol=0)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-6, atol=1e-6)


class Returned(nn.Module):
    """The ReLU's output is also the network's: it must stay."""

    def __init__(self):
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.act(self.a(x))
        return y, self.b(y)


class ReadByFunction(Returned):
    def forward(self, x):
        y = self.act(self.a(x))
        return self.b(y) * y.mean()


@pytest.mark.parametrize("build", [Returned, ReadByFunction])
def test_activation_that_something_else_reads_stays(build):
    net = seed_parameters(build())
    result = prepare(net, QuantPolicy.uniform(["a", "b"], 8), randn(2, 3, 4, 4))
    assert isinstance(result.act, nn.ReLU)


def test_policy_that_does_not_match_lists_the_names():
    net = seed_parameters(Residual())
    policy = QuantPolicy.uniform(["stem.0", "body.1", "projekt"], 4)
    with pytest.raises(PolicyError, match=r"left out: project, head; not in the network: projekt"):
        prepare(net, policy, randn(1, 3, 8, 8))


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(self.conv(x))


class ReusedAdd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.add = nn.Conv2d(3, 3, 1), Add()

    def forward(self, x):
        return self.add(self.add(self.conv(x), x), x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 2)), "'0' is a ConvTranspose2d.*upsampling"),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 3, 1)), "'1' is a Conv1d.*Use a Conv2d|Resh"),
    ],
)
def test_unsupported_networks_are_refused_by_name(net, message):
    policy = QuantPolicy.uniform(layer_names(net), 8)
    with pytest.raises(UnsupportedError, match=message):
        prepare(net, policy, randn(2, 3, 4, 4))


def test_layer_that_never_runs_has_no_place_in_a_policy():
    class Unused(Reused):
        def forward(self, x):
            return self.conv(x)

    net, x = Unused(), randn(2, 3, 4, 4)
    assert layer_names(net) == ["conv", "unused"]
    assert layer_names(net, x) == ["conv"]
    result = prepare(net, QuantPolicy.uniform(["conv"], 8), x)
    assert type(result.unused) is nn.Conv2d
    with pytest.raises(PolicyError, match="not in the network: unused"):
        prepare(net, QuantPolicy.uniform(["conv", "unused"], 8), x)


def test_quantized_network_is_not_quantized_again():
    net, x = seed_parameters(Residual()), randn(4, 3, 8, 8)
    with pytest.raises(UnsupportedError, match="quantized already"):
        quantized(quantized(net, x), x)


def test_uncalibrated_network_refuses_to_run():
    net = seed_parameters(Residual())
    result = prepare(net, QuantPolicy.uniform(layer_names(net), 8), randn(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="call `calibrate` first"):
        result(randn(1, 3, 8, 8))


@pytest.mark.parametrize("learn", [False, True])
def test_state_dict_round_trip_into_an_uncalibrated_network(learn):
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    config = QuantConfig(learn_weight_steps=learn, learn_act_steps=learn)
    policy = QuantPolicy.uniform(layer_names(net), 3, act_bits=5)
    calibrated = prepare(net, policy, x[:1], config)
    calibrate(calibrated, [x])
    fresh = prepare(seed_parameters(Residual(), seed=9), policy, x[:1], config)
    fresh.load_state_dict(calibrated.state_dict())
    torch.testing.assert_close(fresh(x), calibrated(x), rtol=0, atol=0)
    fresh(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fresh.parameters())


def test_deep_copy_is_independent_and_equal():
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    first = quantized(net, x, 4)
    second = copy.deepcopy(first)
    torch.testing.assert_close(second(x), first(x), rtol=0, atol=0)
    second.head.weight.data.zero_()
    assert first.head.weight.abs().max() > 0


def test_batch_equals_loop_over_images():
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    result = quantized(net, x, 4)
    alone = torch.cat([result(image[None]) for image in x])
    # Float32 sums in another order; a code can only flip at an exact tie.
    torch.testing.assert_close(result(x), alone, rtol=1e-5, atol=1e-5)


def test_same_inputs_give_the_same_network_twice():
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    first, second = quantized(net, x, 3).state_dict(), quantized(net, x, 3).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_autocast_does_not_move_values_off_the_grid():
    net, x = seed_parameters(Residual()), randn(4, 3, 8, 8)
    result = quantized(net, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = result(x)
    torch.testing.assert_close(y, result(x), rtol=0, atol=0)


def test_parameter_groups_decay_weights_only():
    net, x = seed_parameters(Residual()), randn(4, 3, 8, 8)
    result = quantized(net, x, learn_weight_steps=True, learn_act_steps=True)
    weights, others = parameter_groups(result)
    names = {id(parameter): name for name, parameter in result.named_parameters()}
    assert {names[id(p)].rsplit(".")[-1] for p in weights} == {"weight"}
    assert {names[id(p)].rsplit(".")[-1] for p in others} == {"bias", "scale"}
    assert len(weights) + len(others) == len(names)


@pytest.mark.parametrize("learn_weight_steps", [False, True])
@pytest.mark.parametrize("learn_act_steps", [False, True])
def test_fine_tuning_lowers_the_loss(learn_weight_steps, learn_act_steps):
    net, x = seed_parameters(Residual()), randn(16, 3, 8, 8)
    target = net(x).detach()
    config = QuantConfig(
        weight_observer=MaxAbsObserver(),  # A poor start, so that there is something to learn.
        bias_correction=False,
        learn_weight_steps=learn_weight_steps,
        learn_act_steps=learn_act_steps,
    )
    policy = QuantPolicy.uniform(layer_names(net), 3)
    result = post_training_quantize(net, policy, x, config).train()
    optimizer = torch.optim.Adam(result.parameters(), lr=5e-4)
    losses = []
    for _ in range(45):
        loss = F.mse_loss(result(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]
