"""The table of many networks says what describing each of them says."""

import numpy as np
import pytest

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError
from bitscout.space import ADD, CONV, DEPTHWISE, LINEAR, BompSpace

SPACES = {
    "cifar10": BompSpace(),
    "cifar100": BompSpace(widths="cifar100", n_classes=100),
    "thin": BompSpace(channel_divisor=1, input_shape=(1, 8, 8)),
    "fixed lists": BompSpace(bits=(8,), kernels=(3,), expansions=(2,), repetitions=(1, 2)),
    "not square": BompSpace(input_shape=(3, 30, 17), act_bits=4),
}
# Small enough to build every network there is.
TINY = BompSpace(
    input_shape=(2, 9, 9),
    n_classes=3,
    widths=(0.1, 0.5),
    kernels=(2, 3),
    expansions=(1,),
    repetitions=(0, 2),
    filters=(16, 24),
    bits=(4,),
)


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
    attributes = table.attributes()
    for i, row in enumerate(rows):
        values, n = space.decode(row), table.n_layers[i]
        graph, policy = space.layers(values), space.policy(values)
        assert attributes[i, :n].tolist() == list(layers_of(space, values))
        assert table.skips[i, : table.n_skips[i]].tolist() == list(skips_of(space, values))
        assert table.layers[i, :n].table.tolist() == LayerArrays.of(graph).table.tolist()
        bits = [policy[name] for name in graph.names]
        assert table.weight_bits[i, :n].tolist() == [b.weight_bits for b in bits]
        assert table.act_bits[i, :n].tolist() == [b.act_bits for b in bits]
        assert table.present[i].sum() == n == len(graph)


def test_no_networks_give_an_empty_table():
    table = SPACES["cifar10"].tabulate(np.zeros((0, 49), dtype=int))
    assert len(table.layers) == len(table.n_layers) == len(table.skips) == len(table.n_skips) == 0


def test_indices_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="must be in"):
        SPACES["cifar10"].tabulate(np.full((1, 49), 99))


def as_set(layers):
    return set(map(tuple, layers.table.tolist()))


@pytest.mark.parametrize("name", SPACES)
def test_variants_hold_every_layer_of_random_networks(name):
    space = SPACES[name]
    table = space.tabulate(space.sample_indices(np.random.default_rng(1), 300))
    variants = space.layer_variants()
    assert as_set(table.layers[table.present]) <= as_set(variants.layers)
    assert len(as_set(variants.layers)) == len(variants.layers)
    assert set(table.weight_bits[table.present].tolist()) <= set(variants.weight_bits)
    assert set(table.act_bits[table.present].tolist()) == set(variants.act_bits)


def test_variants_are_exactly_the_layers_of_all_networks():
    lengths = [len(choice.values) for choice in TINY.choices]
    every = np.stack(np.unravel_index(np.arange(np.prod(lengths)), lengths), axis=1)
    rows = np.unique(TINY.canonical_indices(every[:: max(1, len(every) // 200_000)]), axis=0)
    table = TINY.tabulate(rows)
    assert as_set(TINY.layer_variants().layers) == as_set(table.layers[table.present])
