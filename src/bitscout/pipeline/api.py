# SPDX-License-Identifier: Apache-2.0
"""The Python API: a search in one call, and trained networks back from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from bitscout.core import child_seed
from bitscout.errors import ConfigError, shown
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.directory import RunDirectory, next_free_directory
from bitscout.pipeline.events import Listener, ignore_events
from bitscout.pipeline.load import load_config, make_config, preset_document, set_key
from bitscout.pipeline.results import RunResult
from bitscout.pipeline.run import resume_search, run_search
from bitscout.space import SearchSpace
from bitscout.training import ImageData, from_dataset

__all__ = ["search"]


def search(  # noqa: PLR0913  # what, on what, and where to
    preset: str | None = None,
    *,
    model: nn.Module | str | None = None,
    space: SearchSpace | Mapping[str, Any] | str | None = None,
    data: ImageData | Dataset[Any] | Mapping[str, Any] | str | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    listener: Listener = ignore_events,
) -> RunResult:
    """Search small quantized networks and train the best of them.

    Args:
        preset: A preset to start from; every key not set elsewhere comes from it.
        model: A network of your own, whose bits and widths are then searched: a module, perhaps
            trained, a built-in network, or an import path. What may be chosen about it is said
            by `space`, keys such as ``{"tie": "layer"}``.
        space: A `SearchSpace`, a name, or keys of the ``space`` section of a configuration. Keys
            of the preset stay where they are not given, unless the name is another one.
        data: An `ImageData`, a torch `Dataset` of training images, a name, or keys of the
            ``dataset`` section, likewise. An `ImageData` is split already: ``validation`` and
            ``limit`` do not apply to it.
        out: The run directory; by default ``runs/<name>``, or the next free number.
        settings: Other keys by their path, ``{"searcher.n_trials": 20, "seed": 1}``.
        resume: Go on with the run in `out`; only `model`, `space` and `data` objects are looked at
            then.
        listener: Told of every trial, network and epoch.

    Returns:
        The run: its trials, its front, its final networks and baselines.

    Raises:
        ConfigError: If a key or value is not allowed.
        DataError: If the data cannot be loaded.
        RunError: If `out` cannot be used.
        InfeasibleError: If no candidate fits the budget.
    """
    space_object = space if isinstance(space, SearchSpace) else None
    module = model if isinstance(model, nn.Module) else None
    if model is not None:
        space = _model_section(model, space)
    if resume:
        if out is None:
            msg = "`resume` needs `out`, the directory of the run to go on with; got None."
            raise ConfigError(msg)
        run = RunDirectory(out)
        run.check_is_run()
        data_object = _data_object(data, load_config(run.config))
        return resume_search(
            out, space=space_object, module=module, data=data_object, listener=listener
        )
    document = preset_document(preset) if preset is not None else {}
    for key, value in (("space", space), ("dataset", data)):
        section = _section(value)
        if section is not None:
            old = document.get(key, {})
            is_same = section.get("name", old.get("name")) == old.get("name")
            document[key] = {**old, **section} if is_same else section
    for path, value in _settings(settings).items():
        set_key(document, path, value)
    config = make_config(document, source="bitscout.search")
    data_object = _data_object(data, config)
    directory = next_free_directory(Path("runs"), config.name) if out is None else Path(out)
    return run_search(
        config,
        directory,
        space=space_object,
        module=module,
        data=data_object,
        listener=listener,
    )


def _model_section(model: object, space: object) -> dict[str, Any]:
    """Return the ``space`` section of a given network; `space` holds its other keys."""
    if not isinstance(model, nn.Module | str):
        hint = " Pass a module, not its class." if isinstance(model, type) else ""
        msg = f"`model` must be a module, a name or an import path, got {shown(model)}.{hint}"
        raise ConfigError(msg)
    if space is not None and not isinstance(space, Mapping):
        msg = f"With `model`, `space` must be a mapping of its keys, got {shown(space)}."
        raise ConfigError(msg)
    named = {"model": model} if isinstance(model, str) else {}
    return {"name": "model", **(space or {}), **named}


def _settings(value: object) -> Mapping[str, Any]:
    if value is None or isinstance(value, Mapping):
        return value or {}
    msg = (
        '`settings` must be a mapping from key paths to values, {"training.epochs": 5}, got '
        f"{value!r}."
    )
    raise ConfigError(msg)


def _section(value: object) -> dict[str, Any] | None:
    """Return the configuration section that `value` stands for; `None` keeps what is there."""
    if value is None:
        return None
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return dict(value)
    return {"name": "custom"}


def _data_object(data: object, config: RunConfig) -> ImageData | None:
    if data is None or isinstance(data, str | Mapping | ImageData):
        return data if isinstance(data, ImageData) else None
    if not isinstance(data, Dataset):
        msg = (
            "`data` must be a name, a mapping, an ImageData or a torch Dataset, got "
            f"{type(data).__name__}."
        )
        raise ConfigError(msg)
    return from_dataset(
        data,
        validation=config.dataset.validation,
        seed=child_seed(config.seed, "split"),
        limit=config.dataset.limit,
    )
