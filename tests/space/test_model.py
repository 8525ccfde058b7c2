# SPDX-License-Identifier: Apache-2.0
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from tests.space.given import resnet20, two_branches

from bitscout.core import BIAS_BITS, Layer, LayerArrays, Node
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.space import (
    ChannelGroup,
    GivenLayer,
    GivenNode,
    GivenWeight,
    ModelDescription,
    ModelSpace,
    Segment,
)


def values_of(space, bits, widths):
    values = space.seed_values()
    for label, b in zip(space.bit_layers, bits, strict=True):
        if f"{label}.bits" in values:
            values[f"{label}.bits"] = b
    for label, width in zip(space.width_groups, widths, strict=True):
        values[f"{label}.width"] = width
    return values


def test_resnet20_of_table_iv_takes_416832_bits():
    space = ModelSpace(resnet20(), widths=(0.75, 1.0), edge_bits=(8,))
    values = values_of(space, [8, 3, 3, 3, 3, 2, 2, 3, 2, 3, 8], [1.0, 0.75, 0.75])
    total = sum(
        layer.n_weights * space.policy(values)[layer.name].weight_bits
        for layer in space.layers(values)
    )
    # The printed list has 19 of 20 entries; with the entry that completes the pairs:
    blocks = [3, 3, 3, 3, 2, 2, 3, 2, 3]
    assert len(blocks) == 9
    assert total == space.weight_bits(space.encode(values)[None])[0] == 416_832


def test_resnet20_has_eleven_bit_and_three_width_choices():
    space = ModelSpace(resnet20())
    assert len(space.bit_layers) == 11
    assert list(space.width_groups) == ["stage1", "stage2", "stage3"]
    assert space.describe().n_dimensions == 14
    assert space.describe().n_policies == 2**2 * 5**9
    assert space.bits_of("conv1") == space.bits_of("fc") == (6, 8)


@pytest.mark.parametrize("make", [resnet20, two_branches])
@pytest.mark.parametrize("act_bits", ["same", 8, (4, 8)])
def test_arrays_say_what_layers_and_policies_say(make, act_bits):
    space = ModelSpace(make(), act_bits=act_bits, tie="layer", width_tie="group")
    points = space.sample_indices(np.random.default_rng(0), 20)
    table = space.tabulate(points)
    weights, sizes = space.weight_bits(points), space.size_bits(points)
    for row, point in enumerate(points):
        values = space.decode(point)
        graph, policy = space.layers(values), space.policy(values)
        expected = LayerArrays.of(graph).table
        assert (table.layers.table[row] == expected).all()
        assert table.weight_bits[row].tolist() == [policy[n].weight_bits for n in graph.names]
        assert table.act_bits[row].tolist() == [policy[n].act_bits for n in graph.names]
        weight_bits = sum(layer.n_weights * policy[layer.name].weight_bits for layer in graph)
        assert weights[row] == weight_bits
        assert sizes[row] == weight_bits + BIAS_BITS * graph.n_biases


def test_concatenated_and_flattened_channels_are_counted():
    space = ModelSpace(two_branches(), widths=(1.0, 1.5), width_tie="group")
    values = space.seed_values() | {"stem.width": 1.5}
    graph = space.layers(values)
    assert [(layer.in_channels, layer.out_channels, layer.groups) for layer in graph] == [
        (3, 12, 1),
        (12, 12, 4),
        (12, 12, 12),
        (24 * 16, 5, 1),
    ]


def test_layer_variants_hold_every_layer_of_every_network():
    space = ModelSpace(two_branches(), width_tie="group")
    variants = space.layer_variants()
    known = {tuple(row) for row in variants.layers.table.tolist()}
    points = space.sample_indices(np.random.default_rng(1), 200)
    met = {tuple(row) for row in space.tabulate(points).layers.flat().table.tolist()}
    assert variants.is_complete
    assert met <= known


def test_multipliers_that_round_to_the_same_channels_are_one_network():
    space = ModelSpace(two_branches(), widths=(0.9, 1.0, 1.1), width_tie="group", bits=(8,))
    # 8 channels in multiples of 4: 0.9, 1 and 1.1 are 8 channels each.
    assert space.canonical_indices([[0, 1], [2, 1]])[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("channels", "multiple", "multiplier", "width"),
    [(16, 1, 0.875, 14), (8, 4, 0.25, 4), (8, 1, 0.01, 1), (10, 1, 1.25, 13), (12, 4, 1.2, 16)],
)
def test_widths_round_to_the_nearest_multiple_and_never_to_nothing(
    channels, multiple, multiplier, width
):
    assert ChannelGroup("g", channels, multiple).width(multiplier) == width


def test_ties_join_the_layers_of_a_block_or_a_stage_but_never_the_edges():
    by_block = ModelSpace(resnet20(), tie="block").bit_layers
    assert by_block["layer2.0"] == ("layer2.0.conv1", "layer2.0.conv2")
    by_stage = ModelSpace(resnet20(), tie="stage").bit_layers
    assert list(by_stage) == ["conv1", "stage1", "stage2", "stage3", "fc"]
    assert len(ModelSpace(resnet20(), tie="layer").bit_layers) == 20


def test_pruned_subsets_are_what_is_left_to_choose():
    space = ModelSpace(resnet20(), subsets={"layer1.0": (4, 6), "conv1": (8,), "fc": (2, 3)})
    assert space.bits_of("layer1.0") == (4, 6)
    assert space.bits_of("conv1") == (8,)
    assert space.bits_of("fc") == (6, 8)  # An edge keeps its bits.
    assert "conv1.bits" not in {choice.name for choice in space.choices}


def test_what_is_fixed_and_why_is_explained():
    space = ModelSpace(two_branches(), bits=(8,), edge_bits=(8,), width_tie="group")
    rows = {row.name: row for row in space.explain_layers()}
    assert rows["stem"].choices == {"stem.width": space.widths}
    assert rows["fc"].state == "fixed"
    assert "classes" in rows["fc"].reason
    assert rows["grouped"].fixed["groups"] == 4
    assert rows["depthwise"].fixed["groups"] == "depthwise"


def test_a_layer_that_cannot_be_quantized_is_explained_and_has_no_policy():
    given = resnet20()
    bad = replace(given.layers[3], state="unsupported", reason="It is odd. Replace it.")
    space = ModelSpace(replace(given, layers=(*given.layers[:3], bad, *given.layers[4:])))
    rows = {row.name: row for row in space.explain_layers()}
    assert rows[bad.layer.name].state == "unsupported"
    with pytest.raises(UnsupportedError, match=r"layer1.1.conv1.*It is odd\. Replace it\."):
        space.policy(space.seed_values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": ()}, "`bits` must be increasing"),
        ({"bits": (4, 2)}, "`bits` must be increasing"),
        ({"bits": (1, 2)}, r"in \[2, 8\]"),
        ({"act_bits": 9}, "`act_bits`"),
        ({"widths": (0.0, 1.0)}, "`widths` must be multipliers > 0"),
        ({"widths": (1.0,), "bits": (8,), "edge_bits": (8,)}, "nothing is left to search"),
        ({"subsets": {"layer9": (2,)}}, "names 'layer9'"),
    ],
)
def test_impossible_spaces_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelSpace(resnet20(), **change)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ConfigError, match="no convolution and no linear layer"):
        ModelSpace(ModelDescription("empty", (), ()))


def test_widths_that_a_group_cannot_have_are_refused():
    given = two_branches()
    with pytest.raises(ConfigError, match=r"'input' cannot become 4: .*image"):
        given.at((4, 8, 12, 5))
    with pytest.raises(ConfigError, match="positive multiple of 4, got 10"):
        given.at((3, 10, 12, 5))
    with pytest.raises(ConfigError, match="one width for each of 4"):
        given.at((3, 8, 12))


@pytest.mark.parametrize("make", [resnet20, two_branches])
def test_a_description_survives_a_file(make):
    given = make()
    node = GivenNode(Node("input", "input", (), (3, 4, 4)), (Segment(0),))
    weight = GivenWeight("fc.weight", ((Segment(1),), (Segment(2), Segment(0))), reads=1)
    given = replace(given, nodes=(node,), notes=("A note.",), weights=(weight,))
    assert ModelDescription.from_json(json.loads(json.dumps(given.to_json()))) == given


def test_points_differ_in_their_key_exactly_if_their_widths_do():
    space = ModelSpace(two_branches(), width_tie="group", bits=(4, 8), edge_bits=(4, 8))
    keys = {}
    for point in itertools.product(*(range(len(c.values)) for c in space.choices)):
        values = space.decode(space.canonical_indices([point])[0])
        architecture = space.architecture(values)
        keys.setdefault(space.architecture_key(values), set()).add(architecture.widths)
    assert all(len(widths) == 1 for widths in keys.values())
    assert len(keys) == space.describe().n_networks


def test_concatenations_of_many_groups_are_not_listed_in_advance():
    groups = [ChannelGroup("input", 3, fixed="image")]
    layers = []
    base = two_branches().layers[0]
    for i in range(8):
        groups.append(ChannelGroup(f"g{i}", 8))
        layer = replace(base.layer, name=f"g{i}")
        layers.append(replace(base, layer=layer, outputs=(Segment(i + 1),), block=f"g{i}"))
    joined = tuple(Segment(i + 1, 16) for i in range(8))
    groups.append(ChannelGroup("fc", 5, fixed="classes"))
    last = two_branches().layers[-1]
    fc = replace(last.layer, in_channels=8 * 8 * 16)
    layers.append(replace(last, layer=fc, inputs=joined, outputs=(Segment(9),)))
    space = ModelSpace(ModelDescription("wide", tuple(groups), tuple(layers)), width_tie="group")
    variants = space.layer_variants()
    assert not variants.is_complete
    assert len(variants.layers) < 100


def test_uniform_networks_keep_the_edges_at_their_most():
    space = ModelSpace(resnet20())
    policy = space.uniform_policy(space.seed_values(), 2)
    assert (policy["conv1"].weight_bits, policy["fc"].weight_bits) == (8, 8)
    inner = {policy[name] for name in policy if name not in ("conv1", "fc")}
    assert {(bits.weight_bits, bits.act_bits) for bits in inner} == {(2, 2)}
    fixed = ModelSpace(resnet20(), act_bits=(4, 8))
    assert fixed.uniform_policy(fixed.seed_values(), 3)["layer1.0.conv1"].act_bits == 8


def test_norms_of_their_own_are_no_choice_and_count():
    given = two_branches()
    norm = Layer("norm", "conv", 8, 8, groups=8, input_size=(4, 4), output_size=(4, 4))
    axis = (Segment(1),)
    late = GivenLayer(norm, axis, axis, "norm", "stage1", "fixed", "It is a norm.")
    space = ModelSpace(replace(given, layers=(late, *given.layers)), bits=(2, 4), act_bits=(2, 4))
    assert "norm" not in {name for names in space.bit_layers.values() for name in names}
    policy = space.policy(space.seed_values())
    assert policy["norm"] == space.uniform_policy(space.seed_values(), 2)["norm"]
    assert (policy["norm"].weight_bits, policy["norm"].act_bits) == (8, 8)
    rest = ModelSpace(given, bits=(2, 4), act_bits=(2, 4))
    point = space.seed_indices()[None]
    assert space.size_bits(point) - rest.size_bits(point) == 8 * (8 + 32)
    assert 8 in space.layer_variants().weight_bits
    row = space.explain_layers()[0]
    assert (row.state, row.reason) == ("fixed", "It is a norm.")
