# SPDX-License-Identifier: Apache-2.0
"""Sensitivities from a name to the report."""

import json

import pytest
import torch
from torch import nn

from bitscout.errors import ConfigError, DataError
from bitscout.pipeline import sensitivity
from bitscout.training import save_weights

TINY = "tests.pipeline.test_layer_sensitivities:Tiny"
FEW = ["dataset.limit=200", "dataset.validation=0.3"]


class Tiny(nn.Module):
    """Six layers, two of which share a residual block."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.plain = nn.Conv2d(6, 8, 3, stride=2)
        self.hidden = nn.Linear(8, 12)
        self.fc = nn.Linear(12, n_classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = torch.relu(self.plain(x)).mean((2, 3))
        return self.fc(torch.relu(self.hidden(x)))


def test_a_network_is_measured_clustered_and_compared(tmp_path):
    checkpoint, cache = tmp_path / "tiny.safetensors", tmp_path / "cache.json"
    save_weights(Tiny(), checkpoint)
    stages = []
    report = sensitivity(
        TINY,
        checkpoint=str(checkpoint),
        settings=FEW,
        images=64,
        drop_bits=2,
        cache=cache,
        progress=lambda *step: stages.append(step),
    )
    assert [row.name for row in report.layers] == [
        "stem", "first", "second", "plain", "hidden", "fc",
    ]  # fmt: skip
    rows = {row.name: row for row in report.layers}
    assert rows["first"].tie == rows["second"].tie != rows["plain"].tie
    assert rows["first"].bits == rows["second"].bits
    assert rows["stem"].cluster == rows["fc"].cluster == 0
    assert rows["plain"].trace_per_weight == pytest.approx(rows["plain"].trace / (6 * 8 * 9))
    assert all(row.loss_increase is not None for row in report.layers)
    assert "loss_increase" in report.agreement
    assert {stage for stage, _, _ in stages} == {
        "measuring gauss-newton",
        "quantizing one layer to 2 bits",
    }
    assert all("The weights are random" not in note for note in report.notes)
    assert report.n_images == 64
    json.dumps(report.to_json(), allow_nan=False)
    again = sensitivity(
        TINY, checkpoint=str(checkpoint), settings=FEW, images=64, drop_bits=None, cache=cache
    )
    assert [row.trace for row in again.layers] == [row.trace for row in report.layers]
    assert again.agreement == {}


def test_random_weights_are_told():
    report = sensitivity(TINY, settings=FEW, images=16, estimator="fisher")
    assert report.estimator == "fisher"
    assert "The weights are random" in report.notes[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sensitivity(TINY, estimator="guess"), ConfigError, "must be one of fisher, gau"),
        (lambda: sensitivity(TINY, images=0), ConfigError, "`images` .* at least 1, got 0"),
        (lambda: sensitivity("quickstart"), ConfigError, "searches the space 'bomp'"),
        (lambda: sensitivity("quickstart", checkpoint="a"), ConfigError, "belong to a network"),
        (lambda: sensitivity(TINY, dataset="npz:none.npz"), DataError, "none.npz"),
    ],
)
def test_what_has_no_sensitivities_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
