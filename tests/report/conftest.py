# SPDX-License-Identifier: Apache-2.0
"""Made-up runs for the tests of this folder."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "bitscout_test_synthetic", Path(__file__).with_name("synthetic.py")
)
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)

BUDGETED = {
    "hardware": ["bitfusion:batch=4", "mcu"],
    "budget": {"size_kb": 60, "peak_memory_kb": 7, "energy_mj": 0.7},
}


@pytest.fixture(scope="session")
def make_result():
    return synthetic.make_result


@pytest.fixture(scope="session")
def write_run():
    return synthetic.write_run


@pytest.fixture(scope="session")
def complete(make_result):
    return make_result()


@pytest.fixture(scope="session")
def runs(make_result, complete):
    """Runs in every state, by name."""
    return {
        "empty": make_result(n_finished=0),
        "unfinished": make_result(n_finished=25),
        "without-finals": make_result(with_final=False),
        "without-baselines": make_result(with_baselines=False),
        "complete": complete,
        "front": make_result(front=True, n_trials=20),
        "budgeted": make_result(n_trials=24, sections=BUDGETED),
    }
