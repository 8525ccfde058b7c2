# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of any form fill a network, or say in one message why not."""

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from bitscout.errors import ConfigError, DataError
from bitscout.networks import load_checkpoint


def network(n_classes=4, width=3, seed=0):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, width, 1),
            nn.BatchNorm2d(width),
            nn.Flatten(),
            nn.Linear(width, n_classes),
        )


FORMS = {
    "plain": lambda state: state,
    "wrapped": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "args": None},
    "twice": lambda state: {"model": {"state_dict": state}},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "both": lambda state: {"net": {f"module.net.{key}": value for key, value in state.items()}},
    "old": lambda state: {k: v for k, v in state.items() if not k.endswith("tracked")},
}


def check_equal(module, other):
    for key, tensor in other.state_dict().items():
        torch.testing.assert_close(module.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_state_dicts_of_every_form_are_read(tmp_path, form):
    torch.save(form(network(seed=1).state_dict()), tmp_path / "weights.pt")
    module = network()
    load_checkpoint(module, tmp_path / "weights.pt")
    check_equal(module, network(seed=1))


def test_safetensors_are_read(tmp_path):
    safetensors.torch.save_file(network(seed=1).state_dict(), tmp_path / "w.safetensors")
    module = network()
    load_checkpoint(module, tmp_path / "w.safetensors")
    check_equal(module, network(seed=1))


def test_everything_that_does_not_fit_is_in_one_message_and_nothing_is_changed(tmp_path):
    state = network(width=5, seed=1).state_dict()
    state["head.weight"] = state.pop("3.weight")
    torch.save(state, tmp_path / "w.pt")
    module = network()
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(module, tmp_path / "w.pt")
    message = str(caught.value)
    assert "1 missing in the file: 3.weight" in message
    assert "1 not in the network: head.weight" in message
    assert "6 of another shape: 0.weight (expected 3x3x1x1, got 5x3x1x1)" in message
    assert "and 1 more" in message
    assert "with the same options" in message
    check_equal(module, network())


def test_another_number_of_classes_is_recognised(tmp_path):
    torch.save(network(n_classes=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"expected 4x3, got 7x3.*number of classes"):
        load_checkpoint(network(), tmp_path / "w.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = network().state_dict()
    state["0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"not finite: 0\.weight"):
        load_checkpoint(network(), tmp_path / "w.pt")


def test_a_pickled_module_is_refused_and_its_code_not_run(tmp_path):
    torch.save(network(), tmp_path / "module.pt")
    with pytest.raises(DataError, match=r"would run code. Save the weights alone: torch.save\("):
        load_checkpoint(network(), tmp_path / "module.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pt", None, "there is no file"),
        ("w.pt", b"junk", "Copy or save it again|more than tensors"),
        ("w.pt", b"", "cannot be read as a state dict"),
        ("w.safetensors", b"junk", "not a complete safetensors file"),
        ("w.pt", pickle.dumps({"a": 1}), "cannot be read|more than tensors"),
    ],
)
def test_damaged_files_are_said_to_be(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_checkpoint(network(), tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "acc": 0.5}, "got a dictionary of epoch, acc"),
        ([1, 2], "got a list"),
        ({}, "a dictionary of nothing"),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError, match=message):
        load_checkpoint(network(), tmp_path / "w.pt")
