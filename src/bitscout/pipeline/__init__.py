# SPDX-License-Identifier: Apache-2.0
"""Composition: configuration, evaluation, search, final training and results of a run.

The names below are imported when they are first used: most of them bring PyTorch, and what a
built-in network costs needs none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitscout.pipeline.api import search
    from bitscout.pipeline.config import RunConfig
    from bitscout.pipeline.costing import CostPlan, NetworkCost, cost, plan_cost
    from bitscout.pipeline.deploy import DeployRequest, export_final, verify_final
    from bitscout.pipeline.directory import RunDirectory, next_free_directory
    from bitscout.pipeline.events import (
        CertificateFinished,
        CertificateStarted,
        Event,
        FinalFinished,
        FinalStarted,
        Listener,
        ModelFinished,
        ModelStarted,
        SearchStarted,
        StageProgress,
        TrialFinished,
        TrialStarted,
        ignore_events,
    )
    from bitscout.pipeline.explanation import (
        ExplainReport,
        explain,
        explain_model,
        explain_source,
    )
    from bitscout.pipeline.front import front_points, reference_point
    from bitscout.pipeline.hardware_costs import HardwareCosts, run_costs
    from bitscout.pipeline.layer_sensitivities import LayerRow, SensitivityReport, sensitivity
    from bitscout.pipeline.load import (
        dump_config,
        load_config,
        make_config,
        preset_names,
        preset_text,
    )
    from bitscout.pipeline.measuring import OnnxWriter, onnx_writer
    from bitscout.pipeline.records import FinalRecord, TrialRecord
    from bitscout.pipeline.results import RunResult, load_result
    from bitscout.pipeline.run import resume_search, run_search
    from bitscout.pipeline.verdict import Verdict

__all__ = [
    "CertificateFinished",
    "CertificateStarted",
    "CostPlan",
    "DeployRequest",
    "Event",
    "ExplainReport",
    "FinalFinished",
    "FinalRecord",
    "FinalStarted",
    "HardwareCosts",
    "LayerRow",
    "Listener",
    "ModelFinished",
    "ModelStarted",
    "NetworkCost",
    "OnnxWriter",
    "RunConfig",
    "RunDirectory",
    "RunResult",
    "SearchStarted",
    "SensitivityReport",
    "StageProgress",
    "TrialFinished",
    "TrialRecord",
    "TrialStarted",
    "Verdict",
    "cost",
    "dump_config",
    "explain",
    "explain_model",
    "explain_source",
    "export_final",
    "front_points",
    "ignore_events",
    "load_config",
    "load_result",
    "make_config",
    "next_free_directory",
    "onnx_writer",
    "plan_cost",
    "preset_names",
    "preset_text",
    "reference_point",
    "resume_search",
    "run_costs",
    "run_search",
    "search",
    "sensitivity",
    "verify_final",
]

_HOMES = {
    "CertificateFinished": "events",
    "CertificateStarted": "events",
    "CostPlan": "costing",
    "DeployRequest": "deploy",
    "Event": "events",
    "ExplainReport": "explanation",
    "FinalFinished": "events",
    "FinalRecord": "records",
    "FinalStarted": "events",
    "HardwareCosts": "hardware_costs",
    "LayerRow": "layer_sensitivities",
    "Listener": "events",
    "ModelFinished": "events",
    "ModelStarted": "events",
    "NetworkCost": "costing",
    "OnnxWriter": "measuring",
    "RunConfig": "config",
    "RunDirectory": "directory",
    "RunResult": "results",
    "SearchStarted": "events",
    "SensitivityReport": "layer_sensitivities",
    "StageProgress": "events",
    "TrialFinished": "events",
    "TrialRecord": "records",
    "TrialStarted": "events",
    "Verdict": "verdict",
    "cost": "costing",
    "dump_config": "load",
    "explain": "explanation",
    "explain_model": "explanation",
    "explain_source": "explanation",
    "export_final": "deploy",
    "front_points": "front",
    "ignore_events": "events",
    "load_config": "load",
    "load_result": "results",
    "make_config": "load",
    "next_free_directory": "directory",
    "onnx_writer": "measuring",
    "plan_cost": "costing",
    "preset_names": "load",
    "preset_text": "load",
    "reference_point": "front",
    "resume_search": "run",
    "run_costs": "hardware_costs",
    "run_search": "run",
    "search": "api",
    "sensitivity": "layer_sensitivities",
    "verify_final": "deploy",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module's names are of any type
    """Import `name` from its home (PEP 562)."""
    if name not in _HOMES:
        msg = f"module 'bitscout.pipeline' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"bitscout.pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
