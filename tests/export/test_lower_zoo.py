# SPDX-License-Identifier: Apache-2.0
"""Networks of many kinds: the integer graph is exact, or the operation is named."""

import re

import pytest
import torch
from tests.export.lowered import assert_equal_integers, images_like
from tests.networks.zoo import IMAGE, ZOO, make
from torch import nn
from torch.nn import functional as F

from bitscout.core import QuantPolicy
from bitscout.errors import UnsupportedError
from bitscout.export.lowering import lower
from bitscout.quantization import layer_names, post_training_quantize

NO_INTEGER_FORM = {
    "squeeze-excitation": "`silu` in SiLU 'stem.2'",
    "stochastic-depth": "`mul` in StochasticBlock 'blocks.1'.*scales by 0.9",
    "shuffle": "`chunk` in ShuffleUnit 'stage.0'",
    "ghost": "`getitem` in GhostModule 'ghosts.0'",
    "cross-stage": "`leaky_relu` in LeakyReLU 'stem.2'",
    "dual-path": "`getitem` in DualPathBlock 'layers.0'",
    "mlp": "`tanh` in Mlp",
    "functional": "`gelu` in FunctionalActivations",
    "modules": "`add` in HardSwish 'layers.2'.*adds a number",
    "transformer": "`flatten` in Transformer",
    "up-and-down": "`interpolate` in UpAndDown",
}


def quantized(net, x, bits=8):
    policy = QuantPolicy.uniform(layer_names(net, x[:2]), bits)
    return post_training_quantize(net, policy, x).eval()


def trained(module, x):
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    return module.eval()


@pytest.mark.parametrize("name", [name for name in ZOO if name not in NO_INTEGER_FORM])
def test_a_fine_tuned_network_equals_its_integers(name):
    x = images_like(IMAGE, 8)
    assert_equal_integers(trained(quantized(make(name), x, 4), x), x)


@pytest.mark.parametrize("name", NO_INTEGER_FORM)
def test_what_has_no_integer_form_is_named_with_its_line(name):
    x = images_like(IMAGE)
    with pytest.raises(UnsupportedError, match=NO_INTEGER_FORM[name]) as caught:
        lower(quantized(make(name), x), x)
    if "Transformer" not in NO_INTEGER_FORM[name]:
        assert re.search(r"\(\S*zoo\w*\.py:\d+\)", str(caught.value))


class Ending(nn.Module):
    """A function between the map of a convolution and a linear layer."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.function = function
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.function(self.conv(x), self.other(x)))


def changed_by_another_name(a, b):
    total = a
    total.add_(b)
    return a.mean((2, 3))


ENDINGS = {
    "mean in two steps": lambda a, b: a.mean(3).mean(2),
    "mean in two steps, kept": lambda a, b: a.mean(2, True).mean(3, keepdim=True).flatten(1),
    "mean from behind": lambda a, b: torch.mean(a, dim=(-1, -2)),
    "squeezed twice": lambda a, b: F.adaptive_avg_pool2d(a, 1).squeeze(-1).squeeze(-1),
    "picked": lambda a, b: F.avg_pool2d(a, a.shape[2:])[:, :, 0, 0],
    "half": lambda a, b: (0.5 * a + b / 4).mean((2, 3)),
    "rectified sum": lambda a, b: F.relu(F.relu6(a) + b).mean((2, 3)),
    "sum of three": lambda a, b: (a + b + a).mean((2, 3)),
    "sum in place": lambda a, b: a.clone().add_(b).mean((2, 3)),
    "sum under another name": changed_by_another_name,
    "python's sum": lambda a, b: sum([a, b]).mean((2, 3)),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_functions_that_quantized_modules_replace_equal_their_integers(name):
    net, x = Ending(ENDINGS[name]).eval(), images_like(IMAGE)
    real, module = net(x), quantized(net, x)
    assert_equal_integers(module, x)
    assert (module(x) - real).abs().max() < 0.05 * real.abs().max()


def test_parts_of_a_map_are_refused():
    net = Ending(lambda a, b: (a + b)[:, :, 1, 1])
    x = images_like(IMAGE)
    with pytest.raises(UnsupportedError, match="takes a part of a tensor"):
        lower(quantized(net, x), x)


def test_a_layer_that_runs_twice_is_refused_and_a_pool_is_not():
    class Twice(nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), pool
            self.head = nn.Linear(3 * 2 * 2, 2)

        def forward(self, x):
            x = self.pool(self.conv(x))
            is_pooled = type(self.pool) is not nn.Identity
            x = self.pool(x) if is_pooled else F.max_pool2d(self.conv(x), 4)
            return self.head(x.flatten(1))

    x = images_like(IMAGE)
    lowered = assert_equal_integers(quantized(Twice(nn.AvgPool2d(2)), x), x)
    assert set(lowered.reads) == {"conv", "head"}
    with pytest.raises(UnsupportedError, match=r"'conv'.*runs several times"):
        lower(quantized(Twice(nn.Identity()), x), x)
