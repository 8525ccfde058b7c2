# SPDX-License-Identifier: Apache-2.0
"""Functions in a network's own code, sent to quantized modules while it runs."""

import copy

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bitscout.core import QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.quantization import (
    Add,
    QuantAdd,
    QuantAvgPool,
    QuantModule,
    layer_names,
    post_training_quantize,
    prepare,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return net.eval()


def quantized(net, x, bits=8):
    return post_training_quantize(net, QuantPolicy.uniform(layer_names(net, x), bits), x)


class WithModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.act = nn.Linear(4, 3), nn.ReLU()
        self.add, self.pool = Add(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.act(self.stem(x))
        return self.head(self.pool(self.add(self.body(x), x)).flatten(1))


class WithFunctions(WithModules):
    def forward(self, x):
        x = self.act(self.stem(x))
        out = self.body(x)
        out += x
        return self.head(out.mean((2, 3)))


def test_functions_compute_exactly_what_modules_do_with_the_same_gradients():
    x = randn(16, 3, 6, 6)
    results = []
    for kind in (WithModules, WithFunctions):
        net = quantized(seeded(kind()), x, 4).train()
        net(x).square().sum().backward()
        results.append((net(x), net.stem.weight.grad, net.body.weight.grad, net.head.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_paths_of_the_network_stay_and_new_modules_hang_below_the_root():
    net = quantized(seeded(WithFunctions()), randn(8, 3, 6, 6))
    new = {path: type(m) for path, m in net.named_modules() if path.startswith("function_sites.")}
    assert new["function_sites.add"] is QuantAdd
    assert new["function_sites.pool"] is QuantAvgPool
    before = {path for path, _ in WithFunctions().named_modules()}
    after = {path for path, m in net.named_modules() if not path.startswith("function_sites")}
    assert before <= after


def test_a_copy_has_sites_of_its_own():
    net, x = quantized(seeded(WithFunctions()), randn(8, 3, 6, 6)), randn(8, 3, 6, 6)
    other, y = copy.deepcopy(net), net(x)
    other.function_sites.add.a_quantizer.scale.mul_(8)
    other.function_sites.add.a_quantizer._refresh()
    assert not torch.equal(other(x), y)
    assert torch.equal(net(x), y)


class Branching(nn.Module):
    """Other sums in training, and as many as the image's size wants."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        if self.training:
            a = a * 0.5 + b * 0.5
        for _ in range(x.shape[2] - 5):
            a = a + b
        return a - b


def test_a_sum_is_known_by_its_line_and_its_turn():
    net = quantized(seeded(Branching()), randn(8, 3, 7, 7))
    ran = []
    for name, module in net.function_sites.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    net(randn(1, 3, 7, 7))
    net.train()(randn(1, 3, 7, 7))  # The line for training alone is not quantized.
    net(randn(1, 3, 8, 8))  # One turn more: not known, so not quantized.
    assert ran == ["add", "add_2"] * 3


class Nested(nn.Module):
    """A module with a sum of its own, called between two sums of the root's, on one line."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))
        self.inner = Inner()

    def forward(self, x):
        return self.convs[0](x) + x + self.inner(self.convs[1](x) + x)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x) + x


def test_sums_of_an_inner_module_are_its_own():
    net = quantized(seeded(Nested()), randn(8, 3, 4, 4))
    names = [m.name for m in net.function_sites.children()]
    assert sorted(names) == ["add", "add_2", "add_3", "inner.add"]
    ran = []
    for module in net.function_sites.children():
        module.register_forward_hook(lambda m, *_: ran.append(m.name))
    net(randn(1, 3, 4, 4))
    assert sorted(ran) == sorted(names)


def test_a_failed_pass_leaves_nothing_behind():
    net, x = quantized(seeded(WithFunctions()), randn(8, 3, 6, 6)), randn(8, 3, 6, 6)
    y = net(x)
    with pytest.raises(RuntimeError):
        net(randn(1, 5, 6, 6))
    assert torch._C._len_torch_function_stack() == 0
    assert torch.equal(net(x), y)


def test_a_part_that_runs_alone_is_quantized_too():
    net = quantized(seeded(Nested()), randn(8, 3, 4, 4))
    ran = []
    net.function_sites.inner_add.register_forward_hook(lambda *_: ran.append(1))
    net.inner(randn(1, 3, 4, 4))
    assert ran == [1]
    assert torch._C._len_torch_function_stack() == 0


def test_a_quantized_module_hides_what_it_does_from_those_who_watch():
    class Watcher(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    seen = []
    net = quantized(seeded(nn.Sequential(nn.Conv2d(3, 3, 1))), randn(8, 3, 4, 4))
    with Watcher():
        net(randn(1, 3, 4, 4))
    assert "conv2d" not in seen


class ResidualSequence(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def test_sequences_may_have_sums_and_be_roots():
    blocks = [ResidualSequence(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(2)]
    for net in (nn.Sequential(*blocks), ResidualSequence(*blocks)):
        x = randn(8, 3, 4, 4)
        real = seeded(net)(x)
        result = quantized(net, x)
        assert sum(isinstance(m, QuantAdd) for m in result.modules()) >= 2
        assert (result(x) - real).abs().max() < 0.05 * real.abs().max()


class Collecting(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        results = []
        for child in self.children():
            results.append(child(x))
        return results[0] + results[-1]


def test_a_network_that_loops_over_its_children_is_refused():
    with pytest.raises(UnsupportedError, match="loop over their own children"):
        quantized(seeded(Collecting()), randn(8, 3, 4, 4))


class UnderAnotherName(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        first = self.a(x)
        total = first
        total += self.b(x)
        return first


def test_a_tensor_that_a_sum_changes_in_place_is_changed():
    net, x = seeded(UnderAnotherName()), randn(8, 3, 4, 4)
    result = quantized(net, x)
    assert (result(x) - net(x)).abs().max() < 0.03 * net(x).abs().max()
    result(x).sum().backward()
    assert result.b.weight.grad is not None


class AtRandom(Branching):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


def test_a_network_that_draws_at_random_in_evaluation_is_prepared():
    net = prepare(seeded(AtRandom()), QuantPolicy.uniform(["a", "b"], 8), randn(2, 3, 7, 7))
    assert sum(isinstance(m, QuantModule) for m in net.modules()) == 4


def test_sums_with_constants_and_of_tokens_stay_real():
    class Constants(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.shift = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            y = self.linear(x) + 3
            return y + self.shift + torch.ones(y.shape) + (x if x.dim() == 3 else 0)

    for shape in ((8, 5, 4), (8, 4)):
        net = quantized(seeded(Constants()), randn(*shape))
        kinds = [type(m).__name__ for m in net.modules() if isinstance(m, QuantModule)]
        assert kinds == ["QuantLinear"]
