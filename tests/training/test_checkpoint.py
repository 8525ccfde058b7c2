# SPDX-License-Identifier: Apache-2.0
import pytest
import safetensors.torch
import torch
from torch import nn

from bitscout.errors import DataError, RunError
from bitscout.training import load_weights, save_weights


def net(width=4, *, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten())


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_weights_and_buffers_come_back_bit_for_bit(tmp_path):
    model = net().to(memory_format=torch.channels_last)
    model(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    save_weights(model, tmp_path / "w.safetensors")
    other = net(seed=1)
    assert not same(state(other), state(model))
    load_weights(other, tmp_path / "w.safetensors")
    assert same(state(other), state(model))


def test_shared_weights_are_saved(tmp_path):
    model = net()
    tied = nn.ModuleList([model, model])
    save_weights(tied, tmp_path / "w.safetensors")
    load_weights(tied, tmp_path / "w.safetensors")
    assert same(state(tied[0]), state(model))


def test_the_file_is_plain_safetensors_and_alone_in_its_folder(tmp_path):
    model = net()
    save_weights(model, tmp_path / "w.safetensors")
    assert same(safetensors.torch.load_file(tmp_path / "w.safetensors"), state(model))
    assert names_in(tmp_path) == ["w.safetensors"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(net(), path)
    old = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bitscout.training.checkpoint.os.fsync", full_disk)
    with pytest.raises(RunError, match=r"Cannot write the weights to .*No space left on device"):
        save_weights(net(seed=1), path)
    assert path.read_bytes() == old
    assert names_in(tmp_path) == ["w.safetensors"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitscout.training.checkpoint.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_weights(net(), tmp_path / "w.safetensors")
    assert names_in(tmp_path) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(RunError, match="Cannot write the weights to"):
        save_weights(net(), tmp_path / "nowhere" / "w.safetensors")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"Expected weights at .*there is no file"):
        load_weights(net(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_an_error_and_changes_nothing(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    save_weights(net(seed=1), path)
    path.write_bytes(path.read_bytes()[:kept])
    model = net()
    before = state(model)
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        load_weights(model, path)
    assert same(state(model), before)


def test_a_foreign_file_is_an_error(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(net().state_dict(), path)
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        load_weights(net(), path)


def test_keys_and_shapes_that_do_not_match_are_listed_and_change_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = state(net(seed=1))
    tensors["0.scale"] = tensors.pop("0.bias")
    tensors["1.weight"] = torch.zeros(7)
    safetensors.torch.save_file(tensors, path)
    model = net()
    before = state(model)
    message = (
        r"missing: 0\.bias; not in the network: 0\.scale; "
        r"of another shape: 1\.weight \(expected \(4,\), got \(7,\)\)"
    )
    with pytest.raises(DataError, match=message):
        load_weights(model, path)
    assert same(state(model), before)


def test_a_long_list_of_keys_is_cut(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({f"k{i:02}": torch.zeros(1) for i in range(20)}, path)
    with pytest.raises(DataError, match="k06, k07 and 12 more"):
        load_weights(net(), path)
