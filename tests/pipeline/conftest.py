"""A run without training: an accuracy that is a fixed function of the candidate."""

import pytest
from torch import nn

from bitscout.core import child_rng
from bitscout.errors import TrainingError
from bitscout.pipeline import make_config
from bitscout.pipeline.evaluate import Trained

# BOMP's space cut down to 2**7 points, so that samplers meet every corner of it.
TINY_SPACE = {
    "name": "bomp",
    "widths": [0.01, 0.5],
    "bits": [4, 8],
    "kernels": [2],
    "expansions": [1],
    "repetitions": [0, 1],
    "filters": [8, 16],
}


def tiny_config(**sections):
    """A configuration whose trials take a fraction of a second even when trained for real."""
    document = {
        "name": "tiny",
        "dataset": {"name": "digits", "limit": 100, "validation": 0.3},
        "space": TINY_SPACE,
        "searcher": {"n_trials": 8, "n_startup_trials": 3},
        "training": {"epochs": 1, "qaft_epochs": 1, "batch_size": 32},
        "final": {"epochs": 1, "qaft_epochs": 1, "max_networks": 2},
        "quantization": {"calibration_images": 32},
        # Verified in tests/pipeline/test_certificates.py.
        "certificate": {"enabled": False},
    }
    for key, value in sections.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            document[key] = {**document[key], **value}
        else:
            document[key] = value
    return make_config(document)


@pytest.fixture
def make_tiny_config():
    return tiny_config


class FakeTraining:
    """Stands in for `evaluate_policies`; counts calls and fails where it is told to.

    Attributes:
        calls: The seeds it was called with.
        test_splits: The test splits it could have looked at.
        fail_on: Calls, counted from 0, that diverge.
        crash_on: Calls, counted from 0, during which the process is interrupted.
    """

    def __init__(self):
        self.calls = []
        self.test_splits = set()
        self.fail_on = set()
        self.crash_on = set()
        self.accuracy = None

    def __call__(self, architecture, policies, data, plan, *, seed, on_stage):
        number = len(self.calls)
        self.calls.append(seed)
        self.test_splits.add(data.test)
        if number in self.crash_on:
            raise KeyboardInterrupt
        if number in self.fail_on:
            msg = "Training diverged: the loss is nan."
            raise TrainingError(msg)
        on_stage("train", 1, 1, 0.5)
        return [self.trained(architecture, policy, seed) for policy in policies]

    def trained(self, architecture, policy, seed):
        bits = sum(layer.weight_bits for layer in policy.values()) / (8 * len(policy))
        size = min(1.0, architecture.layers().n_weights / 20_000)
        noise = child_rng(seed, "noise").normal(0, 0.01)
        accuracy = min(1.0, max(0.0, 0.3 + 0.4 * bits + 0.2 * size + noise))
        if self.accuracy is not None:
            accuracy = self.accuracy
        return Trained(
            policy=policy,
            module=nn.Linear(1, 1),
            val_accuracy=accuracy,
            float_accuracy=accuracy,
            seconds={"train": 0.1, "quantize": 0.0, "fine-tune": 0.0},
        )


@pytest.fixture
def fake_training(monkeypatch):
    fake = FakeTraining()
    monkeypatch.setattr("bitscout.pipeline.trials.evaluate_policies", fake)
    monkeypatch.setattr("bitscout.pipeline.finals.evaluate_policies", fake)
    monkeypatch.setattr("bitscout.pipeline.finals.evaluate", lambda *_, **__: 0.75)
    # What this makes are no networks of the space.
    monkeypatch.setattr("bitscout.pipeline.run.certify_finals", lambda *_: None)
    return fake
