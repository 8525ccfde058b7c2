# SPDX-License-Identifier: Apache-2.0
"""Building networks: names, initial weights, seeds, and the global random state."""

import numpy as np
import pytest
import torch
from torch import nn

from bitscout.errors import UnsupportedError
from bitscout.networks import build_network
from bitscout.quantization import Add
from bitscout.space import BompSpace

SPACE = BompSpace(input_shape=(3, 8, 8))
SPEC = SPACE.architecture(SPACE.seed_values())


def weights(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def test_module_paths_are_layer_names_in_order():
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = SPACE.sample(rng)
        network = build_network(SPACE.architecture(values), generator_seed=0)
        kinds = nn.Conv2d | nn.Linear
        names = [name for name, part in network.named_modules() if isinstance(part, kinds)]
        assert tuple(names) == SPACE.layers(values).names
        n_adds = sum(node.op == "add" for node in SPACE.layers(values).nodes)
        assert sum(isinstance(part, Add) for part in network.modules()) == n_adds


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
def test_output_has_one_number_per_class(size):
    space = BompSpace(input_shape=(1, *size), n_classes=7)
    spec = space.architecture(space.sample(np.random.default_rng(1)))
    network = build_network(spec, generator_seed=0).eval()
    assert network(torch.zeros(3, 1, *size)).shape == (3, 7)


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    same = [weights(build_network(SPEC, generator_seed=2**62 + 1)) for _ in range(2)]
    torch.testing.assert_close(*same, rtol=0, atol=0)
    assert not torch.equal(same[0], weights(build_network(SPEC, generator_seed=0)))


def test_the_global_random_state_neither_matters_nor_changes():
    before = torch.get_rng_state()
    first = weights(build_network(SPEC, generator_seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    torch.testing.assert_close(weights(build_network(SPEC, generator_seed=1)), first)


def test_initial_weights_have_the_announced_spread():
    space = BompSpace(widths="cifar100", n_classes=100)
    network = build_network(space.architecture(space.seed_values()), generator_seed=0)
    for name, part in network.named_modules():
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        fan_out = 9 if part.weight.shape[1] == 1 else part.weight[:, 0].numel()
        std = 0.01 if name == "classifier" else (2 / fan_out) ** 0.5
        # The relative standard error of a standard deviation is 1 / sqrt(2 n).
        tolerance = 5 / (2 * part.weight.numel()) ** 0.5
        assert part.weight.std().item() == pytest.approx(std, rel=tolerance)
        assert part.bias is None or not part.bias.any()


def test_batch_norm_starts_as_identity():
    norms = [m for m in build_network(SPEC, generator_seed=0).modules() if _is_norm(m)]
    assert len(norms) == 52
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def _is_norm(module):
    return isinstance(module, nn.BatchNorm2d)


def test_activations_do_not_overwrite_what_hooks_may_hold():
    network = build_network(SPEC, generator_seed=0)
    assert not any(part.inplace for part in network.modules() if isinstance(part, nn.ReLU6))


def test_every_parameter_gets_a_gradient():
    network = build_network(SPEC, generator_seed=0)
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network(x).square().sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []


def test_an_unknown_specification_is_rejected_with_what_is_known():
    with pytest.raises(
        UnsupportedError, match=r"from a dict; known: MobileNetSpec, ModelArchitecture\."
    ):
        build_network({}, generator_seed=0)
