# SPDX-License-Identifier: Apache-2.0
"""Built-in networks: published counts, and equality with the tables that know no PyTorch."""

import pytest
import torch

from bitscout.errors import ConfigError
from bitscout.hardware import reference_network
from bitscout.networks import build_model, model_names, trace
from bitscout.quantization import Add

TABLES = sorted(set(model_names()) - {"resnet8"})


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        # torchvision's documentation of its weights.
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("mobilenet_v2", 3_504_872),
        # timm's results table: 4.23 million.
        ("mobilenet_v1", 4_231_976),
        # He et al., Table 6: 0.27 million.
        ("resnet20", 269_722),
    ],
)
def test_parameters_are_the_published_ones(name, n_parameters):
    assert sum(p.numel() for p in build_model(name).parameters()) == n_parameters


@pytest.mark.parametrize("name", TABLES)
def test_traces_are_the_tables(name):
    table = reference_network(name)
    traced = trace(build_model(name), table.nodes[0].shape)
    assert traced.layers == table.layers
    assert traced.nodes == table.nodes


@pytest.mark.parametrize("width", [0.5, 0.75])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_narrow_mobilenets_are_the_tables(name, width):
    table = reference_network(name, (3, 64, 64), 7, width=width)
    assert trace(build_model(name, n_classes=7, width=width), (3, 64, 64)).nodes == table.nodes


@pytest.mark.parametrize("name", model_names())
def test_a_cifar_stem_keeps_two_halvings_of_the_resolution(name):
    nodes = trace(build_model(name, stem="cifar", n_classes=5, width=0.25), (3, 32, 32)).nodes
    pool = next(node for node in nodes if node.op == "avg_pool")
    pixels = next(node for node in nodes if node.name == pool.inputs[0]).shape[1]
    first = next(node for node in nodes if node.op == "conv")
    assert first.shape[1:] == (32, 32)
    assert pixels == (8 if name in ("resnet8", "resnet20") else 4)
    assert nodes[-1].shape == (5,)


@pytest.mark.parametrize("name", model_names())
def test_an_imagenet_stem_halves_twice(name):
    nodes = trace(build_model(name, stem="imagenet", width=0.25, in_channels=1), (1, 64, 64)).nodes
    pool = next(node for node in nodes if node.op == "avg_pool")
    pixels = next(node for node in nodes if node.name == pool.inputs[0]).shape[1]
    assert pixels == (4 if name in ("resnet8", "resnet20") else 2)


def test_resnet18_for_cifar_has_the_known_operations():
    # 0.56 G multiply-accumulates, as everywhere this network is used; by hand: the stem and four
    # stages of equal cost, less a quarter where a stage's first convolution reads half as much.
    stem = 27 * 64 * 32**2
    stage = 4 * 9 * 64 * 64 * 32**2
    shortcut = 64 * 128 * 16**2
    later = stage - 9 * 64 * 64 * 32**2 // 2 + shortcut
    assert trace(build_model("resnet18", stem="cifar", n_classes=10), (3, 32, 32)).macs == (
        stem + stage + 3 * later + 512 * 10
    )


@pytest.mark.parametrize("name", model_names())
def test_a_seed_gives_the_same_weights(name):
    first, again, other = (build_model(name, width=0.125, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_additions_are_modules():
    # Much narrower, rounding to 8 makes stages of MobileNetV2 equal, and adds a shortcut.
    count = {
        name: sum(isinstance(part, Add) for part in build_model(name, width=0.5).modules())
        for name in model_names()
    }
    assert count == {
        "mobilenet_v1": 0,
        "mobilenet_v2": 10,
        "resnet8": 3,
        "resnet18": 8,
        "resnet20": 9,
        "resnet50": 16,
    }


def test_padding_shortcuts_take_every_second_pixel_and_add_zeros():
    shortcut = build_model("resnet20").stage2[0].shortcut
    x = torch.arange(2 * 3 * 5 * 4.0).reshape(2, 3, 5, 4)
    wide = shortcut(x, 5)
    assert torch.equal(wide[:, :3], x[:, :, ::2, ::2])
    assert not wide[:, 3:].any()
    assert wide.shape == (2, 5, 3, 2)


def test_padding_shortcuts_follow_the_widths_of_the_stages():
    # 416,832 bits of Table IV of k-means TPE need stages of 16, 24 and 48 channels.
    network = build_model("resnet20")
    block = network.stage2[0]
    block.first.conv = torch.nn.Conv2d(16, 24, 3, 2, 1)
    block.first.norm = torch.nn.BatchNorm2d(24)
    block.second.conv = torch.nn.Conv2d(24, 24, 3, 1, 1)
    block.second.norm = torch.nn.BatchNorm2d(24)
    assert block(torch.zeros(1, 16, 8, 8)).shape == (1, 24, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, r"No built-in network is called 'resnet81'. Did you mean 'resnet"),
        ({"name": "bert"}, "Known: mobilenet_v1, mobilenet_v2, resnet8"),
        ({"name": "resnet18", "n_classes": 0}, "`n_classes` must be an integer of at least 1"),
        ({"name": "resnet18", "in_channels": 0}, "`in_channels` must be .* at least 1, got 0"),
        ({"name": "resnet18", "in_channels": True}, "`in_channels` must be .* got True"),
        ({"name": "resnet18", "stem": "mnist"}, "must be 'cifar' or 'imagenet', got 'mnist'"),
        ({"name": "resnet18", "width": 0.0}, "`width` must be finite and > 0, got 0.0"),
        ({"name": "mobilenet_v2", "width": float("nan")}, "`width` must be finite"),
    ],
)
def test_impossible_networks_are_rejected(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_model(**arguments)
