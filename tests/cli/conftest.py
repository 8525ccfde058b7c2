# SPDX-License-Identifier: Apache-2.0
"""The command line in this process, over made-up runs."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitscout.cli import main

spec = importlib.util.spec_from_file_location(
    "bitscout_test_synthetic", Path(__file__).parents[1] / "report" / "synthetic.py"
)
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Call ``bitscout`` with arguments, in an empty folder and a terminal of 200 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def make_result():
    return synthetic.make_result


@pytest.fixture(scope="session")
def write_run():
    return synthetic.write_run


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory, make_result, write_run):
    """A complete run on disk."""
    return write_run(make_result(tmp_path_factory.mktemp("runs") / "done", n_trials=24))


@pytest.fixture(scope="session")
def unfinished_directory(tmp_path_factory, make_result, write_run):
    """A run with 5 of 24 trials on disk."""
    directory = tmp_path_factory.mktemp("runs") / "[half] done"
    return write_run(make_result(directory, n_trials=24, n_finished=5))
