"""Resized networks: what they keep and compute, and that whatever fits can be built."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.networks import zoo
from torch import nn

from bitscout.core import Layer
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.networks import GivenNetwork, build_model, channel_importance, describe, resize
from bitscout.networks.network_graph import network_graph
from bitscout.networks.record_calls import record_calls
from bitscout.space import ChannelGroup, GivenLayer, GivenWeight, ModelDescription, Segment

# Float32 rounding through a few layers, relative to outputs of about 1.
TOLERANCE = 1e-5

described = cache(lambda name: (zoo.make(name), describe(zoo.make(name), zoo.IMAGE, name=name)))


def images(n=4, shape=zoo.IMAGE):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(7))


def outputs(network, x=None):
    with torch.no_grad():
        return network.eval()(images() if x is None else x)


def widened(description, multiplier=1.5):
    """More channels in every group that is free, at least one step."""
    return [
        g.channels if g.fixed else max(g.width(multiplier), g.channels + g.multiple)
        for g in description.groups
    ]


def pair(rows=4, *, reader=None, writer=None):
    """Two linear layers with `rows` channels between them, and their description."""
    network = nn.Sequential(nn.Linear(2, rows), nn.ReLU(), nn.Linear(rows, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor(writer or [[1.0, 0.0]] * rows))
        network[0].bias.zero_()
        network[2].weight.copy_(torch.tensor([reader or [1.0] * rows]))
    return network, describe(network, (2,))


@pytest.mark.parametrize("name", zoo.ZOO)
def test_widening_preserves_the_function(name):
    network, description = described(name)
    wider = resize(network, description, widened(description))
    expected = outputs(network)
    torch.testing.assert_close(outputs(wider), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_copies_with_unequal_shares_preserve_the_function_too(name):
    network, description = described(name)
    wider = resize(network, description, widened(description, 2.25), noise=0.9)
    expected = outputs(network)
    torch.testing.assert_close(outputs(wider), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet18", pytest.param("mobilenet_v2", marks=pytest.mark.slow)]
)
def test_built_in_networks_widen_in_every_group_but_image_and_classes(name):
    network = build_model(name, stem="cifar", width=0.25, n_classes=10).eval()
    description = describe(network, (3, 32, 32))
    assert [g.name for g in description.groups if g.fixed] == [
        "input",
        description.groups[-1].name,
    ]
    wider = resize(network, description, widened(description, 1.25))
    x = images(2, (3, 32, 32))
    expected = outputs(network, x)
    scale = float(expected.abs().max())
    torch.testing.assert_close(outputs(wider, x), expected, rtol=0, atol=TOLERANCE * scale)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(zoo.ZOO)))
def test_any_choice_builds_and_runs_and_its_layers_equal_the_trace(data, name):
    network, description = described(name)
    multipliers = st.sampled_from([0.1, 0.5, 0.75, 0.875, 1.0, 1.125, 1.25, 2.0])
    widths = [group.width(data.draw(multipliers)) for group in description.groups]
    resized = resize(network, description, widths)
    graph = network_graph(record_calls(resized, zoo.IMAGE)).plain
    foretold = description.at(widths)
    # A trace has no layers for norms that stand alone.
    norms = {given.layer.name for given in description.layers if given.state == "fixed"}
    assert graph.layers == tuple(each for each in foretold.layers if each.name not in norms)
    assert [node.op for node in graph.nodes] == [node.op for node in foretold.nodes]
    assert outputs(resized).isfinite().all()


@pytest.mark.parametrize(
    "name", ["residual", "grouped", "inverted", "dense", "squeeze-excitation"]
)
def test_channels_that_nothing_reads_are_lost_without_a_trace(name):
    network, description = described(name)
    network = copy.deepcopy(network)
    tensors = dict(network.named_parameters())
    widths = list(description.widths)
    for index, group in enumerate(description.groups):
        # Half of each part of a grouped convolution; none where that is nothing.
        size = group.channels // group.multiple
        if group.fixed or size < 2:
            continue
        dead = torch.arange(group.channels) % size < size // 2
        widths[index] = group.channels - int(dead.sum())
        silence(tensors, description, index, dead)
    expected = outputs(network)
    narrower = resize(network, description, widths)
    assert sum(widths) < sum(description.widths)
    torch.testing.assert_close(outputs(narrower), expected, rtol=TOLERANCE, atol=TOLERANCE)


def silence(tensors, description, group, dead):
    """Set to zero all weights that read the channels `dead` of a group."""
    for given_weight in description.weights:
        if given_weight.reads is None:
            continue
        axis = given_weight.axes[given_weight.reads]
        mask = torch.cat(
            [
                (
                    dead
                    if s.group == group
                    else torch.zeros(description.widths[s.group], dtype=bool)
                ).repeat_interleave(s.factor)
                for s in axis
            ]
        )
        weight = tensors[given_weight.name].data
        for rows, part in zip(
            weight.chunk(given_weight.groups), mask.chunk(given_weight.groups), strict=True
        ):
            rows[:, part] = 0


def test_narrowing_keeps_the_channels_with_the_largest_product_of_norms():
    # What writes times what reads: 1 * 4, 2 * 3, 3 * 1, 4 * 0.
    network, description = pair(
        writer=[[1.0, 0], [0, 2.0], [3.0, 0], [0, 4.0]], reader=[4.0, -3.0, 1.0, 0.0]
    )
    narrower = resize(network, description, [2, 2, 1])
    assert narrower[0].weight.tolist() == [[1, 0], [0, 2]]
    assert narrower[2].weight.tolist() == [[4, -3]]


@pytest.mark.parametrize(
    ("importance", "kept"), [("flow", [0, 1]), ("writers", [2, 3]), ("readers", [0, 1])]
)
def test_each_criterion_keeps_its_own_channels_in_order(importance, kept):
    writer = [[1.0, 0], [0, 2.0], [3.0, 0], [0, 4.0]]
    network, description = pair(writer=writer, reader=[4.0, -3.0, 1.0, 0.0])
    narrower = resize(network, description, [2, 2, 1], importance=importance)
    assert narrower[0].weight.tolist() == [writer[channel] for channel in kept]


def test_of_equal_channels_the_first_are_kept_and_copied():
    network, description = pair(reader=[1.0, 2.0, 2.0, 1.0])
    assert resize(network, description, [2, 3, 1])[2].weight.tolist() == [[1, 2, 2]]
    wider = resize(network, description, [2, 7, 1])
    assert wider[2].weight.tolist() == [[0.5, 1, 1, 1, 1, 1, 0.5]]


def norm_and_flatten():
    network = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, eps=0.5), nn.Flatten(), nn.Linear(12, 2, bias=False)
    ).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 2, 3]).view(3, 1, 1, 1))
        network[0].bias.copy_(torch.tensor([0.5, 0, 0]))
        network[1].weight.copy_(torch.tensor([3.0, 1, -1]))
        network[1].running_mean.copy_(torch.tensor([0.5, 0, 1]))
        network[1].running_var.copy_(torch.tensor([0.5, 3.5, 0.5]))
        network[1].bias.copy_(torch.tensor([0.0, 1, 2]))
        network[3].weight.copy_(torch.arange(24.0).view(2, 12))
    return network, describe(network, (1, 2, 2))


def test_writers_are_weights_and_biases_with_batch_norm_folded():
    network, description = norm_and_flatten()
    # Scales 3, 1/2, -1; folded weights 3, 1, -3; folded biases 0, 1, 3.
    squares = torch.tensor([9.0, 2, 18], dtype=torch.float64)
    found = channel_importance(network, description, [1], "writers")[1]
    torch.testing.assert_close(found, (squares / squares.mean()).sqrt())


def test_flow_is_what_the_batch_norm_gives_times_what_reads_it():
    network, description = norm_and_flatten()
    columns = torch.arange(24.0, dtype=torch.float64).view(2, 3, 4).square().sum((0, 2))
    given = torch.tensor([9.0 + 0, 1 + 1, 1 + 4], dtype=torch.float64)
    found = channel_importance(network, description, [1])[1]
    torch.testing.assert_close(found, (given * columns / columns.mean()).sqrt())


def test_scaling_a_channel_up_and_its_readers_down_changes_no_importance():
    network, description = described("residual")
    scaled = copy.deepcopy(network)
    inner = next(i for i, g in enumerate(description.groups) if g.name == "layer1.0.conv1")
    scaled.layer1[0].bn1.weight.data[3] *= 16
    scaled.layer1[0].bn1.bias.data[3] *= 16
    scaled.layer1[0].conv2.weight.data[:, 3] /= 16
    ranks = [
        channel_importance(n, description, [inner])[inner].argsort().tolist()
        for n in (network, scaled)
    ]
    assert ranks[0] == ranks[1]


def test_grouped_convolutions_lose_as_many_channels_in_each_part():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten())
    network.append(nn.Linear(4, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([9.0, 8, 1, 2]).view(4, 1, 1, 1))
        network[0].bias.zero_()
        network[1].weight.copy_(torch.arange(1.0, 9).view(4, 2, 1, 1))
    description = describe(network, (1, 1, 1))
    assert [group.multiple for group in description.groups] == [1, 2, 2, 1]
    narrower = resize(network, description, [1, 2, 4, 1], importance="writers")
    # Of 9, 8 | 1, 2 the first of the first part and the second of the second.
    assert narrower[0].weight.flatten().tolist() == [9, 2]
    assert narrower[1].weight.flatten().tolist() == [1, 3, 6, 8]
    assert (narrower[1].in_channels, narrower[1].groups) == (2, 2)


def test_sizes_that_pytorch_modules_keep_follow_their_weights():
    network, description = described("inverted")
    resized = resize(network, description, [g.width(1.25) for g in description.groups])
    for part in resized.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.shape[:2] == (part.out_channels, part.in_channels // part.groups)
        if isinstance(part, nn.BatchNorm2d):
            assert part.num_features == len(part.weight) == len(part.running_var)
        if isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features)


def test_the_copy_keeps_modes_types_and_gradients_asked_for_and_shares_nothing():
    network, description = described("residual")
    network = copy.deepcopy(network).double().train()
    network.conv1.weight.requires_grad_(False)
    network.bn1.eval()
    before = copy.deepcopy(network.state_dict())
    resized = resize(network, description, widened(description))
    assert resized.training
    assert not resized.bn1.training
    assert not resized.conv1.weight.requires_grad
    for parameter in resized.parameters():
        assert parameter.dtype == torch.float64
        assert parameter.is_leaf
        parameter.data.fill_(9)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_widths_as_given_are_a_plain_copy():
    network, description = described("residual")
    copied = GivenNetwork(network, description).build()
    assert copied is not network
    for name, tensor in copied.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_a_given_network_builds_the_same_network_twice_and_copies_that_differ():
    network, description = described("residual")
    built = GivenNetwork(network, description)
    widths = widened(description)
    first, second = (built.build(widths).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    equal = resize(network, description, widths).state_dict()
    assert not torch.equal(first["layer1.0.conv2.weight"], equal["layer1.0.conv2.weight"])


def test_shared_weights_stay_shared():
    network = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    network.append(nn.Linear(6, 2))
    network[3].weight = network[1].weight
    description = describe(network, (3,))
    wider = resize(network, description, widened(description))
    assert wider[3].weight is wider[1].weight
    x = images(4, (3,))
    torch.testing.assert_close(outputs(wider, x), outputs(network, x), rtol=0, atol=TOLERANCE)


def test_channels_last_stays():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    network.append(nn.Linear(64, 2))
    network.to(memory_format=torch.channels_last)
    description = describe(network, (3, 8, 8))
    resized = resize(network, description, [3, 6, 5, 2])
    assert resized[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not resized[2].weight.is_contiguous()


def test_a_description_of_another_network_is_rejected():
    _, description = described("residual")
    with pytest.raises(ConfigError, match=r"expects 'conv1.weight' of other size than \(4, 3"):
        resize(nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3)}), description, description.widths)
    with pytest.raises(ConfigError, match=r"than None. Describe this module anew"):
        resize(nn.Identity(), description, description.widths)


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ([2, 0, 1], {}, "must be a positive multiple of 1, got 0"),
        ([3, 4, 1], {}, "'input' cannot become 3: They are the channels of the image"),
        ([2, 4, 2], {}, "cannot become 2: They are the outputs of the network"),
        ([2, 4], {}, "one width for each of 3 channel groups"),
        ([2, 4, 1], {"noise": 1.0}, r"`noise` must be in \[0, 1\), got 1.0"),
        ([2, 3, 1], {"importance": "size"}, "`importance` must be one of"),
    ],
)
def test_widths_and_options_that_cannot_be_are_rejected(widths, options, message):
    network, description = pair()
    with pytest.raises(ConfigError, match=message):
        resize(network, description, widths, **options)


def test_a_parametrized_weight_is_refused_by_name():
    network = nn.Sequential(nn.Linear(2, 4))
    nn.utils.parametrizations.weight_norm(network[0])
    weight = GivenWeight("0.parametrizations.weight.original1", ((Segment(0),), ()))
    layer = GivenLayer(Layer("0", "linear", 2, 4), (), (Segment(0),), "0", "0")
    description = ModelDescription("net", (ChannelGroup("0", 4),), (layer,), weights=(weight,))
    with pytest.raises(UnsupportedError, match="remove_parametrizations on '0'"):
        resize(network, description, [5])


def test_a_network_that_cannot_be_copied_is_refused_with_a_remedy():
    network = nn.Sequential(nn.Linear(2, 4))
    network[0].kept = network[0].weight * 2
    description = ModelDescription("net", (ChannelGroup("0", 4),), ())
    with pytest.raises(UnsupportedError, match=r"cannot be copied: .* remove_weight_norm"):
        resize(network, description, [4])


@pytest.mark.parametrize(("noise", "stay_equal"), [(0.0, True), (0.5, False)])
def test_equal_copies_stay_equal_in_training_and_unequal_shares_tell_them_apart(noise, stay_equal):
    network, description = pair()
    wider = resize(network, description, [2, 8, 1], noise=noise)
    optimizer = torch.optim.SGD(wider.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (wider(images(8, (2,))) - 3).square().mean().backward()
        optimizer.step()
    rows = wider[0].weight
    assert torch.equal(rows[:4], rows[4:]) is stay_equal
