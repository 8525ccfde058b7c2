"""Channel groups found from the graph, each case worked out by hand."""

import re

import pytest
import torch
import torch.nn.functional as F
from tests.networks import zoo
from torch import nn

from bitscout.networks import describe, resize
from bitscout.networks.channel_groups import find_channel_groups
from bitscout.networks.record_calls import record_calls
from bitscout.space import Segment


class Network(nn.Module):
    """Layers by name and a function for a forward."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            else:
                self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(inputs, outputs, kernel=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


def head(n, y, layer="fc"):
    return getattr(n, layer)(y.mean((2, 3)))


def found(network, shape=(3, 4, 4)):
    return find_channel_groups(record_calls(network, shape))


def free(network, shape=(3, 4, 4)):
    return {g.name: g.channels for g in found(network, shape).groups if g.fixed is None}


def reasons(network, shape=(3, 4, 4)):
    return {g.name: g.fixed for g in found(network, shape).groups if g.fixed is not None}


def axes_of(network, name, shape=(3, 4, 4)):
    return next(w for w in found(network, shape).weights if w.name == name).axes


def test_the_image_comes_first_and_the_classes_are_fixed():
    network = Network(lambda n, x: head(n, n.a(x)), a=conv(3, 8), fc=nn.Linear(8, 5))
    groups = found(network).groups
    assert [(g.name, g.channels, g.multiple) for g in groups] == [
        ("input", 3, 1),
        ("a", 8, 1),
        ("fc", 5, 1),
    ]
    assert [g.fixed for g in groups] == [
        "They are the channels of the image.",
        None,
        "They are the outputs of the network, one for each class.",
    ]


def test_what_is_added_is_one_group():
    network = Network(
        lambda n, x: head(n, n.a(x) + n.c(F.relu(n.b(n.a(x))))),
        a=conv(3, 8),
        b=conv(8, 6),
        c=conv(6, 8),
        fc=nn.Linear(8, 5),
    )
    assert free(network) == {"a": 8, "b": 6}


def test_a_depthwise_convolution_joins_and_its_multiplier_is_a_factor():
    network = Network(
        lambda n, x: head(n, n.down(n.wide(n.deep(n.a(x))))),
        a=conv(3, 8),
        deep=conv(8, 8, 3, groups=8),
        wide=conv(8, 16, 3, groups=8),
        down=conv(16, 4),
        fc=nn.Linear(4, 5),
    )
    assert free(network) == {"a": 8, "down": 4}
    assert axes_of(network, "wide.weight") == ((Segment(1, 2),), (), (), ())
    assert axes_of(network, "down.weight") == ((Segment(2),), (Segment(1, 2),), (), ())
    wider = resize(network, describe(network, (3, 4, 4)), [3, 9, 4, 5])
    assert (wider.wide.in_channels, wider.wide.out_channels, wider.wide.groups) == (9, 18, 9)


def test_flattening_gives_every_channel_its_pixels():
    network = Network(lambda n, x: n.fc(n.a(x).flatten(1)), a=conv(3, 8), fc=nn.Linear(128, 5))
    assert axes_of(network, "fc.weight")[1] == (Segment(1, 16),)


def test_channels_behind_their_pixels_come_up_once_for_each_pixel():
    network = Network(
        lambda n, x: n.fc(n.a(x).permute(0, 2, 3, 1).flatten(1)),
        a=conv(3, 8),
        fc=nn.Linear(32, 5),
    )
    assert axes_of(network, "fc.weight", (3, 2, 2))[1] == (Segment(1),) * 4
    assert describe(network, (3, 2, 2)).groups[1].fixed is None


def test_a_concatenation_is_a_sequence_of_groups():
    network = Network(
        lambda n, x: head(n, n.c(torch.cat([n.a(x), n.b(x)], 1))),
        a=conv(3, 8),
        b=conv(3, 4),
        c=conv(12, 6),
        fc=nn.Linear(6, 5),
    )
    assert free(network) == {"a": 8, "b": 4, "c": 6}
    assert axes_of(network, "c.weight")[1] == (Segment(1), Segment(2))


def test_the_halves_of_a_chunk_stay_equal():
    def gated(n, x):
        a, b = n.a(x).chunk(2, 1)
        return head(n, a * torch.sigmoid(n.b(b)))

    network = Network(gated, a=conv(3, 16), b=conv(8, 8), fc=nn.Linear(8, 5))
    assert free(network) == {"a[0:8]": 8}
    assert axes_of(network, "a.weight")[0] == (Segment(1), Segment(1))
    narrower = resize(network, describe(network, (3, 4, 4)), [3, 5, 5])
    assert narrower.a.out_channels == 10


def test_a_gated_linear_unit_has_equal_halves():
    network = Network(lambda n, x: head(n, F.glu(n.a(x), 1)), a=conv(3, 16), fc=nn.Linear(8, 5))
    assert axes_of(network, "a.weight")[0] == (Segment(1), Segment(1))
    assert describe(network, (3, 4, 4)).groups[1].fixed is None


def test_gates_and_weights_per_channel_belong_to_their_channels():
    def gated(n, x):
        x = n.act(n.a(x)) * n.scale
        return head(n, x * torch.sigmoid(n.gate(F.relu(n.squeeze(x.mean((2, 3), keepdim=True))))))

    network = Network(
        gated,
        a=conv(3, 8),
        act=nn.PReLU(8),
        scale=nn.Parameter(torch.randn(8, 1, 1)),
        squeeze=conv(8, 2),
        gate=conv(2, 8),
        fc=nn.Linear(8, 5),
    )
    assert free(network) == {"a": 8, "squeeze": 2}
    assert axes_of(network, "scale") == ((Segment(1),), (), ())
    assert axes_of(network, "act.weight") == ((Segment(1),),)
    assert describe(network, (3, 4, 4)).groups[1].fixed is None


def test_grouped_convolutions_ask_for_multiples():
    network = Network(
        lambda n, x: head(n, n.c(n.b(n.a(x)))),
        a=conv(3, 12),
        b=conv(12, 8, groups=4),
        c=conv(8, 6, groups=2),
        fc=nn.Linear(6, 5),
    )
    multiples = {g.name: g.multiple for g in found(network).groups}
    assert multiples == {"input": 1, "a": 4, "b": 4, "c": 2, "fc": 1}


def test_a_grouped_convolution_of_a_concatenation_fixes_its_groups():
    network = Network(
        lambda n, x: head(n, n.c(torch.cat([n.a(x), n.b(x)], 1))),
        a=conv(3, 8),
        b=conv(3, 4),
        c=conv(12, 6, groups=2),
        fc=nn.Linear(6, 5),
    )
    assert "splits them, with others, into 2 groups" in reasons(network)["a"]
    assert free(network) == {"c": 6}


def test_zero_channels_of_a_shortcut_are_a_group_of_their_own():
    def shortcut(n, x):
        y = F.relu(n.a(x))
        z = n.b(y)
        return head(n, z + F.pad(y, (0, 0, 0, 0, 0, z.shape[1] - y.shape[1])))

    network = Network(shortcut, a=conv(3, 4), b=conv(4, 10), fc=nn.Linear(10, 5))
    assert free(network) == {"a": 4, "b[4:10]": 6}
    assert [g.fixed for g in describe(network, (3, 4, 4)).groups[1:3]] == [None, None]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2), "layer_norm"),
        (lambda x: F.group_norm(x, 2), "`group_norm` in .* normalizes groups of them together"),
        (lambda x: x.softmax(1), "`softmax` in .* weighs them against each other"),
        (lambda x: x * x.mean(1, keepdim=True), "`mean` in .* joins them into one value"),
        (
            lambda x: x.view(-1, 2, 4, 4, 4).transpose(1, 2).reshape(-1, 8, 4, 4),
            "takes them apart",
        ),
        (lambda x: x[:, ::2].repeat(1, 2, 1, 1), "takes some of them"),
        (lambda x: x.flip(1), "`flip` in .* changes their order"),
        (lambda x: torch.einsum("nchw,ndhw->nchw", x, x), "`einsum` in .* is not followed"),
        (lambda x: x[:, torch.arange(8)], "takes some of them"),
        (lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1), "`pixel_shuffle` in"),
        (lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).mean(1)[:, None], "sums over"),
    ],
)
def test_what_depends_on_their_number_fixes_them_and_is_named(function, message):
    def forward(n, x):
        y = function(n.a(x))
        return y.flatten(1)[:, :5] if y.shape[1] != 8 else head(n, y)

    network = Network(forward, a=conv(3, 8), fc=nn.Linear(8, 5))
    reason = found(network).groups[1].fixed
    assert reason is not None
    assert re.search(message, reason)
    assert "test_channel_groups.py:" in reason


def test_one_channel_that_is_spread_over_others_stays_one():
    network = Network(
        lambda n, x: head(n, n.a(x) * torch.sigmoid(n.mask(x))),
        a=conv(3, 8),
        mask=conv(3, 1),
        fc=nn.Linear(8, 5),
    )
    assert "spreads it over other channels" in reasons(network)["mask"]
    assert free(network) == {"a": 8}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda n, x: n.fc(n.a(x).mean((2, 3)).view(-1, 8)), "With another number of them"),
        (lambda n, x: head(n, torch.cat([n.a(x)[:, 4:], n.a(x)[:, :4]], 1)), "the network"),
    ],
)
def test_numbers_written_in_the_forward_are_found_by_building(function, said):
    network = Network(function, a=conv(3, 8), fc=nn.Linear(8, 5))
    assert "a" in {name.partition("[")[0] for name in free(network)}
    fixed = describe(network, (3, 4, 4)).groups[1].fixed
    assert fixed is not None
    assert said in fixed


def test_only_the_groups_to_blame_are_fixed():
    network = zoo.make("plain")
    description = describe(network, zoo.IMAGE)
    assert {g.name for g in description.groups if g.fixed is None} == {
        "features.0.0",
        "classifier.0",
    }
    reason = next(g.fixed for g in description.groups if g.name == "features.2.0")
    assert "RuntimeError: shape '[2, 48]' is invalid" in reason
    assert "zoo.py:51" in reason


def test_silent_branches_do_not_hide_what_they_count_on():
    def forward(n, x):
        y = n.a(x)
        return head(n, y + n.norm(n.b(torch.cat([y[:, 4:], y[:, :4]], 1))))

    network = Network(
        forward, a=conv(3, 8), b=conv(8, 8), norm=nn.BatchNorm2d(8), fc=nn.Linear(8, 5)
    )
    nn.init.zeros_(network.norm.weight)
    fixed = {g.name: g.fixed for g in describe(network, (3, 4, 4)).groups}
    assert "computes something else" in fixed["a[0:4]"]
    assert fixed["a[4:8]"] is None  # From the fourth on: there may be more.


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_group_of_the_zoo_counts_what_its_layers_have(name):
    groups = found(zoo.make(name), zoo.IMAGE)
    widths = [g.channels for g in groups.groups]
    for use in groups.uses:
        for value in (use.x, use.y):
            axis = groups.axis(value, use.x_dim)
            assert sum(widths[s.group] * s.factor for s in axis) == value.shape[use.x_dim]
    assert len({g.name for g in groups.groups}) == len(groups.groups)
