# SPDX-License-Identifier: Apache-2.0
"""Hardware by name: built-in targets, target files, and models of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, get_type_hints

from bitscout.errors import ConfigError, shown
from bitscout.hardware.class_summary import class_summary
from bitscout.hardware.model import HardwareModel, Origin
from bitscout.hardware.options import split_options, typed_option
from bitscout.hardware.targets import Target, built_in_targets, read_target

__all__ = ["HardwareSpec", "hardware_names", "load_hardware", "with_absolute_paths"]

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
    model = _model_class(target.model if target else name, target.path if target else None)
    settable = _settable(model, name)
    values = _typed(name, settable, target.values(model)) if target else {}
    for option in given:
        if option not in settable:
            nearest = get_close_matches(option, settable, n=1)
            hint = f"Did you mean `{nearest[0]}`?" if nearest else f"It has {', '.join(settable)}."
            msg = f"Hardware {name!r} has no option `{option}`. {hint}"
            raise ConfigError(msg)
    chosen = values | _typed(name, settable, given)
    missing = [key for key, (e, _) in settable.items() if key not in chosen and _is_required(e)]
    if missing:
        wanted = ", ".join(f"`{key}`" for key in missing)
        msg = f"Hardware {name!r} needs {wanted}: write {name}:{missing[0]}=..."
        raise ConfigError(msg)
    origin = Origin(values, target.notes, target.description) if target else Origin(values)
    return model(name=name, **chosen, origin=origin)


def with_absolute_paths(spec: HardwareSpec) -> HardwareSpec:
    """Return `spec` with the paths of its target file and of its cache absolute.

    The words of a command stay as they are.

    Example:
        >>> with_absolute_paths("bitfusion:batch=2")
        'bitfusion:batch=2'
    """
    name, options = _parse(spec)
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and not isinstance(options.get("cache"), str):
        return spec
    absolute = {"name": str(Path(name).expanduser().absolute()) if is_file else name, **options}
    if isinstance(options.get("cache"), str):
        absolute["cache"] = str(Path(options["cache"]).expanduser().absolute())
    return absolute


def hardware_names() -> dict[str, str]:
    """Return every name `load_hardware` knows, with one line about each."""
    found = {
        name: read_target(source, name).description for name, source in built_in_targets().items()
    }
    for name, entry in sorted(_entry_points().items()):
        package = f"From the package {entry.dist.name if entry.dist else entry.value}."
        found.setdefault(name, class_summary(entry.value) or package)
    return found


def _target(name: str) -> Target | None:
    if name.endswith((".yaml", ".yml")):
        return read_target(Path(name).expanduser(), name)
    source = built_in_targets().get(name)
    return read_target(source, name) if source else None


def _typed(
    name: str, settable: Mapping[str, tuple[Field[Any], Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    return {key: typed_option(name, *settable[key], value) for key, value in values.items()}


def _model_class(name: str, path: str | None) -> type[HardwareModel]:
    """Return the model called `name`, which the target file at `path` asks for if there is one."""
    built_in = _built_in_models()
    if name in built_in:
        return built_in[name]()
    entry = _entry_points().get(name)
    if entry is None:
        raise _unknown(name, path)
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
    _check_is_complete(model, name)
    return model


def _check_is_complete(model: type[HardwareModel], name: str) -> None:
    """Check what Python notices only when a foreign class is used, or never."""
    lacking = sorted(model.__abstractmethods__)
    if lacking:
        msg = f"Hardware {name!r}: {model.__qualname__} lacks {', '.join(lacking)}. Define them."
        raise ConfigError(msg)
    if any(isinstance(value, Field) for value in vars(model).values()):
        msg = (
            f"Hardware {name!r}: {model.__qualname__} has options but is no dataclass. Write "
            "@dataclass(frozen=True, kw_only=True) above it."
        )
        raise ConfigError(msg)


def _unknown(name: str, path: str | None) -> ConfigError:
    if path is None:
        names = [part.strip() for part in name.split(",")]
        if len(names) > 1:
            options = " ".join(f"--hardware {part}" for part in names if part)
            msg = (
                f"No hardware is called {shown(name)}. Several are given one by one, {options}, "
                "or as a list in a configuration."
            )
            return ConfigError(msg)
        known = sorted({*built_in_targets(), *_entry_points()})
        said, more = "No hardware is", "; or the path of a target file that ends in .yaml"
    else:
        known = sorted({*_built_in_models(), *_entry_points()})
        said, more = f"{path}: no model is", ""
    nearest = get_close_matches(name, known, n=1)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return ConfigError(f"{said} called {shown(name)}. {hint}Known: {', '.join(known)}{more}.")


def _built_in_models() -> dict[str, Callable[[], type[HardwareModel]]]:
    """Return the models that target files may name; each is imported when it is asked for."""
    return {
        "bitfusion": _bitfusion,
        "mcu": _mcu,
        "measured": _measured,
        "size": _size,
        "systolic-fpga": _systolic_fpga,
    }


def _bitfusion() -> type[HardwareModel]:
    from bitscout.hardware.bitfusion import BitFusion

    return BitFusion


def _measured() -> type[HardwareModel]:
    from bitscout.hardware.measured import Measured

    return Measured


def _mcu() -> type[HardwareModel]:
    from bitscout.hardware.mcu import Microcontroller

    return Microcontroller


def _size() -> type[HardwareModel]:
    from bitscout.hardware.size import SizeModel

    return SizeModel


def _systolic_fpga() -> type[HardwareModel]:
    from bitscout.hardware.systolic import SystolicFpga

    return SystolicFpga


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _parse(spec: object) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, Mapping):
        given = {str(key): value for key, value in spec.items()}
        name = given.pop("name", None)
        if not isinstance(name, str) or not name.strip():
            msg = f"Hardware needs a `name`, got {shown(dict(spec))}."
            raise ConfigError(msg)
        return name.strip(), given
    if not isinstance(spec, str):  # YAML can hold anything.
        msg = f"Hardware is given by its name or as a mapping with `name`, got {shown(spec)}."
        raise ConfigError(msg)
    name, colon, text = spec.partition(":")
    if not name.strip():
        msg = f"Hardware needs a name before its options, got {shown(spec)}."
        raise ConfigError(msg)
    options = split_options(text)
    if colon and not options:
        msg = f"Hardware {shown(spec)} has a colon and no options: write {name.strip()} alone."
        raise ConfigError(msg)
    return name.strip(), dict(options)


def _settable(model: type[HardwareModel], name: str) -> dict[str, tuple[Field[Any], Any]]:
    """Return the fields that may be given, each with its type."""
    try:
        hints = get_type_hints(model)
    except Exception as error:  # Annotations are foreign code.
        msg = f"The types of the fields of hardware {name!r} cannot be resolved: {error}"
        raise ConfigError(msg) from error
    return {e.name: (e, hints[e.name]) for e in fields(model) if "unit" in e.metadata}


def _is_required(entry: Field[Any]) -> bool:
    return entry.default is entry.default_factory  # Both are MISSING.
