"""Target files: their form, their units, and every way they can be wrong."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import yaml
from tests.hardware.toys import Npu

from bitscout.errors import ConfigError
from bitscout.hardware import LayerModel, constant
from bitscout.hardware.targets import built_in_targets, read_target

GOOD = """
model: toy
description: a toy
notes: [one, two]
constants:
  rows: {value: 16, unit: units, source: data sheet}
  energy_nj: {value: 300, unit: pJ, source: data sheet}
options: {overhead: 3}
"""


@dataclass(frozen=True, kw_only=True)
class Units(LayerModel):
    """One constant of each unit that converts."""

    quantities: ClassVar = {}

    clock_hz: float = constant("Hz")
    clock_mhz: float = constant("MHz")
    buffer_bytes: int = constant("bytes")
    access_nj: float = constant("nJ")
    bit_nj: float = constant("nJ/bit")
    power_nw: float = constant("nW")
    wake_ms: float = constant("ms")

    def costs(self, layers, weight_bits, act_bits):
        raise NotImplementedError


@pytest.fixture
def target(tmp_path):
    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return read_target(path, "my")

    return write


def with_constants(**constants):
    document = yaml.safe_load(GOOD)
    document["constants"] |= constants
    return yaml.safe_dump(document)


def with_one(name, value, unit):
    return with_constants(**{name: {"value": value, "unit": unit, "source": "data sheet"}})


def test_a_good_file(target):
    read = target(GOOD)
    assert (read.name, read.model, read.description) == ("my", "toy", "a toy")
    assert read.notes == ("one", "two")
    assert read.values(Npu) == {"rows": 16, "energy_nj": 0.3, "overhead": 3}


def test_an_option_may_be_a_constant_where_it_has_a_source(target):
    text = with_one("batch", 4, "1")
    assert target(text).values(Npu)["batch"] == 4


# --- units


@pytest.mark.parametrize(
    ("name", "value", "unit", "expected"),
    [
        ("clock_hz", 500, "MHz", 500_000_000),
        ("clock_hz", 0.5, "GHz", 500_000_000),
        ("clock_hz", 4.7e2, "kHz", 470_000),
        ("clock_mhz", 980_000, "kHz", 980),
        ("clock_mhz", 1, "Hz", 1e-6),
        ("buffer_bytes", 64, "KiB", 65_536),
        ("buffer_bytes", 4.1, "kB", 4_100),  # 4.1 * 1000 is 4099.999... in floats.
        ("buffer_bytes", 0.25, "MiB", 262_144),
        ("buffer_bytes", 1.3, "MB", 1_300_000),
        ("buffer_bytes", 7, "B", 7),
        ("access_nj", 15, "pJ", 0.015),
        ("access_nj", 2, "uJ", 2_000),
        ("access_nj", 0.5, "mJ", 500_000),
        ("bit_nj", 15.0, "pJ/bit", 0.015),
        ("power_nw", 3.6735, "mW", 3_673_500),
        ("power_nw", 1, "W", 10**9),
        ("power_nw", 2, "uW", 2_000),
        ("wake_ms", 3, "s", 3_000),
        ("wake_ms", 5, "us", 0.005),
        ("wake_ms", 1e3, "ns", 0.001),
        ("wake_ms", 5, "ms", 5),
    ],
)
def test_a_constant_is_converted_exactly_to_the_models_unit(target, name, value, unit, expected):
    text = yaml.safe_dump(
        {"model": "x", "constants": {name: {"value": value, "unit": unit, "source": "s"}}}
    )
    read = target(text)
    others = {
        "clock_hz": (1, "Hz"),
        "clock_mhz": (1, "MHz"),
        "buffer_bytes": (1, "bytes"),
        "access_nj": (1, "nJ"),
        "bit_nj": (1, "nJ/bit"),
        "power_nw": (1, "nW"),
        "wake_ms": (1, "ms"),
    }
    whole = type(read)(
        **{
            **{slot: getattr(read, slot) for slot in read.__slots__},
            "constants": others | dict(read.constants),
        }
    )
    converted = whole.values(Units)[name]
    assert converted == expected
    assert type(converted) is type(expected)


def test_a_value_in_the_models_own_unit_is_left_alone(target):
    assert target(with_one("rows", [5], "units")).values(Npu)["rows"] == [5]
    assert target(with_one("rows", "many", "units")).values(Npu)["rows"] == "many"


def test_numbers_are_those_of_yaml_1_2(target):
    text = GOOD.replace("value: 16", "value: 1e1").replace("value: 300", "value: 3E2")
    assert target(text).values(Npu) == {"rows": 10.0, "energy_nj": 0.3, "overhead": 3}


@pytest.mark.parametrize("unit", ["nJ", "pJ"])
@pytest.mark.parametrize("value", ["300", " 1e-3", ".5", "nan", "inf"])
def test_a_number_in_quotes_is_refused(target, value, unit):
    text = GOOD.replace("value: 300, unit: pJ", f"value: {value!r}, unit: {unit}")
    message = rf"my.yaml: the value of `energy_nj` must be a number, without quotes, got '{value}'"
    with pytest.raises(ConfigError, match=message):
        target(text).values(Npu)


@pytest.mark.parametrize(
    ("name", "value", "unit", "message"),
    [
        ("rows", 16, "cells", "`rows` must be in units, got 16 in 'cells'"),
        ("energy_nj", 5, "mW", "`energy_nj` must be in pJ or nJ or uJ or mJ, got 5 in 'mW'"),
        ("energy_nj", 5, "NJ", "`energy_nj` must be in pJ or nJ"),
        ("energy_nj", "many", "mW", "`energy_nj` must be in .*, got 'many' in 'mW'"),
    ],
)
def test_a_unit_that_does_not_convert_is_refused(target, name, value, unit, message):
    with pytest.raises(ConfigError, match=f"my.yaml: {message}"):
        target(with_one(name, value, unit)).values(Npu)


@pytest.mark.parametrize("value", ["many", True, [1], None, float("nan"), float("inf")], ids=str)
def test_a_value_that_is_no_finite_number_is_not_blamed_on_its_unit(target, value):
    with pytest.raises(ConfigError) as caught:
        target(with_one("energy_nj", value, "pJ")).values(Npu)
    assert str(caught.value).endswith(
        f"my.yaml: the value of `energy_nj` must be a finite number, got {value!r}."
    )


def test_a_long_value_is_shortened(target):
    with pytest.raises(ConfigError) as caught:
        target(with_one("energy_nj", ["x"] * 10**5, "pJ")).values(Npu)
    assert len(str(caught.value)) < 400


# --- names


def test_a_missing_constant_is_named_with_its_unit(target):
    document = yaml.safe_load(GOOD)
    del document["constants"]["rows"]
    with pytest.raises(ConfigError, match=r"my.yaml lacks `rows`. .* unit \(units for rows\)"):
        target(yaml.safe_dump(document)).values(Npu)
    with pytest.raises(ConfigError, match="lacks `rows`, `energy_nj`"):
        target("model: toy").values(Npu)


def test_a_misspelt_constant_is_named_with_the_nearest(target):
    with pytest.raises(ConfigError, match=r"toy has no constant `energy_nJ`. Did you mean `energ"):
        target(with_one("energy_nJ", 1, "nJ")).values(Npu)
    with pytest.raises(ConfigError, match=r"toy has no constant `zzz`. It has `batch`, `rows`"):
        target(with_one("zzz", 1, "nJ")).values(Npu)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{overhed: 3}", "toy has no option `overhed`. Did you mean `overhead`"),
        ("{rows: 3}", r"gives `rows` twice, as a constant and as an option"),
        ("[overhead]", r"`options` must be a mapping, got \['overhead'\]"),
        ("{name: x}", "toy has no option `name`"),
        ("{origin: x}", "toy has no option `origin`"),
    ],
)
def test_options_that_are_wrong_are_refused(target, options, message):
    with pytest.raises(ConfigError, match=f"my.yaml.*{message}"):
        target(GOOD.replace("{overhead: 3}", options)).values(Npu)


def test_a_constant_without_unit_and_source_is_refused(target):
    text = "model: toy\noptions: {rows: 3, energy_nj: 2}\n"
    with pytest.raises(ConfigError, match=r"`rows` is a constant. .* unit \(units\) and source"):
        target(text).values(Npu)


# --- form


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with `model`"),
        ("- a", "must be a mapping with `model`"),
        ("model: 5", "must be a mapping with `model`"),
        ("constants: {}", "must be a mapping with `model`"),
        ("model: [", "is no YAML"),
        ("model: \x00", "is no YAML"),
        (
            "model: toy\nmodel: mcu",
            "is no YAML: the key 'model' is there twice, .* line 2",
        ),
        ("model: toy\noptions: {a: 1, b: 2, 'a': 1}", "the key 'a' is there twice"),
        ("{? [a] : 1, ? [a] : 2}", "is no YAML"),
        ("model: toy\nconstant: {}", "unknown key `constant`. Did you mean `constants`"),
        ("model: toy\nzzz: {}", "unknown key `zzz`. It has `model`, `description`"),
        ("model: toy\nconstants: [rows]", r"`constants` must be a mapping, got \['rows'\]"),
        ("model: toy\nconstants: {rows: 16}", "`rows` must have exactly the keys value, unit and"),
        ("model: toy\nconstants: {rows: {value: 1, unit: m}}", "must have exactly the keys"),
        (
            "model: toy\nconstants: {rows: {value: 1, unit: m, source: s, note: n}}",
            "must have exactly the keys",
        ),
        ("model: toy\nconstants: {rows: {value: 1, unit: m, source: }}", "`rows` needs a source"),
        ("model: toy\nconstants: {rows: {value: 1, unit: '', source: s}}", "`rows` needs a unit"),
        ("model: toy\nnotes: a text", "`notes` must be a list of texts, got 'a text'"),
        ("model: toy\nnotes: [5]", r"`notes` must be a list of texts, got \[5\]"),
    ],
)
def test_a_file_of_another_form_is_refused(target, text, message):
    with pytest.raises(ConfigError, match=message):
        target(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: .*No such file"):
        read_target(tmp_path / "none.yaml", "none")
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read"):
        read_target(tmp_path / "latin.yaml", "latin")


def test_targets_of_the_package_have_sources_and_a_line_of_description():
    for name, source in built_in_targets().items():
        read = read_target(source, name)
        assert read.description
        assert "\n" not in read.description
