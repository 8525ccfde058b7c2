# SPDX-License-Identifier: Apache-2.0
"""What a run tells whoever watches it: small immutable events, passed to a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitscout.export import Certificate
from bitscout.pipeline.records import FinalRecord, TrialRecord

__all__ = [
    "CertificateFinished",
    "CertificateStarted",
    "Event",
    "FinalFinished",
    "FinalStarted",
    "Listener",
    "ModelFinished",
    "ModelStarted",
    "SearchStarted",
    "StageProgress",
    "TrialFinished",
    "TrialStarted",
    "ignore_events",
]


@dataclass(frozen=True, slots=True)
class ModelStarted:
    """A given network is made ready for the search.

    Attributes:
        label: What is about to happen to it, ``pre-training resnet20``.
    """

    label: str


@dataclass(frozen=True, slots=True)
class ModelFinished:
    """What `ModelStarted` announced is done.

    Attributes:
        notes: What came out, sentences.
    """

    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchStarted:
    """The search begins or goes on.

    Attributes:
        n_trials: Trials in the whole search.
        n_finished: Trials already in the journal.
        directory: The run directory.
        notes: What is to be known before it begins.
    """

    n_trials: int
    n_finished: int
    directory: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A candidate is about to be trained.

    Attributes:
        number: Trial number.
        size_bytes: Its exact size.
    """

    number: int
    size_bytes: float


@dataclass(frozen=True, slots=True)
class StageProgress:
    """An epoch of the candidate or final network in work is done.

    Attributes:
        stage: ``"train"`` or ``"fine-tune"``.
        epoch: Epochs done in this stage.
        n_epochs: Epochs of this stage.
        loss: Mean training loss of the epoch.
    """

    stage: str
    epoch: int
    n_epochs: int
    loss: float


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """A trial is in the journal.

    Attributes:
        record: What was recorded.
    """

    record: TrialRecord


@dataclass(frozen=True, slots=True)
class FinalStarted:
    """A final network or baseline is about to be trained.

    Attributes:
        label: What it is, for a person.
        index: Its place, from 1.
        total: How many there are.
    """

    label: str
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class FinalFinished:
    """A final network or baseline is on disk.

    Attributes:
        record: What was recorded.
    """

    record: FinalRecord


@dataclass(frozen=True, slots=True)
class CertificateStarted:
    """The files of a final network are about to be written and verified.

    Attributes:
        label: Which network, for a person.
        index: Its place, from 1.
        total: How many there are.
    """

    label: str
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class CertificateFinished:
    """A certificate is on disk.

    Attributes:
        record: The network.
        certificate: What was compared.
    """

    record: FinalRecord
    certificate: Certificate


Event = (
    ModelStarted
    | ModelFinished
    | SearchStarted
    | TrialStarted
    | StageProgress
    | TrialFinished
    | FinalStarted
    | FinalFinished
    | CertificateStarted
    | CertificateFinished
)
Listener = Callable[[Event], None]


def ignore_events(event: Event) -> None:
    """Do nothing: the listener of whoever does not watch."""
