"""kill -9 at random moments: nothing finished is lost or repeated, and the history is the same."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bitscout.pipeline import dump_config, load_result, resume_search, run_search
from bitscout.pipeline.journal import read_records

N_KILLS = 10

WORKER = """
import sys
import torch
from bitscout.pipeline import load_config, resume_search, run_search
from bitscout.pipeline.components import load_data
torch.set_num_threads(int(sys.argv[3]))
config, directory = load_config(sys.argv[1]), sys.argv[2]
load_data(config)  # Imports what is slow to import: the kills shall hit the run.
print("ready", flush=True)
resume_search(directory) if sys.argv[4] == "resume" else run_search(config, directory)
"""


def start(config_path, directory, mode):
    import torch

    command = [sys.executable, "-c", WORKER, str(config_path), str(directory)]
    return subprocess.Popen(
        [*command, str(torch.get_num_threads()), mode], stdout=subprocess.PIPE, text=True
    )


def finished(directory):
    return {
        record.number: (record.outcome, record.candidate.digest, record.metrics, record.values)
        for record in read_records(directory / "study.journal")
        if record.outcome != "running"
    }


def networks(result):
    return {
        record.name: (record.candidate.digest, record.metrics)
        for record in (*result.final, *result.baselines)
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_and_resumes_equal_the_uninterrupted_run(make_tiny_config, tmp_path):
    config = make_tiny_config(
        searcher={"name": "bomp", "surrogate": "scaled", "n_trials": 24, "batch": 2}
    )
    begin = time.monotonic()
    straight = run_search(config, tmp_path / "straight")
    duration = time.monotonic() - begin

    config_path, directory = tmp_path / "config.yaml", tmp_path / "killed"
    config_path.write_text(dump_config(config))
    rng = np.random.default_rng(0)
    kept = {}
    n_killed = 0
    for _ in range(N_KILLS):
        mode = "resume" if (directory / "config.yaml").exists() else "run"
        with start(config_path, directory, mode) as worker:
            assert worker.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 2 * duration / N_KILLS))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            n_killed += worker.returncode == -signal.SIGKILL
        now = finished(directory) if directory.exists() else {}
        assert {number: now.get(number) for number in kept} == kept, "a finished trial changed"
        kept = now
    assert n_killed >= N_KILLS // 2, "the run ended before most of the kills"
    killed = resume_search(directory)

    assert [trial.number for trial in killed.trials] == list(range(24))
    assert finished(directory) == finished(tmp_path / "straight")
    assert networks(killed) == networks(straight)
    assert killed.state == "complete"
    assert not list(directory.rglob("*.tmp"))
    assert json.dumps(load_result(directory).to_json())
