# SPDX-License-Identifier: Apache-2.0
"""Target files: the constants of one piece of hardware, each with its unit and source.

A target file is YAML::

    model: bitfusion                  # the hardware model that reads it
    description: Bit Fusion, 45 nm    # one line for `bitscout list hardware`
    notes: []                         # what a reader of the figures must know
    constants:
      rows: {value: 16, unit: fusion units, source: bf_e_conf.ini}
    options: {depthwise: ic1}         # defaults of this target

Constants are the fields that a model declares with `constant`; the unit and source of each must be
given. Fields declared with `tunable` are options, whose defaults a target may set under `options`,
or under `constants` where the target has a unit and a source to state. Values are converted to the
unit the model computes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from decimal import Decimal
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from math import isfinite
from pathlib import Path
from typing import Any, Final

import yaml

from bitscout.errors import ConfigError, shown
from bitscout.hardware.model import HardwareModel
from bitscout.hardware.strict_yaml import load_yaml

__all__ = ["Target", "built_in_targets", "read_target"]

# Units that are the same quantity, each in terms of the smallest.
_SCALES: Final = (
    {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9},
    {"bytes": 1, "B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20},
    {"pJ": 1, "nJ": 10**3, "uJ": 10**6, "mJ": 10**9},
    {"pJ/bit": 1, "nJ/bit": 10**3},
    {"nW": 1, "uW": 10**3, "mW": 10**6, "W": 10**9},
    {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9},
)
_KEYS: Final = ("model", "description", "notes", "constants", "options")
_CONSTANT_KEYS: Final = ("value", "unit", "source")


@dataclass(frozen=True, slots=True)
class Target:
    """A target file that was read and has the right form; its constants are not checked yet.

    Attributes:
        name: Name of the target.
        model: Name of the hardware model.
        description: One line.
        constants: Value and unit of each constant, by name.
        options: Defaults of this target.
        notes: What a reader of the figures must know.
        path: Where it was read.
    """

    name: str
    model: str
    description: str
    constants: Mapping[str, tuple[Any, str]]
    options: Mapping[str, Any]
    notes: tuple[str, ...]
    path: str

    def values(self, model: type[HardwareModel]) -> dict[str, Any]:
        """Return constants and options as arguments of `model`, in its units.

        Raises:
            ConfigError: If a constant is missing, misspelt, without unit and source, or in a unit
                that does not convert.
        """
        declared = {
            entry.name: entry for entry in fields(model) if entry.init and "unit" in entry.metadata
        }
        self._check_names(model, declared)
        given = {
            name: self._converted(name, value, unit, declared[name].metadata["unit"])
            for name, (value, unit) in self.constants.items()
        } | dict(self.options)
        missing = [
            name
            for name, entry in declared.items()
            if name not in given and entry.default is MISSING and entry.default_factory is MISSING
        ]
        if missing:
            msg = (
                f"{self.path} lacks {', '.join(f'`{name}`' for name in missing)}. Add each under "
                f"`constants` with value, unit ({declared[missing[0]].metadata['unit']} for "
                f"{missing[0]}) and source."
            )
            raise ConfigError(msg)
        return given

    def _check_names(self, model: type[HardwareModel], declared: Mapping[str, Field[Any]]) -> None:
        for what, names in (("constant", self.constants), ("option", self.options)):
            for name in names:
                if name not in declared:
                    hint = _hint(name, declared)
                    msg = f"{self.path}: {self.model} has no {what} `{name}`.{hint}"
                    raise ConfigError(msg)
        for name in self.options:
            if name in self.constants:
                msg = f"{self.path} gives `{name}` twice, as a constant and as an option."
                raise ConfigError(msg)
            entry = declared[name]
            if entry.default is entry.default_factory:  # Both are MISSING.
                msg = (
                    f"{self.path}: `{name}` is a constant. Give it under `constants`, with value, "
                    f"unit ({entry.metadata['unit']}) and source."
                )
                raise ConfigError(msg)

    def _converted(self, name: str, value: Any, unit: str, wanted: str) -> Any:  # noqa: ANN401  # YAML
        if isinstance(value, str) and _is_number(value):
            msg = (
                f"{self.path}: the value of `{name}` must be a number, without quotes, got "
                f"{shown(value)}."
            )
            raise ConfigError(msg)
        if unit == wanted:
            return value
        scale = next((s for s in _SCALES if wanted in s), {wanted: 1})
        if unit not in scale:
            msg = (
                f"{self.path}: `{name}` must be in {' or '.join(scale)}, got {shown(value)} in "
                f"{shown(unit)}."
            )
            raise ConfigError(msg)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            msg = (
                f"{self.path}: the value of `{name}` must be a finite number, got {shown(value)}."
            )
            raise ConfigError(msg)
        number = Decimal(str(value))
        # Decimal, because 4.1 kB in floats is not 4100 bytes.
        converted = number * scale[unit] / scale[wanted]
        return int(converted) if converted == converted.to_integral_value() else float(converted)


def built_in_targets() -> dict[str, Traversable]:
    """Return the target files of the package by name."""
    folder = resources.files("bitscout.hardware") / "target_files"
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in entries
        if entry.name.endswith(".yaml")
    }


def read_target(source: Traversable | Path, name: str) -> Target:
    """Return the target file at `source`.

    Raises:
        ConfigError: If it cannot be read or does not have the form above.
    """
    try:
        document = load_yaml(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The target file {source} cannot be read: {error}."
        raise ConfigError(msg) from error
    except yaml.YAMLError as error:
        msg = f"The target file {source} is no YAML: {' '.join(str(error).split())}."
        raise ConfigError(msg) from error
    if not isinstance(document, dict) or not isinstance(document.get("model"), str):
        msg = (
            f"The target file {source} must be a mapping with `model`, the name of a hardware "
            "model, and `constants`."
        )
        raise ConfigError(msg)
    _check_keys(document, _KEYS, f"The target file {source}")
    return Target(
        name=name,
        model=document["model"],
        description=str(document.get("description") or ""),
        constants=_constants(document.get("constants") or {}, str(source)),
        options=_mapping(document.get("options") or {}, "options", str(source)),
        notes=_notes(document.get("notes") or [], str(source)),
        path=str(source),
    )


def _constants(section: object, path: str) -> dict[str, tuple[Any, str]]:
    constants = {}
    for name, entry in _mapping(section, "constants", path).items():
        if not isinstance(entry, dict) or set(entry) != set(_CONSTANT_KEYS):
            msg = (
                f"{path}: the constant `{name}` must have exactly the keys value, unit and "
                f"source, got {shown(entry)}."
            )
            raise ConfigError(msg)
        for key in ("unit", "source"):
            if not str(entry[key] or "").strip():
                msg = f"{path}: the constant `{name}` needs a {key}, got {shown(entry[key])}."
                raise ConfigError(msg)
        constants[name] = (entry["value"], str(entry["unit"]))
    return constants


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _notes(section: object, path: str) -> tuple[str, ...]:
    if not isinstance(section, list) or not all(isinstance(note, str) for note in section):
        msg = f"{path}: `notes` must be a list of texts, got {shown(section)}."
        raise ConfigError(msg)
    return tuple(section)


def _mapping(section: object, name: str, path: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        msg = f"{path}: `{name}` must be a mapping, got {shown(section)}."
        raise ConfigError(msg)
    return {str(key): value for key, value in section.items()}


def _check_keys(document: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in document:
        if key not in known:
            msg = f"{what} has an unknown key `{key}`.{_hint(str(key), known)}"
            raise ConfigError(msg)


def _hint(name: str, known: Any) -> str:  # noqa: ANN401  # any iterable of names
    nearest = get_close_matches(name, list(known), n=1)
    if nearest:
        return f" Did you mean `{nearest[0]}`?"
    return f" It has {', '.join(f'`{entry}`' for entry in known)}."
