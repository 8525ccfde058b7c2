"""The Python call: what it takes from a preset, from arguments and from objects."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import bitscout
from bitscout.errors import ConfigError, DataError
from bitscout.pipeline import load_config

FAST = {
    "searcher.n_trials": 3,
    "training.epochs": 1,
    "final.epochs": 1,
    "final.qaft_epochs": 0,
    "space.repetitions": [0, 1],
    "space.filters": [8, 16],
    "final.max_networks": 1,
}


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return TensorDataset(torch.from_numpy(pixels), torch.arange(60) % 3)


def test_naming_the_presets_own_data_and_space_keeps_its_other_keys(fake_training, tmp_path):
    result = bitscout.search("quickstart", data="digits", space="bomp", out=tmp_path / "a")
    preset = load_config("quickstart")
    assert result.config == preset


def test_given_keys_win_and_another_name_starts_from_the_defaults(fake_training, tmp_path):
    keys = {"name": "bomp", "bits": [2, 8]}
    result = bitscout.search("quickstart", space=keys, out=tmp_path / "a", settings={"seed": 4})
    assert result.config.space.bits == [2, 8]
    assert result.config.seed == 4
    assert result.config.dataset.validation == load_config("quickstart").dataset.validation


def test_a_torch_dataset_resumes_with_the_runs_own_split(fake_training, images, tmp_path):
    settings = {**FAST, "seed": 1, "dataset.validation": 0.3}
    fake_training.crash_on = {1}
    with pytest.raises(KeyboardInterrupt):
        bitscout.search(data=images, out=tmp_path, settings=settings)
    result = bitscout.search(data=images, out=tmp_path, resume=True)
    assert result.state == "complete"
    assert result.config.dataset.name == "custom"
    assert result.dataset["n_classes"] == 3


def test_a_space_object_is_searched_and_loads_its_networks_back(tmp_path):
    space = bitscout.BompSpace(
        widths=(0.01, 0.05), repetitions=(0, 1), filters=(8, 16), input_shape=(1, 8, 8)
    )
    settings = {key: value for key, value in FAST.items() if not key.startswith("space.")}
    result = bitscout.search(space=space, data="digits", out=tmp_path, settings=settings)
    assert result.config.space.name == "custom"
    network = result.load(result.final[0].name, space=space)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(ConfigError, match=r"`space\.name` is custom"):
        result.load(result.final[0].name)


def test_default_directory_is_numbered(fake_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("runs/quickstart", "runs/quickstart-2"):
        result = bitscout.search("quickstart", settings={"searcher.n_trials": 2})
        assert result.directory.as_posix() == expected


def test_unusable_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="`data` must be a name, a mapping"):
        bitscout.search(data=[1, 2], out=tmp_path / "a")
    with pytest.raises(ConfigError, match="`resume` needs `out`"):
        bitscout.search(resume=True)
    with pytest.raises(DataError, match=r"absent\.npz"):
        bitscout.search(data={"name": "npz", "path": "absent.npz"}, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_relative_paths_of_data_are_kept_absolute(fake_training, tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=np.arange(60) % 3)
    monkeypatch.chdir(tmp_path)
    result = bitscout.search(
        data={"name": "npz", "path": "d.npz"}, out="run", settings={"searcher.n_trials": 2}
    )
    assert result.config.dataset.path == str(tmp_path / "d.npz")


def test_settings_that_are_no_mapping_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`settings` must be a mapping .* got \['seed=1'\]"):
        bitscout.search("quickstart", out=tmp_path / "a", settings=["seed=1"])
    assert not (tmp_path / "a").exists()
