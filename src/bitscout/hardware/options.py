# SPDX-License-Identifier: Apache-2.0
"""Options of a hardware model: from text and from YAML to the type of their field, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

import numpy as np

from bitscout.errors import ConfigError, shown

__all__ = ["Notation", "check_bound", "option_text", "split_options", "typed_option"]

# A comma between quotes or after a backslash separates nothing; a lone quote is a character.
_PART: Final = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^,])+""", re.DOTALL)
# A value whose commas and quotes all belong to pairs of quotes: it separates nothing.
_CLOSED: Final = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^,"'\\])*""", re.DOTALL)
_QUOTED: Final = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)\"""", re.DOTALL)
_TRUTH: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Notation:
    """How an option is written whose type is none of the plain ones.

    Attributes:
        expected: What is expected, for messages.
        read: From text or from what YAML has to the value; raises ValueError or TypeError.
        write: From the value to text that `read` understands.
    """

    expected: str
    read: Callable[[Any], Any]
    write: Callable[[Any], str]


def split_options(text: str) -> dict[str, str]:
    """Return ``key=value,key=value`` as a mapping; commas inside quotes belong to the value.

    Quotes around a whole value are not part of it, as in a shell: between double quotes a
    backslash keeps a quote and a backslash. Quotes inside a value stay.

    Raises:
        ConfigError: If a part is not ``key=value``, or a key is there twice.

    Example:
        >>> split_options("batch=16,command=python 'a,b.py'")
        {'batch': '16', 'command': "python 'a,b.py'"}
        >>> split_options('command="python a.py",retries=2')
        {'command': 'python a.py', 'retries': '2'}
    """
    options: dict[str, str] = {}
    for part in _PART.findall(text):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals or not key:
            msg = (
                f"Options of hardware are written name:key=value,key=value; got {shown(part)}. A "
                "value with a comma needs quotes around it, or a mapping in a configuration."
            )
            raise ConfigError(msg)
        if key in options:
            both = f"{shown(options[key])} and {shown(value)}"
            msg = f"The hardware option `{key}` is given twice: {both}."
            raise ConfigError(msg)
        options[key] = _unquoted(value)
    return options


def option_text(entry: Field[Any], value: object) -> str:
    """Return `value` as `split_options` and `typed_option` read it."""
    notation: Notation | None = entry.metadata.get("notation")
    if value is None:
        return "none"
    if notation is not None:
        return _quoted(notation.write(value))
    return str(value).lower() if isinstance(value, bool) else _quoted(str(value))


def _unquoted(text: str) -> str:
    """Return `text` without the quotes around the whole of it."""
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return text
    single, double = quoted.groups()
    return single if single is not None else re.sub(r"""\\(["\\])""", r"\1", double)


def _quoted(text: str) -> str:
    """Return `text` so that `split_options` gives it back, quoted only where it must be."""
    if text == text.strip() and _CLOSED.fullmatch(text) and not _QUOTED.fullmatch(text):
        return text
    escaped = re.sub(r"""(["\\])""", r"\\\1", text)
    return f'"{escaped}"'


def check_bound(owner: str, entry: Field[Any], value: object) -> None:
    """Check the bound of a number: its field's `minimum`, and above 0 where it has a unit.

    Args:
        owner: Name of the hardware, for messages.
        entry: The field; its metadata has the unit, and the minimum where it has one.
        value: Its value; what is no number has no bound.

    Raises:
        ConfigError: Naming the option, the bound and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return
    unit, minimum = entry.metadata["unit"], entry.metadata.get("minimum")
    if minimum is None:
        is_allowed, bound = unit == "1" or value > 0, "above 0"
    else:
        is_allowed, bound = value >= minimum, f"at least {minimum:g}"
    if not is_allowed:
        raise _wrong(owner, entry, bound if unit == "1" else f"{bound} {unit}", value)


def typed_option(owner: str, entry: Field[Any], hint: Any, value: Any) -> Any:  # noqa: ANN401  # a field's type and value
    """Return `value` as the type of its field, converted from text where that is meant.

    Args:
        owner: Name of the hardware, for messages.
        entry: The field; its metadata has the unit, and the notation where it needs one.
        hint: Its type.
        value: From a target file, a configuration or the command line.

    Raises:
        ConfigError: Naming the option, what was expected and what came.
    """
    if NoneType in get_args(hint):
        if value is None or value == "none":
            return None
        hint = next(option for option in get_args(hint) if option is not NoneType)
    notation: Notation | None = entry.metadata.get("notation")
    if notation is not None:
        return _noted(owner, entry, notation, value)
    if get_origin(hint) is Literal:
        return _choice(owner, entry, get_args(hint), value)
    if hint is bool:
        return _truth(owner, entry, value)
    if hint in (int, float):
        return _number(owner, entry, hint, value)
    if hint is str and not isinstance(value, str):
        raise _wrong(owner, entry, "text", value)
    if (get_origin(hint) or hint) in (dict, Mapping) and not isinstance(value, Mapping):
        raise _wrong(owner, entry, "a mapping", value)
    return value


def _noted(owner: str, entry: Field[Any], notation: Notation, value: object) -> object:
    try:
        return notation.read(value)
    except ConfigError:  # It says more than `expected`.
        raise
    except (TypeError, ValueError) as error:
        raise _wrong(owner, entry, notation.expected, value) from error


def _choice(owner: str, entry: Field[Any], choices: tuple[Any, ...], value: object) -> object:
    named = {str(choice): choice for choice in choices}
    if isinstance(value, bool) or str(value) not in named:
        raise _wrong(owner, entry, f"one of {', '.join(named)}", value)
    return named[str(value)]


def _truth(owner: str, entry: Field[Any], value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _TRUTH:
        raise _wrong(owner, entry, "true or false", value)
    return _TRUTH[value.lower()]


def _number(owner: str, entry: Field[Any], hint: type, value: object) -> float:
    unit = entry.metadata["unit"]
    what = "an integer" if hint is int else "a number"
    expected = what if unit == "1" else f"{what} in {unit}"
    # YAML 1.1 reads 1e-3 as text, for want of a point: numbers are accepted as text everywhere.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(owner, entry, expected, value)
    if hint is int and isinstance(value, float) and not value.is_integer():
        raise _wrong(owner, entry, expected, value)
    try:
        number = int(value) if hint is int else float(value)
    except (ValueError, OverflowError) as error:
        raise _wrong(owner, entry, expected, value) from error
    if not math.isfinite(float(value)):
        raise _wrong(owner, entry, expected.replace("a number", "a finite number"), value)
    return number


def _wrong(owner: str, entry: Field[Any], expected: str, value: object) -> ConfigError:
    return ConfigError(
        f"`{entry.name}` of hardware {owner!r} must be {expected}, got {shown(value)}."
    )
