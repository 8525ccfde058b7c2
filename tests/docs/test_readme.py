"""What the README shows is run, word for word."""

import re
from pathlib import Path

import pytest

from bitscout.pipeline import make_config

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)

TINY_RUN = {
    "dataset": {"name": "digits", "limit": 200},
    "space": {"name": "bomp", "widths": [0.01, 0.1], "repetitions": [0, 1], "filters": [8, 16]},
    "searcher": {"n_trials": 3},
    "training": {"epochs": 1, "qaft_epochs": 1},
    "final": {"epochs": 1, "qaft_epochs": 1, "max_networks": 2},
}


def test_five_lines_of_python_search_list_and_load(tmp_path, monkeypatch, capsys):
    # The preset alone is made small; the code is the README's.
    monkeypatch.setattr("bitscout.pipeline.api.preset_document", lambda name: dict(TINY_RUN))
    monkeypatch.chdir(tmp_path)
    make_config(TINY_RUN)
    names = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names["result"].final) >= 1
    assert (tmp_path / "runs" / "python" / "config.yaml").is_file()
    import torch

    shape = names["result"].dataset["input_shape"]
    assert names["model"](torch.zeros(2, *shape)).shape == (2, 10)


def test_quantizer_example_gives_a_network_on_4_bit_grids():
    names = {}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    import torch

    assert names["quantized"](torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_quantized_network_is_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[1] + BLOCKS[2], "README.md", "exec"), names)
    assert (tmp_path / "network.onnx").is_file()
    assert (tmp_path / "network-c" / "network.c").is_file()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()))
def test_every_link_leads_somewhere(target):
    assert target.startswith("http") or (ROOT / target).exists()
