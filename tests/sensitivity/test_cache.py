# SPDX-License-Identifier: Apache-2.0
"""Results kept in a file, and only returned for what they were measured on."""

import pytest
import torch
from torch import nn

from bitscout.errors import DataError, RunError
from bitscout.sensitivity import EmpiricalFisher, GaussNewton, SquaredError, measure_sensitivity


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3))
    net[0].weight.data = torch.randn(3, 4, generator=rng)
    return net, torch.randn(8, 4, generator=rng), torch.arange(8) % 3


def measured(case, cache, **kwargs):
    """Return the sensitivity and whether anything was measured."""
    calls = []
    found = measure_sensitivity(
        *case, cache=cache, progress=lambda *step: calls.append(step), **kwargs
    )
    return found, bool(calls)


def test_the_same_question_is_answered_from_the_file(case, tmp_path):
    cache = tmp_path / "new" / "traces.json"
    first, was_measured = measured(case, cache)
    assert was_measured
    again, was_measured = measured(case, cache)
    assert again == first
    assert not was_measured
    assert [path.name for path in cache.parent.iterdir()] == ["traces.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda net, x, y: net[0].weight.data.__setitem__((0, 0), 2.0),
        lambda net, x, y: x.__setitem__((0, 0), 2.0),
        lambda net, x, y: y.__setitem__(0, 2),
        lambda net, x, y: net.append(nn.Tanh()),
    ],
    ids=["weights", "images", "labels", "structure"],
)
def test_another_network_or_other_data_are_measured_and_added(case, tmp_path, change):
    cache = tmp_path / "traces.json"
    first, _ = measured(case, cache)
    before = tuple(part.state_dict() if part is case[0] else part.clone() for part in case)
    weights = {name: tensor.clone() for name, tensor in before[0].items()}
    change(*case)
    second, was_measured = measured(case, cache)
    assert was_measured
    assert second.signature != first.signature
    original = nn.Sequential(nn.Linear(4, 3))
    original.load_state_dict(weights)
    assert measured((original, *before[1:]), cache) == (first, False)


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": GaussNewton(seed=1)},
        {"estimator": GaussNewton(draws=2)},
        {"estimator": EmpiricalFisher()},
        {"layers": ["0"]},
    ],
)
def test_other_settings_are_measured(case, tmp_path, settings):
    cache = tmp_path / "traces.json"
    first, _ = measured(case, cache)
    second, was_measured = measured(case, cache, **settings)
    assert was_measured
    assert second.signature != first.signature


def test_another_loss_has_another_signature(case, tmp_path):
    net, x, _ = case
    first, _ = measured((net, x, torch.zeros(8, 3)), tmp_path / "a.json", loss=SquaredError())
    second, _ = measured(case, tmp_path / "a.json")
    assert first.signature != second.signature


@pytest.mark.parametrize("content", ["", "{}", '{"sensitivities": [{}]}', "\x00\x01"])
def test_a_file_of_something_else_is_refused_and_kept(case, tmp_path, content):
    cache = tmp_path / "weights.bin"
    cache.write_text(content)
    with pytest.raises(DataError, match=r"weights\.bin is not a file of sensitivities"):
        measured(case, cache)
    assert cache.read_text() == content


def test_a_folder_that_cannot_be_made_is_named(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write"):
        measured(case, tmp_path / "file" / "traces.json")
