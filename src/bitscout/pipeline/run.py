# SPDX-License-Identifier: Apache-2.0
"""A run from its first to its last file, and its continuation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from bitscout.errors import RunError
from bitscout.hardware import with_absolute_paths
from bitscout.pipeline.certificates import certify_finals
from bitscout.pipeline.components import Components, build_components, describe_data
from bitscout.pipeline.config import ModelSpaceConfig, RunConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.environment import describe_environment
from bitscout.pipeline.events import Listener, ignore_events
from bitscout.pipeline.feasibility import check_feasible
from bitscout.pipeline.finals import finalize
from bitscout.pipeline.load import dump_config, load_config
from bitscout.pipeline.model_start import start_model
from bitscout.pipeline.results import RunResult, load_result
from bitscout.pipeline.trials import run_trials
from bitscout.space import SearchSpace
from bitscout.training import ImageData

__all__ = ["resume_search", "run_search"]


def run_search(
    config: RunConfig,
    out: str | Path,
    *,
    space: SearchSpace | None = None,
    module: nn.Module | None = None,
    data: ImageData | None = None,
    listener: Listener = ignore_events,
) -> RunResult:
    """Search, train the front and the baselines, and leave everything in `out`.

    Nothing is written before the configuration, the data and the space are known to be good.

    Args:
        config: What to do.
        out: A directory that does not exist yet, or is empty.
        space: Where ``config.space.name`` is ``custom``.
        module: Where it is ``model`` and ``config.space.model`` is empty.
        data: Where ``config.dataset.name`` is ``custom``.
        listener: Told of every trial, network and epoch.

    Raises:
        RunError: If `out` holds something, or cannot be written.
        ConfigError: If the configuration cannot be carried out here.
        DataError: If the data cannot be loaded.
        InfeasibleError: If no candidate fits the budget.
    """
    run = RunDirectory(out)
    run.check_is_free()
    config = _with_absolute_paths(config)
    components = build_components(config, space=space, module=module, data=data)
    check_feasible(components)
    with run.lock(), _threads(config.threads):
        run.check_is_free()
        run.write_json(run.environment, describe_environment(components.device))
        run.write_json(run.dataset, describe_data(components.data))
        run.write_text(run.config, dump_config(config))  # Last: this makes it a run.
        _carry_on(components, run, listener)
    return load_result(run.path)


def resume_search(
    directory: str | Path,
    *,
    space: SearchSpace | None = None,
    module: nn.Module | None = None,
    data: ImageData | None = None,
    listener: Listener = ignore_events,
) -> RunResult:
    """Go on where a run was interrupted; a run that is complete is returned as it is.

    Args:
        directory: The run.
        space: The space it was started with, where that was handed over in Python.
        module: The network it was started with, likewise.
        data: The data it was started with, likewise.
        listener: Told of every trial, network and epoch.

    Raises:
        RunError: If the directory is no run, or the data is not what the run was started with.
    """
    run = RunDirectory(directory)
    run.check_is_run()
    if run.done.is_file():
        return load_result(run.path)
    config = load_config(run.config)
    components = build_components(
        config,
        space=space,
        module=module,
        data=data,
        has_weights=run.model_weights.is_file(),
    )
    _check_same_data(run, components)
    with run.lock(), _threads(config.threads):
        _carry_on(components, run, listener)
    return load_result(run.path)


def _carry_on(components: Components, run: RunDirectory, listener: Listener) -> None:
    start = perf_counter()
    components = start_model(components, run, listener)
    components = replace(components, costs=components.costs.kept_in(run.hardware))
    history = run_trials(components, run, listener)
    searched = perf_counter()
    finalize(components, run, history, listener)
    trained = perf_counter()
    certify_finals(components, run, load_result(run.path).final, listener)
    run.write_json(
        run.done,
        {
            "last_search_seconds": searched - start,
            "last_final_seconds": trained - searched,
            "last_certificate_seconds": perf_counter() - trained,
        },
    )


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return `config` with paths of data, checkpoint and target files absolute.

    So it resumes from anywhere.
    """
    update: dict[str, Any] = {}
    if config.dataset.path is not None:
        path = str(Path(config.dataset.path).expanduser().absolute())
        update["dataset"] = config.dataset.model_copy(update={"path": path})
    if isinstance(config.space, ModelSpaceConfig) and config.space.checkpoint is not None:
        path = str(Path(config.space.checkpoint).expanduser().absolute())
        update["space"] = config.space.model_copy(update={"checkpoint": path})
    if isinstance(config.hardware, list):
        update["hardware"] = [with_absolute_paths(spec) for spec in config.hardware]
    elif config.hardware is not None:
        update["hardware"] = with_absolute_paths(config.hardware)
    return config.model_copy(update=update)


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Compute with `n` threads for a while; `None` changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if n is None else n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_same_data(run: RunDirectory, components: Components) -> None:
    recorded, now = run.read_json(run.dataset), describe_data(components.data)
    if recorded["fingerprint"] != now["fingerprint"]:
        msg = (
            f"The data has changed since {run.path} was started: fingerprint "
            f"{recorded['fingerprint']} then, {now['fingerprint']} now. A run goes on with the "
            "data it began with; start a new one."
        )
        raise RunError(msg)
