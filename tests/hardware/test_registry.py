"""Hardware by name: built-in targets, files, other packages, options."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tests.hardware.toys import Npu

from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError
from bitscout.hardware import (
    HardwareModel,
    LayerModel,
    hardware_names,
    load_hardware,
    reference_network,
    registry,
    with_absolute_paths,
)
from bitscout.hardware.targets import built_in_targets

TARGETS = sorted(set(built_in_targets()) - {"measured"})
HERE = "tests.hardware.test_registry"


@pytest.fixture
def entry_point(monkeypatch):
    """Announce an object under a name, as an installed package does."""

    def announce(name, value):
        entry = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "_entry_points", lambda: {name: entry})

    return announce


@pytest.fixture
def npu(tmp_path, entry_point):
    """The path of a target file of a model of another package."""
    entry_point("toy", "tests.hardware.toys:Npu")
    path = tmp_path / "npu.yaml"
    path.write_text(
        "model: toy\ndescription: a toy\nnotes: [mind the toy]\n"
        "constants:\n"
        "  rows: {value: 16, unit: units, source: data sheet}\n"
        "  energy_nj: {value: 300, unit: pJ, source: data sheet}\n"
        "options: {overhead: 3}\n"
    )
    return str(path)


# --- names


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_loads_and_its_spec_is_its_name(name):
    model = load_hardware(name)
    assert (model.name, model.spec) == (name, name)
    assert load_hardware({"name": name}) == model
    assert hardware_names()[name]


@pytest.mark.parametrize("name", TARGETS)
def test_a_spec_is_read_as_the_same_model(name):
    model = load_hardware(name, batch=16)
    assert model.batch == 16
    again = load_hardware(model.spec)
    assert again == model
    assert again.signature == model.signature
    assert again.signature != load_hardware(name, batch=17).signature


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bitfuson", "No hardware is called 'bitfuson'. Did you mean 'bitfusion'. Known: .*bitfu"),
        ("zzz", r"No hardware is called 'zzz'. Known: .*; or the path of a target file .*\.yaml"),
        ("", "needs a name before its options, got ''"),
        (":batch=1", "needs a name before its options, got ':batch=1'"),
        ({"batch": 1}, r"needs a `name`, got \{'batch': 1\}"),
        ({"name": 5}, r"needs a `name`, got \{'name': 5\}"),
        (5, "by its name or as a mapping with `name`, got 5"),
        (["bitfusion"], r"got \['bitfusion'\]"),
        ("bitfusion,mcu", r"one by one, --hardware bitfusion --hardware mcu, or as a list"),
        ("bitfusion, mcu:batch=2", r"one by one, --hardware bitfusion --hardware mcu, "),
        (
            "bitfusion:",
            "'bitfusion:' has a colon and no options: write bitfusion alone",
        ),
        ("bitfusion:,", "has a colon and no options"),
        ("x" * 1000, "No hardware is called 'x{50,120}"),
        ("none-there.yaml", "target file none-there.yaml cannot be read"),
    ],
    ids=str,
)
def test_what_is_no_hardware_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(name)


# --- options


def test_options_come_from_text_from_a_mapping_and_from_arguments():
    assert load_hardware(" bitfusion : batch = 4 ").batch == 4
    assert load_hardware({"name": "bitfusion", "batch": 4}).batch == 4
    assert load_hardware("bitfusion:batch=4", batch=5).batch == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bitfusion:bacth=4", "Hardware 'bitfusion' has no option `bacth`. Did you mean `batch`"),
        ("bitfusion:zzz=4", "has no option `zzz`. It has batch, "),
        ("bitfusion:batch", "written name:key=value,key=value; got 'batch'"),
        ("bitfusion:batch=four", "`batch` of hardware 'bitfusion' must be an integer, got 'four'"),
        ("bitfusion:batch=0", "`batch` of hardware 'bitfusion' must be at least 1, got 0"),
        ("bitfusion:depthwise=dens", "`depthwise` of .* must be one of .*dense.*, got 'dens'"),
        ("bitfusion:name=x", "has no option `name`"),
        ("bitfusion:origin=x", "has no option `origin`"),
    ],
)
def test_options_that_are_wrong_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(spec)


def test_every_constant_may_be_overridden(npu):
    model = load_hardware(f"{npu}:rows=32,energy_nj=1e-3")
    assert (model.rows, model.energy_nj, model.overhead) == (32, 1e-3, 3)
    assert model.spec == f"{npu}:rows=32,energy_nj=0.001"
    assert load_hardware(model.spec) == model


# --- target files


def test_a_target_file_is_hardware(npu):
    model = load_hardware(npu)
    assert model == Npu(name=npu, rows=16, energy_nj=0.3, overhead=3)
    assert model.spec == npu
    assert model.notes == ("mind the toy",)


@pytest.mark.parametrize("name", ["mcu", "size"])
def test_a_target_file_of_ones_own_keeps_the_models_notes(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: {name}\ndescription: my board\nnotes: [mind the dog]\n")
    model = load_hardware(str(path))
    assert model.notes == ("mind the dog", *load_hardware(name).notes)
    assert len(model.notes) == 2


@pytest.mark.parametrize("name", TARGETS)
def test_a_report_has_the_description_of_its_target(name):
    graph = reference_network("resnet20")
    report = load_hardware(name).report(graph, QuantPolicy.uniform(graph.names, 8))
    assert report.description == report.to_json()["description"] == hardware_names()[name]


def test_an_option_that_goes_back_to_the_models_default_is_said(npu):
    model = load_hardware(f"{npu}:overhead=7")
    assert model.spec == f"{npu}:overhead=7"
    assert load_hardware(model.spec) == model


def test_a_target_file_of_an_unknown_model_names_the_file_and_the_nearest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: bitfuson\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: no model is called 'bitfuson'. Did you m"):
        load_hardware(str(path))


def test_a_wrong_value_in_a_target_file_names_the_constant(npu):
    path = Path(npu)
    path.write_text(path.read_text().replace("value: 16", "value: 16.5"))
    with pytest.raises(ConfigError, match=r"npu.yaml' must be an integer in units, got 16\.5"):
        load_hardware(npu)


# --- models of other packages


def test_a_model_of_another_package_is_hardware_under_its_entry_points_name(entry_point):
    entry_point("toy", "tests.hardware.toys:Npu")
    model = load_hardware("toy:rows=4,energy_nj=2")
    assert model == Npu(name="toy", rows=4, energy_nj=2.0)
    assert hardware_names()["toy"] == Npu.__doc__
    assert load_hardware(model.spec) == model


@pytest.mark.parametrize(
    "value",
    [f"{HERE}:NoCosts", f"{HERE}:not_a_model", "no_such_module:Npu", "no.such:Npu", "math:Npu"],
)
def test_a_model_that_says_nothing_is_listed_with_its_package(entry_point, value):
    entry_point("toy", value)
    assert hardware_names()["toy"] == f"From the package {value}."


def test_a_model_is_listed_without_running_its_module(tmp_path, monkeypatch, entry_point):
    for name, text in (("alone.py", "Alone"), ("whole/__init__.py", "Whole"), ("bad.py", "Bad")):
        path = tmp_path / f"bitscout_test_{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'raise SystemExit\nclass {text}:\n    """One.\n\n    Two."""\n')
    (tmp_path / "bitscout_test_whole" / "part.py").write_text('class Part:\n    """Three."""\n')
    (tmp_path / "bitscout_test_bad.py").write_text("class Bad(:")
    monkeypatch.syspath_prepend(str(tmp_path))
    for value, said in (
        ("alone:Alone", "One."),
        ("whole:Whole", "One."),
        ("whole.part:Part", "Three."),
        ("bad:Bad", "From the package bitscout_test_bad:Bad."),
    ):
        entry_point("toy", f"bitscout_test_{value}")
        assert hardware_names()["toy"] == said


def test_its_constants_must_be_given(entry_point):
    entry_point("toy", "tests.hardware.toys:Npu")
    with pytest.raises(ConfigError, match="'toy' needs `rows`, `energy_nj`: write toy:rows="):
        load_hardware("toy")


def test_its_name_is_among_the_known_ones(entry_point):
    entry_point("toy", "tests.hardware.toys:Npu")
    with pytest.raises(ConfigError, match="Did you mean 'toy'"):
        load_hardware("toyy")


not_a_model = 3


class NoDataclass(LayerModel):
    quantities = Npu.quantities
    speed: float = __import__("bitscout.hardware", fromlist=["x"]).tunable(1.0)

    def costs(self, layers, weight_bits, act_bits):
        raise NotImplementedError


class NoCosts(LayerModel):
    quantities = Npu.quantities


class Nothing(HardwareModel):
    pass


@dataclass(frozen=True, kw_only=True)
class BadTypes(Npu):
    speed: "Missing" = 1  # noqa: F821


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Npu", r"'toy' \(no_such_module:Npu\) cannot be imported: No module"),
        (f"{HERE}:NoSuchClass", "cannot be imported: .*NoSuchClass"),
        (f"{HERE}:not_a_model", "must be a class that derives from .*LayerModel.*, got 3"),
        ("builtins:dict", "must be a class that derives from .*, got <class 'dict'>"),
        (f"{HERE}:NoDataclass", r"NoDataclass has options but is no dataclass. .*@dataclass\("),
        (f"{HERE}:NoCosts", "NoCosts lacks costs. Define them"),
        (f"{HERE}:Nothing", "Nothing lacks quantities, report. Define them"),
        (f"{HERE}:BadTypes", "types of the fields of hardware 'toy' .*'Missing' is not defined"),
    ],
)
def test_an_entry_point_that_is_no_model_is_refused(entry_point, value, message):
    entry_point("toy", value)
    with pytest.raises(ConfigError, match=message):
        load_hardware("toy:rows=1,energy_nj=1")


def test_a_target_of_the_package_comes_before_a_package_of_the_same_name(entry_point):
    entry_point("bitfusion", "tests.hardware.toys:Npu")
    assert not isinstance(load_hardware("bitfusion"), Npu)
    assert not hardware_names()["bitfusion"].startswith("From the package")


def test_paths_become_absolute_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths("bitfusion:batch=2,rows=8") == "bitfusion:batch=2,rows=8"
    assert with_absolute_paths("mine.yaml:batch=2") == {
        "name": str(tmp_path / "mine.yaml"),
        "batch": "2",
    }
    given = {"name": "measured", "command": ["python", "m.py"], "cache": "kept.jsonl"}
    assert with_absolute_paths(given) == {**given, "cache": str(tmp_path / "kept.jsonl")}
    absolute = with_absolute_paths("measured:command=python m.py 'a,b',cache=kept.jsonl")
    assert load_hardware(absolute).command == ("python", "m.py", "a,b")
