# SPDX-License-Identifier: Apache-2.0
"""Networks by name and import path, and what is wrong with those that cannot be made."""

import pytest
import torch
from torch import nn

from bitscout.errors import ConfigError
from bitscout.networks import build_model, load_model

MODULE = """
import torch
from torch import nn

def make_net(num_classes=10, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))

def anything(**options):
    return nn.Linear(options["n"], 1)

class Net(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)

network = nn.Linear(2, 2)
number = 3

class nested:
    make = staticmethod(make_net)

def broken(depth=1):
    raise ValueError("no weights here")

def nothing():
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_built_in_networks_come_by_name_with_options():
    found = load_model("resnet20", options={"n_classes": 7}, seed=3)
    expected = build_model("resnet20", n_classes=7, seed=3)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


def test_import_paths_make_networks_that_depend_on_the_seed_alone(module):
    torch.default_generator.manual_seed(5)
    expected = torch.rand(3)
    torch.default_generator.manual_seed(5)
    one, same, other = (load_model(f"{module}:make_net", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one[1].weight, same[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)
    assert torch.equal(torch.rand(3), expected)
    assert one.training


@pytest.mark.parametrize("key", ["n_classes", "num_classes", "classes"])
def test_classes_reach_a_function_under_its_own_name(module, key):
    if key == "classes":
        with pytest.raises(
            ConfigError, match=r"no argument 'classes'. It has: num_classes, width"
        ):
            load_model(f"{module}:make_net", options={key: 5})
    else:
        assert load_model(f"{module}:make_net", options={key: 5})[1].out_features == 5


def test_classes_are_not_given_where_nobody_asked(module):
    assert load_model(f"{module}:make_net", options={"width": 6})[1].weight.shape == (10, 6)
    assert load_model(f"{module}:anything", options={"n": 6}).in_features == 6
    assert load_model(f"{module}:nested.make")[1].out_features == 10


def test_a_module_is_copied_and_a_class_called(module):
    first, second = load_model(f"{module}:network"), load_model(f"{module}:network")
    with torch.no_grad():
        first.weight.zero_()
    assert second.weight.any()
    assert isinstance(load_model(f"{module}:Net"), nn.Linear)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("resnet21", {}, "called 'resnet21'. Did you mean 'resnet20'?.*import path"),
        ("resnet20", {"depth": 3}, "resnet20 has no argument 'depth'. It has: n_classes"),
        ("{}:make_nett", {}, "no 'make_nett'. Did you mean 'make_net'"),
        ("no_such_thing:make", {}, "'no_such_thing' of no_such_thing:make cannot be imported"),
        ("{}:network", {"depth": 3}, "is a module already and takes no options, got depth"),
        ("{}:number", {}, "must make a torch.nn.Module, got int"),
        ("{}:nothing", {}, "must make a torch.nn.Module, got NoneType"),
        ("{}:broken", {"depth": 2}, r"broken\(depth=2\) failed: ValueError: no weights here"),
    ],
)
def test_what_cannot_be_made_is_said(module, path, options, message):
    with pytest.raises(ConfigError, match=message):
        load_model(path.format(module), options=options)
