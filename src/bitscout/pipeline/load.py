# SPDX-License-Identifier: Apache-2.0
"""From YAML files, presets and ``key.path=value`` settings to a checked `RunConfig`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from bitscout.errors import ConfigError
from bitscout.pipeline.config import ModelSpaceConfig, RunConfig, SpaceConfig

__all__ = [
    "apply_setting",
    "dump_config",
    "load_config",
    "make_config",
    "preset_document",
    "preset_names",
    "preset_text",
    "set_key",
]


# Kinds of spaces, as the union of their sections tags them.
SPACES: Mapping[str, type[BaseModel]] = {"bomp": SpaceConfig, "model": ModelSpaceConfig}


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: PyYAML alone reads ``1e-3`` as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def preset_names() -> list[str]:
    """Return the names of the presets in the package, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in (resources.files("bitscout") / "presets").iterdir()
        if entry.name.endswith(".yaml")
    )


def preset_text(name: str) -> str:
    """Return the YAML text of preset `name`.

    Raises:
        ConfigError: If there is no such preset, naming the nearest.
    """
    if name not in preset_names():
        msg = (
            f"There is no preset {name!r}{_nearest(name, preset_names())} "
            f"Presets: {', '.join(preset_names())}; or give the path of a .yaml file."
        )
        raise ConfigError(msg)
    return (resources.files("bitscout") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def preset_document(name: str) -> dict[str, Any]:
    """Return preset `name` as a plain document, to be changed and checked.

    Raises:
        ConfigError: If there is no such preset.
    """
    return _parse_yaml(preset_text(name), name)


def load_config(source: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a preset or a YAML file, with settings on top.

    Args:
        source: Name of a preset, or a path that ends in ``.yaml`` or ``.yml``.
        settings: Any number of ``key.path=value``; the value is read as YAML.

    Raises:
        ConfigError: If the source is unknown, is no mapping, or a value is not allowed.
    """
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"Cannot read the configuration {path}: {_os_reason(error)}."
            raise ConfigError(msg) from error
    else:
        text = preset_text(str(source))
    document = _parse_yaml(text, str(source))
    for setting in settings:
        apply_setting(document, setting)
    return make_config(document, source=str(source))


def make_config(document: Mapping[str, Any], source: str = "the configuration") -> RunConfig:
    """Return the checked configuration of a plain mapping.

    Raises:
        ConfigError: One line for each key that is unknown or has a value that is not allowed.
    """
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        lines = [_explain(dict(entry)) for entry in error.errors()]
        head = f"{source}: " if len(lines) == 1 else f"{source} has {len(lines)} faults:\n  "
        raise ConfigError(head + "\n  ".join(dict.fromkeys(lines))) from error


def dump_config(config: RunConfig) -> str:
    """Return the whole configuration as YAML, every default written out."""
    document = config.model_dump(mode="json")
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=99)


def _parse_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        msg = f"{source} is not valid YAML: {' '.join(str(error).split())}."
        raise ConfigError(msg) from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        msg = f"{source}: expected keys and values, got {type(document).__name__}."
        raise ConfigError(msg)
    return document


def set_key(document: dict[str, Any], path: str, value: object) -> None:
    """Set ``section.key`` of a nested document, making sections that are not there.

    Raises:
        ConfigError: If a part of `path` before the last is a value, not a section.
    """
    *parents, leaf = path.strip().split(".")
    section = document
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            msg = f"Cannot set `{path}`: `{parent}` is a value, not a section."
            raise ConfigError(msg)
        section = inner
    section[leaf] = value


def apply_setting(document: dict[str, Any], setting: str) -> None:
    """Set one ``key.path=value`` of a nested document; the value is YAML.

    Raises:
        ConfigError: If the setting is of another form, or goes through a value.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        msg = f"--set expects key.path=value, for instance training.epochs=5; got {setting!r}."
        raise ConfigError(msg)
    set_key(document, key, _parse_yaml(f"value: {value}", f"--set {setting}")["value"])


def _explain(entry: dict[str, Any]) -> str:
    """Turn one pydantic error into a sentence: the key, what was expected, what came."""
    # Branches of a union add their type to the path; they are not keys a user wrote.
    loc = list(entry["loc"])
    space = SPACES[loc.pop(1)] if loc[:1] == ["space"] and loc[1:2] and loc[1] in SPACES else None
    path = [str(part) for part in loc if not _is_branch(part)]
    key = ".".join(path) or "configuration"
    if entry["type"] == "extra_forbidden":
        known = list(space.model_fields) if space is not None else _keys_of(path[:-1])
        near = _nearest(path[-1], known)
        return f"`{key}` is not a key{near} Known here: {', '.join(known)}."
    message = str(entry["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not path:  # Sections that do not fit together: the message names the keys.
        return f"{message}."
    if message.endswith("."):  # A whole sentence, which says what came.
        return f"`{key}`: {message}"
    return f"`{key}`: {message}; got {entry['input']!r}."


def _is_branch(part: object) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "none"})


def _keys_of(path: Iterable[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence: a question that names the nearest name, or a full stop."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean `{matches[0]}`?" if matches else "."


def _os_reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "unknown error" if isinstance(error, OSError) else "it is not UTF-8"
