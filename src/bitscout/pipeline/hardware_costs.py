# SPDX-License-Identifier: Apache-2.0
"""What the networks of a run cost on its hardware, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bitscout.core import Candidate, LayerGraph
from bitscout.errors import BitscoutError, UnsupportedError
from bitscout.hardware import CostReport, HardwareModel, Measured, load_hardware
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.costing import DEFAULT_HARDWARE
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.results import RunResult
from bitscout.pipeline.spaces import run_space
from bitscout.space import SearchSpace

__all__ = ["HardwareCosts", "run_costs"]


@dataclass(frozen=True)
class HardwareCosts:
    """What networks cost on one kind of hardware.

    Attributes:
        hardware: The model with its options.
        batch: Inputs computed together.
        units: Unit of each of its quantities.
        is_measured: Whether it measures files; such hardware is not asked again, and its reports
            are the answers that the run kept.
        reports: By the name of the network; one without a report is in `problems`.
        problems: By the name of the network, why there is no report.
    """

    hardware: str
    batch: int = 1
    units: Mapping[str, str] = field(default_factory=dict)
    is_measured: bool = False
    reports: Mapping[str, CostReport] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def run_costs(
    result: RunResult, candidates: Mapping[str, Candidate], *, space: SearchSpace | None = None
) -> tuple[HardwareCosts, ...]:
    """Return the costs of `candidates` on each hardware of the run.

    A run that names no hardware has its size and the memory of a microcontroller. Nothing is
    measured: of a board there is what it answered during the search.

    Args:
        result: The run.
        candidates: Networks of its space, by name.
        space: The run's space, where that was handed over in Python.

    Raises:
        ConfigError: If the space or the hardware cannot be had from the configuration any more.
    """
    if space is None:
        space = run_space(result.directory, result.config, result.dataset)
    graphs = {name: space.layers(candidate.values) for name, candidate in candidates.items()}
    models = _models(result.config)
    kept = CandidateCosts(space, tuple(models)).kept_in(RunDirectory(result.directory).hardware)
    return tuple(
        _costs(model.spec, asked, graphs, candidates)
        for model, asked in zip(models, kept.models, strict=True)
    )


def _models(config: RunConfig) -> list[HardwareModel]:
    models = list(config.build_hardware())
    if config.hardware is None:
        known = {model.name for model in models}
        models = [load_hardware(n) for n in DEFAULT_HARDWARE if n not in known] + models
    return models


def _costs(
    spec: str,
    model: HardwareModel,
    graphs: Mapping[str, LayerGraph],
    candidates: Mapping[str, Candidate],
) -> HardwareCosts:
    reports, problems = {}, {}
    for name, candidate in candidates.items():
        try:
            if model.needs_file and not isinstance(model, Measured):
                msg = "it is not measured again."
                raise UnsupportedError(msg)
            reports[name] = model.report(graphs[name], candidate.policy)
        except BitscoutError as error:
            problems[name] = str(error)
    return HardwareCosts(spec, model.batch, model.quantities, model.needs_file, reports, problems)
