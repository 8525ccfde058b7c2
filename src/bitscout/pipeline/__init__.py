# SPDX-License-Identifier: Apache-2.0
"""Composition: configuration, evaluation, search, final training and results of a run."""

from bitscout.pipeline.api import search
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.deploy import DeployRequest, export_final, verify_final
from bitscout.pipeline.directory import RunDirectory, next_free_directory
from bitscout.pipeline.events import (
    CertificateFinished,
    CertificateStarted,
    Event,
    FinalFinished,
    FinalStarted,
    Listener,
    SearchStarted,
    StageProgress,
    TrialFinished,
    TrialStarted,
    ignore_events,
)
from bitscout.pipeline.explanation import ExplainReport, explain
from bitscout.pipeline.load import dump_config, load_config, make_config, preset_names, preset_text
from bitscout.pipeline.records import FinalRecord, TrialRecord
from bitscout.pipeline.results import RunResult, load_result
from bitscout.pipeline.run import resume_search, run_search
from bitscout.pipeline.verdict import Verdict

__all__ = [
    "CertificateFinished",
    "CertificateStarted",
    "DeployRequest",
    "Event",
    "ExplainReport",
    "FinalFinished",
    "FinalRecord",
    "FinalStarted",
    "Listener",
    "RunConfig",
    "RunDirectory",
    "RunResult",
    "SearchStarted",
    "StageProgress",
    "TrialFinished",
    "TrialRecord",
    "TrialStarted",
    "Verdict",
    "dump_config",
    "explain",
    "export_final",
    "ignore_events",
    "load_config",
    "load_result",
    "make_config",
    "next_free_directory",
    "preset_names",
    "preset_text",
    "resume_search",
    "run_search",
    "search",
    "verify_final",
]
