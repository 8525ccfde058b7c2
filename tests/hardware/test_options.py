"""Options as text, as YAML and as values."""

import math
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ConfigError
from bitscout.hardware import constant, tunable
from bitscout.hardware.options import check_bound, option_text, split_options, typed_option


@dataclass
class Options:
    whole: int = field(default=1, metadata={"unit": "bits"})
    real: float = field(default=1.0, metadata={"unit": "1"})
    flag: bool = field(default=False, metadata={"unit": "1"})
    text: str = field(default="", metadata={"unit": "1"})
    choice: Literal["a", "b"] = field(default="a", metadata={"unit": "1"})
    ports: Literal[0, 1] = field(default=0, metadata={"unit": "1"})
    maybe: int | None = field(default=None, metadata={"unit": "1"})
    table: dict[str, int] = field(default_factory=dict, metadata={"unit": "1"})


awkward = st.text(st.sampled_from("ab,:='\"\\ \n"), max_size=8)
ENTRIES, HINTS = {entry.name: entry for entry in fields(Options)}, get_type_hints(Options)


def typed(name, value):
    return typed_option("npu", ENTRIES[name], HINTS[name], value)


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("whole", "16", 16),
        ("whole", 16.0, 16),
        ("whole", 2**60 + 1, 2**60 + 1),
        ("real", "1e-3", 1e-3),
        ("real", 2, 2.0),
        ("flag", "True", True),
        ("flag", "yes", True),
        ("flag", "off", False),
        ("flag", False, False),
        ("text", "a b", "a b"),
        ("choice", "b", "b"),
        ("ports", "1", 1),
        ("ports", 0, 0),
        ("maybe", "none", None),
        ("maybe", None, None),
        ("maybe", "4", 4),
        ("table", {"a": 1}, {"a": 1}),
    ],
)
def test_values_become_the_type_of_their_field(name, given_value, expected):
    value = typed(name, given_value)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given_value", "message"),
    [
        ("whole", "16.5", "must be an integer in bits, got '16.5'"),
        ("whole", 16.5, "must be an integer in bits, got 16.5"),
        ("whole", "many", "must be an integer in bits, got 'many'"),
        ("whole", True, "must be an integer in bits, got True"),
        ("whole", None, "must be an integer in bits, got None"),
        ("whole", [1], r"must be an integer in bits, got \[1\]"),
        ("real", "nan", "must be a finite number, got 'nan'"),
        ("real", float("inf"), "must be a finite number, got inf"),
        ("real", "", "must be a number, got ''"),
        ("real", 10**400, "must be a number, got 10"),
        ("flag", "maybe", "must be true or false, got 'maybe'"),
        ("flag", 1, "must be true or false, got 1"),
        ("text", 5, "must be text, got 5"),
        ("choice", "c", "must be one of a, b, got 'c'"),
        ("choice", ["a"], r"must be one of a, b, got \['a'\]"),
        ("ports", True, "must be one of 0, 1, got True"),
        ("maybe", "x", "must be an integer, got 'x'"),
        ("table", "a", "must be a mapping, got 'a'"),
    ],
)
def test_values_of_another_type_are_refused(name, given_value, message):
    with pytest.raises(ConfigError, match=f"^`{name}` of hardware 'npu' {message}"):
        typed(name, given_value)


@given(
    st.fixed_dictionaries(
        {
            "whole": st.integers(-(2**63), 2**63),
            "real": st.floats(allow_nan=False, allow_infinity=False),
            "flag": st.booleans(),
            "choice": st.sampled_from(["a", "b"]),
            "ports": st.sampled_from([0, 1]),
            "maybe": st.none() | st.integers(-9, 9),
            "text": awkward,
        }
    )
)
def test_options_can_be_written_and_read(values):
    parts = [f"{name}={option_text(ENTRIES[name], value)}" for name, value in values.items()]
    read = {name: typed(name, value) for name, value in split_options(",".join(parts)).items()}
    assert read == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" a = 1 , b = x=y ", {"a": "1", "b": "x=y"}),
        ("a=1,,b=2,", {"a": "1", "b": "2"}),
        ("a='x,y',b=\"p,q\"", {"a": "x,y", "b": "p,q"}),
        ("a=\"m 'x,y' z\",b='p \"q\"'", {"a": "m 'x,y' z", "b": 'p "q"'}),
        ("a=m 'x,y',b=1", {"a": "m 'x,y'", "b": "1"}),
        ("a='x' 'y',b=1", {"a": "'x' 'y'", "b": "1"}),
        (r"a=x\,y,b=1", {"a": r"x\,y", "b": "1"}),
        ("a=it's,b=1", {"a": "it's", "b": "1"}),
        (r'a="x\",y",b=1', {"a": 'x",y', "b": "1"}),
        (r'a="C:\dir\\",b=1', {"a": "C:\\dir\\", "b": "1"}),
        ("a=,b=1", {"a": "", "b": "1"}),
        ("a='',b=\"\"", {"a": "", "b": ""}),
    ],
)
def test_commas_separate_unless_they_are_quoted(text, expected):
    assert split_options(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dense", "written name:key=value,key=value; got 'dense'"),
        ("a=1, b", "got ' b'. A value with a comma needs quotes around it"),
        ("=1", "got '=1'"),
        ("a=1,a=2", "`a` is given twice: '1' and '2'"),
    ],
)
def test_what_is_no_option_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        split_options(text)


def test_a_long_value_is_shortened_in_a_message():
    with pytest.raises(ConfigError) as caught:
        typed("whole", "9" * 10**6 + "x")
    assert len(str(caught.value)) < 250
    assert str(caught.value).endswith("9x'.")


# --- bounds


def bounded(value, entry):
    made = make_dataclass("Made", [("x", float, entry)])
    check_bound("npu", fields(made)[0], value)


@pytest.mark.parametrize(
    ("entry", "least", "said"),
    [
        (constant("Hz"), 5e-324, "above 0 Hz"),
        (constant("Hz", minimum=0), 0, "at least 0 Hz"),
        (tunable(1), -1e9, None),
        (tunable(3, minimum=2.5), 2.5, "at least 2.5"),
        (tunable(4, "cycles"), 5e-324, "above 0 cycles"),
        (tunable(0, "cycles"), 0, "at least 0 cycles"),  # Its default is always allowed.
        (tunable(-3.5, "dB"), -3.5, "at least -3.5 dB"),
        (tunable(None, "nJ"), 5e-324, "above 0 nJ"),
    ],
)
def test_a_number_with_a_unit_is_above_zero_unless_its_field_says_otherwise(entry, least, said):
    bounded(least, entry)
    bounded(10**400, entry)
    if said is not None:
        for value in (math.nextafter(least, -math.inf), least - 1):
            with pytest.raises(ConfigError, match=f"^`x` of hardware 'npu' must be {said}, got"):
                bounded(value, entry)
        with pytest.raises(ConfigError, match="got nan"):
            bounded(float("nan"), entry)


@pytest.mark.parametrize("value", [None, "text", True, False, (), [0]])
def test_what_is_no_number_has_no_bound(value):
    bounded(value, constant("Hz"))
