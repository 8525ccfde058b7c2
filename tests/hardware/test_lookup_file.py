"""Tables on disk: what fits is read back, everything else is refused by name."""

import io
import json
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tests.hardware.test_lookup import CONV, GRAPH, HEAD, NPU
from tests.hardware.toys import Npu

from bitscout.core import LayerArrays
from bitscout.errors import ConfigError, DataError
from bitscout.hardware import LookupTable, load_table, save_table, signature

LAYERS = LayerArrays.of(GRAPH)


@pytest.fixture
def path(tmp_path):
    save_table(LookupTable.build(NPU, LAYERS), tmp_path / "npu.npz")
    return tmp_path / "npu.npz"


def rewritten(path, **changes):
    """Change arrays, or entries of the document, of a file."""
    with np.load(path) as file:
        arrays = dict(file)
    document = json.loads(arrays["document"].tobytes())
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        elif value is None:
            del document[name]
        else:
            document[name] = value
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    np.savez(path, **arrays)


def test_what_is_read_is_what_was_written(path):
    built, read = LookupTable.build(NPU, LAYERS), load_table(path, NPU, LAYERS, [2], [4, 8])
    assert np.array_equal(read.layers.table, built.layers.table)
    assert (read.weight_bits, read.act_bits) == (built.weight_bits, built.act_bits)
    assert read.costs["cycles"].dtype == np.int64
    for name, values in built.costs.items():
        assert np.array_equal(read.costs[name], values)
    assert np.array_equal(read.is_known, built.is_known)
    assert read.signature == built.signature


def test_a_table_may_have_more_than_is_asked_for(path):
    assert len(load_table(path, NPU, LayerArrays.of([HEAD])).layers) == 3


def test_the_name_of_the_hardware_does_not_matter(path):
    other = replace(NPU, name="other")
    loaded = load_table(path, other)
    assert loaded.model == other
    assert loaded.layers.table.tolist() == load_table(path, NPU).layers.table.tolist()


def test_nothing_but_the_table_is_left_in_the_folder_and_no_pickle_in_it(path):
    save_table(LookupTable.build(NPU, LAYERS), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["npu.npz"]
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            array = np.lib.format.read_array(io.BytesIO(file.read(name)), allow_pickle=False)
            assert array.dtype.kind in "biuf"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 32}, "`rows` was 16 and is 32"),
        ({"energy_nj": 0.4}, "`energy_nj` was 0.3 and is 0.4"),
        ({"batch": 2, "largest": 9}, "`batch` was 1 and is 2; .*`largest` was None and is 9"),
    ],
)
def test_other_constants_and_options_are_named(path, change, message):
    with pytest.raises(ConfigError, match=f"does not fit hardware 'npu'.*{message}.*again"):
        load_table(path, replace(NPU, **change))


@dataclass(frozen=True, kw_only=True)
class Other(Npu):
    pass


def test_another_model_is_named(path):
    with pytest.raises(ConfigError, match=r"it was made with .*\.Npu, this is .*\.Other"):
        load_table(path, Other(rows=16, energy_nj=0.3))


def test_another_version_of_the_model_is_named(path, monkeypatch):
    monkeypatch.setattr(signature, "_source_digest", lambda model: "changed")
    with pytest.raises(ConfigError, match="the source code of the model has changed"):
        load_table(path, NPU)


def test_other_layers_are_named(path):
    layers = LayerArrays.of([HEAD, replace(CONV, out_channels=9), replace(CONV, kernel=(1, 1))])
    with pytest.raises(ConfigError, match=r"other layers, 2 are not in it, the first is conv \dx"):
        load_table(path, NPU, layers)


def test_bits_that_are_missing_are_named(tmp_path):
    path = tmp_path / "table.npz"
    save_table(LookupTable.build(NPU, LAYERS, [4, 8], [8]), path)
    load_table(path, NPU, LAYERS, [4], [8])
    with pytest.raises(ConfigError, match="weight bits 4, 8, asked for are 2, 4"):
        load_table(path, NPU, LAYERS, [2, 4], [8])
    with pytest.raises(ConfigError, match="activation bits 8, asked for are 4"):
        load_table(path, NPU, LAYERS, [4], [4])


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "bitscout lookup table 0"},
        {"model": None},
        {"values": None},
        {"values": []},
        {"weight_bits": None},
        {"weight_bits": [2, 4]},
        {"weight_bits": [2, 4, 6]},
        {"table_signature": "0"},
        {"layers": LAYERS.table[:2]},
        {"layers": LAYERS.table[:, :5]},
        {"cost_cycles": np.zeros((3, 3, 2))},
        {"is_known": np.ones(3, dtype=bool)},
    ],
    ids=str,
)
def test_a_table_that_contradicts_itself_is_refused(path, changes):
    rewritten(path, **changes)
    with pytest.raises(DataError, match=r"is damaged: .*build it again"):
        load_table(path, NPU)


def test_a_missing_quantity_is_damage(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "cost_energy_mj"}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"is damaged: .*cost_energy_mj"):
        load_table(path, NPU)


def test_no_changed_byte_changes_a_cost(path):
    original, whole = path.read_bytes(), load_table(path, NPU)
    for position in range(0, len(original), 5):
        damaged = bytearray(original)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            read = load_table(path, NPU)
        except DataError:
            continue
        for name, values in whole.costs.items():
            assert np.array_equal(read.costs[name], values)
        assert np.array_equal(read.layers.table, whole.layers.table)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -30])
def test_a_file_that_was_cut_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="is damaged"):
        load_table(path, NPU)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"There is no lookup table at .*none.npz"):
        load_table(tmp_path / "none.npz", NPU)


def test_an_array_that_is_no_table_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="is damaged"):
        load_table(tmp_path / "array.npy", NPU)


def test_a_table_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        save_table(LookupTable.build(NPU, LAYERS), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["npu.npz"]
    with pytest.raises(ConfigError, match="Choose another place"):
        save_table(LookupTable.build(NPU, LAYERS), path / "inside" / "a.npz")
