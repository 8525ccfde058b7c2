"""The table of many networks says what describing each of them says."""

import numpy as np
import pytest

from bitscout.errors import ConfigError
from bitscout.space import ADD, CONV, DEPTHWISE, LINEAR, BompSpace

SPACES = {
    "cifar10": BompSpace(),
    "cifar100": BompSpace(widths="cifar100", n_classes=100),
    "thin": BompSpace(channel_divisor=1, input_shape=(1, 8, 8)),
    "fixed lists": BompSpace(bits=(8,), kernels=(3,), expansions=(2,), repetitions=(1, 2)),
}


def layers_of(space, values):
    policy = space.policy(values)
    for layer in space.layers(values):
        kind = DEPTHWISE if layer.is_depthwise else CONV if layer.kind == "conv" else LINEAR
        bits = policy[layer.name].weight_bits
        yield [kind, layer.out_channels, layer.kernel[0], layer.stride[0], bits]


def skips_of(space, values):
    """Follow the graph: the number of layers between the input and each node."""
    depth = {}
    for node in space.layers(values).nodes:
        before = [depth[name] for name in node.inputs]
        depth[node.name] = max(before, default=0) + (node.op in ("conv", "linear"))
        if node.op == "add":
            yield [min(before), max(before) - min(before), ADD]


@pytest.mark.parametrize("name", SPACES)
def test_table_equals_the_layers_of_every_network(name):
    space = SPACES[name]
    rows = np.vstack([space.seed_indices(), space.sample_indices(np.random.default_rng(0), 60)])
    table = space.tabulate(rows)
    for i, row in enumerate(rows):
        values = space.decode(row)
        assert table.layers[i, : table.n_layers[i]].tolist() == list(layers_of(space, values))
        assert table.skips[i, : table.n_skips[i]].tolist() == list(skips_of(space, values))


def test_no_networks_give_an_empty_table():
    table = SPACES["cifar10"].tabulate(np.zeros((0, 49), dtype=int))
    assert len(table.layers) == len(table.n_layers) == len(table.skips) == len(table.n_skips) == 0


def test_indices_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="must be in"):
        SPACES["cifar10"].tabulate(np.full((1, 49), 99))
