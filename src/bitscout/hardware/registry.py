# SPDX-License-Identifier: Apache-2.0
"""Hardware by name: built-in targets, target files, and models of other packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from bitscout.errors import ConfigError
from bitscout.hardware.model import HardwareModel
from bitscout.hardware.targets import Target, built_in_targets, read_target

__all__ = ["HardwareSpec", "hardware_names", "load_hardware"]

ENTRY_POINT_GROUP: Final = "bitscout.hardware"

HardwareSpec = str | Mapping[str, Any]
"""``NAME``, ``NAME:option=value,...``, or a mapping with ``name`` and the options."""


def load_hardware(spec: HardwareSpec, **options: object) -> HardwareModel:
    """Return the hardware model that `spec` describes.

    A name is looked for among the targets of the package, then among the models that other
    packages announce as entry points of the group ``bitscout.hardware``. A name that ends in
    ``.yaml`` is the path of a target file.

    Args:
        spec: ``bitfusion``, ``bitfusion:depthwise=dense,batch=16``, ``my-board.yaml:batch=2`` or
            ``{"name": "bitfusion", "batch": 16}``.
        **options: More options; they override those of `spec`.

    Raises:
        ConfigError: If the name, an option or a value is unknown or out of range.

    Example:
        >>> load_hardware("bitfusion:depthwise=dense", batch=16).spec
        'bitfusion:batch=16,depthwise=dense'
    """
    name, given = _parse(spec)
    given |= options
    target = _target(name)
    model = _model_class(target.model if target else name)
    settable = {entry.name: entry for entry in fields(model) if "unit" in entry.metadata}
    hints = get_type_hints(model)
    values = target.values(model) if target else {}
    for option, value in given.items():
        if option not in settable:
            nearest = get_close_matches(option, settable, n=1)
            hint = f"Did you mean `{nearest[0]}`?" if nearest else f"It has {', '.join(settable)}."
            msg = f"Hardware {name!r} has no option `{option}`. {hint}"
            raise ConfigError(msg)
        values[option] = value
    checked = {
        key: _typed(name, settable[key], hints[key], value) for key, value in values.items()
    }
    missing = [key for key, e in settable.items() if key not in checked and _is_required(e)]
    if missing:
        wanted = ", ".join(f"`{key}`" for key in missing)
        msg = f"Hardware {name!r} needs {wanted}: write {name}:{missing[0]}=..."
        raise ConfigError(msg)
    return model(name=name, **checked)


def hardware_names() -> dict[str, str]:
    """Return every name `load_hardware` knows, with one line about each."""
    found = {
        name: read_target(source, name).description for name, source in built_in_targets().items()
    }
    for name, entry in sorted(_entry_points().items()):
        found.setdefault(
            name, f"From the package {entry.dist.name if entry.dist else entry.value}."
        )
    return found


def _target(name: str) -> Target | None:
    if name.endswith((".yaml", ".yml")):
        return read_target(Path(name).expanduser(), name)
    source = built_in_targets().get(name)
    return read_target(source, name) if source else None


def _model_class(name: str) -> type[HardwareModel]:
    built_in = _built_in_models()
    if name in built_in:
        return built_in[name]()
    entry = _entry_points().get(name)
    if entry is None:
        known = sorted({*built_in_targets(), *_entry_points()})
        nearest = get_close_matches(name, known, n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        msg = (
            f"No hardware is called {name!r}. {hint}Known: {', '.join(known)}; or the path of a "
            "target file that ends in .yaml."
        )
        raise ConfigError(msg)
    try:
        model = entry.load()
    except Exception as error:  # Anything may happen in foreign code.
        msg = f"Hardware {name!r} ({entry.value}) cannot be imported: {error}"
        raise ConfigError(msg) from error
    if not (isinstance(model, type) and issubclass(model, HardwareModel)):
        msg = (
            f"Hardware {name!r} ({entry.value}) must be a class that derives from "
            f"bitscout.hardware.LayerModel or HardwareModel, got {model!r}."
        )
        raise ConfigError(msg)
    return model


def _built_in_models() -> dict[str, Callable[[], type[HardwareModel]]]:
    """Return the models that target files may name; each is imported when it is asked for."""
    return {}


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _parse(spec: HardwareSpec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, Mapping):
        given = {str(key): value for key, value in spec.items()}
        name = given.pop("name", None)
        if not isinstance(name, str) or not name:
            msg = f"Hardware needs a `name`, got {dict(spec)!r}."
            raise ConfigError(msg)
        return name, given
    name, _, text = spec.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            msg = (
                f"Options of hardware are written name:key=value,key=value; got {part!r} in "
                f"{spec!r}."
            )
            raise ConfigError(msg)
        options[key.strip()] = value.strip()
    if not name.strip():
        msg = f"Hardware needs a name before its options, got {spec!r}."
        raise ConfigError(msg)
    return name.strip(), options


def _is_required(entry: Field[Any]) -> bool:
    return entry.default is entry.default_factory  # Both are MISSING.


def _typed(name: str, entry: Field[Any], hint: Any, value: Any) -> Any:  # noqa: ANN401  # a field's type and value
    """Return `value` as the type of its field, converted from text where that is meant."""
    options = get_args(hint)
    if get_origin(hint) is not None and type(None) in options:
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
        options = get_args(hint)
    if options and all(isinstance(option, str) for option in options):  # Literal
        if value not in options:
            raise _wrong(name, entry, f"one of {', '.join(options)}", value)
        return value
    if hint is bool:
        named = {"true": True, "yes": True, "false": False, "no": False, True: True, False: False}
        key = value.lower() if isinstance(value, str) else value
        if not isinstance(value, str | bool) or key not in named:
            raise _wrong(name, entry, "true or false", value)
        return named[key]
    if hint in (int, float):
        return _number(name, entry, hint, value)
    if hint is str and not isinstance(value, str):
        raise _wrong(name, entry, "text", value)
    return value


def _number(name: str, entry: Field[Any], hint: type, value: Any) -> float:  # noqa: ANN401  # a field's value
    unit = entry.metadata["unit"]
    what = "an integer" if hint is int else "a number"
    expected = what if unit == "1" else f"{what} in {unit}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(name, entry, expected, value)
    try:
        number = float(value)
        exact = int(value) if hint is int else number
    except (ValueError, OverflowError) as error:
        raise _wrong(name, entry, expected, value) from error
    if not math.isfinite(number) or (hint is int and exact != number):
        raise _wrong(name, entry, expected, value)
    return exact


def _wrong(name: str, entry: Field[Any], expected: str, value: object) -> ConfigError:
    return ConfigError(f"`{entry.name}` of hardware {name!r} must be {expected}, got {value!r}.")
