# SPDX-License-Identifier: Apache-2.0
"""Target files: the constants of one piece of hardware, each with its unit and source.

A target file is YAML::

    model: bitfusion                  # the hardware model that reads it
    description: Bit Fusion, 45 nm    # one line for `bitscout list hardware`
    notes: []                         # what a reader of the figures must know
    constants:
      rows: {value: 16, unit: fusion units, source: bf_e_conf.ini}
    options: {depthwise: ic1}         # defaults of this target

Constants are the model's fields. Their values are converted to the unit the model computes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import yaml

from bitscout.errors import ConfigError
from bitscout.hardware.model import HardwareModel

__all__ = ["Target", "built_in_targets", "read_target"]

# Units that are the same quantity, in terms of the first.
_SCALES: Final = (
    {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    {"bytes": 1.0, "B": 1.0, "kB": 1e3, "KiB": 1024.0, "MB": 1e6, "MiB": 1024.0**2},
    {"nJ": 1.0, "pJ": 1e-3, "uJ": 1e3},
    {"nJ/bit": 1.0, "pJ/bit": 1e-3},
    {"nW": 1.0, "uW": 1e3, "mW": 1e6, "W": 1e9},
    {"s": 1.0, "ms": 1e-3},
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
            ConfigError: If a constant is missing, misspelt or in a unit that does not convert.
        """
        declared = {
            entry.name: entry for entry in fields(model) if entry.init and "unit" in entry.metadata
        }
        given: dict[str, Any] = {}
        for name, (value, unit) in self.constants.items():
            if name not in declared:
                hint = _hint(name, declared)
                msg = f"{self.path}: {model.__name__} has no constant `{name}`.{hint}"
                raise ConfigError(msg)
            given[name] = self._converted(name, value, unit, declared[name].metadata["unit"])
        for name, value in self.options.items():
            if name not in declared:
                msg = (
                    f"{self.path}: {model.__name__} has no option `{name}`.{_hint(name, declared)}"
                )
                raise ConfigError(msg)
            given[name] = value
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

    def _converted(self, name: str, value: Any, unit: str, wanted: str) -> Any:  # noqa: ANN401  # YAML
        if unit == wanted:
            return value
        scale = next((s for s in _SCALES if wanted in s), {wanted: 1.0})
        if (
            unit not in scale
            or isinstance(value, str | bool)
            or not isinstance(value, int | float)
        ):
            msg = (
                f"{self.path}: `{name}` must be in {' or '.join(scale)}, got {value!r} in "
                f"{unit!r}."
            )
            raise ConfigError(msg)
        converted = value * scale[unit] / scale[wanted]
        return int(converted) if float(converted).is_integer() else converted


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
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
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
        notes=tuple(str(note) for note in document.get("notes") or ()),
        path=str(source),
    )


def _constants(section: object, path: str) -> dict[str, tuple[Any, str]]:
    constants = {}
    for name, entry in _mapping(section, "constants", path).items():
        if not isinstance(entry, dict) or set(entry) != set(_CONSTANT_KEYS):
            msg = (
                f"{path}: the constant `{name}` must have exactly the keys value, unit and "
                f"source, got {entry!r}."
            )
            raise ConfigError(msg)
        constants[name] = (entry["value"], str(entry["unit"]))
    return constants


def _mapping(section: object, name: str, path: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        msg = f"{path}: `{name}` must be a mapping, got {section!r}."
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
