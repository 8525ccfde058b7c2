# SPDX-License-Identifier: Apache-2.0
"""State dicts of torchvision and timm, by their recorded keys and shapes."""

from pathlib import Path

import pytest
import torch

from bitscout.networks import build_model, convert_state_dict

RECORDED = Path(__file__).parent / "timm_state_dicts.txt"
SOURCES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenetv1_100": "mobilenet_v1",
    "mobilenetv2_100": "mobilenet_v2",
}


def batch_norm(module, channels):
    shapes = {f"{module}.{name}": (channels,) for name in ("weight", "bias")}
    shapes |= {f"{module}.running_{name}": (channels,) for name in ("mean", "var")}
    return shapes | {f"{module}.num_batches_tracked": ()}


def recorded(network):
    shapes, section = {}, None
    for line in RECORDED.read_text().splitlines():
        if line.startswith("["):
            section = line[1:-1]
        elif section == network and line:
            key, shape = line.split()
            shapes |= (
                batch_norm(key, int(shape[1:]))
                if shape.startswith("=")
                else {key: tuple(map(int, shape.split("x")))}
            )
    return shapes


def torchvision_mobilenet_v2():
    """Keys and shapes as torchvision's module tree gives them."""
    shapes = {"features.0.0.weight": (32, 3, 3, 3)} | batch_norm("features.0.1", 32)
    channels, position = 32, 1
    stages = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for expansion, outputs, count in stages:
        for _ in range(count):
            hidden, conv = channels * expansion, f"features.{position}.conv"
            if expansion > 1:
                shapes |= {f"{conv}.0.0.weight": (hidden, channels, 1, 1)}
                shapes |= batch_norm(f"{conv}.0.1", hidden)
            i = int(expansion > 1)
            shapes |= {f"{conv}.{i}.0.weight": (hidden, 1, 3, 3)}
            shapes |= batch_norm(f"{conv}.{i}.1", hidden)
            shapes |= {f"{conv}.{i + 1}.weight": (outputs, hidden, 1, 1)}
            shapes |= batch_norm(f"{conv}.{i + 2}", outputs)
            channels, position = outputs, position + 1
    shapes |= {"features.18.0.weight": (1280, 320, 1, 1)} | batch_norm("features.18.1", 1280)
    return shapes | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def shapes_of(name):
    return {key: tuple(t.shape) for key, t in build_model(name).state_dict().items()}


@pytest.mark.parametrize(("theirs", "ours"), SOURCES.items())
def test_every_key_of_timm_is_found_with_its_shape(theirs, ours):
    state = {key: torch.empty(shape, device="meta") for key, shape in recorded(theirs).items()}
    converted = convert_state_dict(ours, state)
    assert {key: tuple(t.shape) for key, t in converted.items()} == shapes_of(ours)


def test_torchvisions_mobilenet_v2_is_ours():
    shapes = torchvision_mobilenet_v2()
    assert shapes == shapes_of("mobilenet_v2")
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert list(convert_state_dict("mobilenet_v2", state)) == list(state)


def test_timm_and_torchvision_mean_the_same_layers():
    # Both in the order of execution, but timm's first block has its norms behind its layers.
    state = {key: torch.zeros(()) for key in recorded("mobilenetv2_100")}
    convs = [key for key in convert_state_dict("mobilenet_v2", state) if key.endswith(".weight")]
    ours = [key for key in torchvision_mobilenet_v2() if key.endswith(".weight")]
    assert convs == ours


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet20", "my.module"])
def test_our_own_names_stay_and_a_parallel_prefix_goes(name):
    state = {"conv1.weight": torch.ones(1), "fc.bias": torch.zeros(2)}
    wrapped = {f"module.{key}": tensor for key, tensor in state.items()}
    assert convert_state_dict(name, state) == state
    assert convert_state_dict(name, wrapped) == state
    assert convert_state_dict(name, {}) == {}


def test_unknown_keys_stay_for_loading_to_report():
    state = {"conv_stem.weight": torch.ones(1), "head.extra": torch.ones(1)}
    assert list(convert_state_dict("mobilenet_v1", state)) == ["features.0.0.weight", "head.extra"]
    assert list(convert_state_dict("resnet18", state)) == list(state)


def test_one_key_without_the_parallel_prefix_keeps_all():
    state = {"module.fc.weight": torch.ones(1), "fc.bias": torch.ones(1)}
    assert list(convert_state_dict("resnet18", state)) == list(state)
