# SPDX-License-Identifier: Apache-2.0
"""What is kept of every trial and of every final network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bitscout.core import Candidate, Metrics

__all__ = ["INTEGER_PROGRAM", "FinalRecord", "Outcome", "TrialRecord"]

# Name of the baseline with the bits that sensitivities alone would choose.
INTEGER_PROGRAM: Final = "integer-program"

Outcome = Literal["complete", "failed", "infeasible", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: Its place in the history, from 0.
        outcome: How it ended; a ``running`` one is evaluated again on resume.
        candidate: What was tried; `None` while it is being proposed.
        metrics: What is known of it; costs alone where it was not trained.
        values: Objective values, in the study's directions; empty unless complete.
        reason: Why it failed or is infeasible.
        constraints: ``value / bound - 1`` of every bound of the budget that is known, by its key;
            feasible if and only if all are <= 0.
        duplicate_of: Number of the earlier trial of the same candidate whose result it shares.
        seconds: Wall time by stage: ``propose``, ``train``, ``quantize``, ``fine-tune``.
    """

    number: int
    outcome: Outcome
    candidate: Candidate | None = None
    metrics: Metrics | None = None
    values: tuple[float, ...] = ()
    reason: str | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    duplicate_of: int | None = None
    seconds: Mapping[str, float] | None = None

    @property
    def is_feasible(self) -> bool:
        """Whether it is within every bound that is known."""
        return all(violation <= 0 for violation in self.constraints.values())

    @property
    def score(self) -> float | None:
        """The scalar objective, or `None` where there are several or none."""
        return self.values[0] if len(self.values) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as the ``candidates`` entry of ``show --json``."""
        candidate = self.candidate
        return {
            "number": self.number,
            "outcome": self.outcome,
            "digest": candidate.digest if candidate else None,
            "values": dict(candidate.values) if candidate else None,
            "policy": candidate.policy.to_json() if candidate else None,
            "metrics": self.metrics.to_json() if self.metrics else None,
            "score": self.score,
            "objectives": list(self.values),
            "reason": self.reason,
            "constraints": dict(self.constraints),
            "duplicate_of": self.duplicate_of,
            "seconds": dict(self.seconds or {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRecord:
    """One network trained with the final recipe, and tested once.

    Attributes:
        name: Name of its directory: the trial number, or the baseline's name.
        label: What it is, for a person: ``trial 7``, ``seed network at uniform 8 bit``.
        folder: ``final`` for a searched network, ``baselines`` for what it is compared with.
        number: The trial it is, or, for the uniform baseline, whose architecture it has; `None`
            for the seed network's baselines.
        candidate: Architecture and policy.
        metrics: Measured and computed quantities, ``test_accuracy`` among them.
        float_accuracy: Validation accuracy before quantization.
        files: Files of this network, relative to the run directory.
        seconds: Wall time of its training; the floating-point part counts for every network
            that shares it.
        cost_failure: Why its costs on the run's hardware are not known, if they are not.
    """

    name: str
    label: str
    folder: Literal["final", "baselines"]
    number: int | None
    candidate: Candidate
    metrics: Metrics
    float_accuracy: float
    files: tuple[str, ...] = ()
    seconds: float = 0.0
    cost_failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as an entry of ``final`` or ``baselines`` of ``show --json``."""
        return {
            "name": self.name,
            "label": self.label,
            "folder": self.folder,
            "number": self.number,
            "digest": self.candidate.digest,
            **self.candidate.to_json(),
            "metrics": self.metrics.to_json(),
            "float_accuracy": self.float_accuracy,
            "files": list(self.files),
            "seconds": self.seconds,
            "cost_failure": self.cost_failure,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FinalRecord:
        """Return the record written by `to_json`."""
        return cls(
            name=document["name"],
            label=document["label"],
            folder=document["folder"],
            number=document["number"],
            candidate=Candidate.from_json(document),
            metrics=Metrics.from_json(document["metrics"]),
            float_accuracy=document["float_accuracy"],
            files=tuple(document["files"]),
            seconds=document["seconds"],
            cost_failure=document.get("cost_failure"),
        )
