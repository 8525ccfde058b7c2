# SPDX-License-Identifier: Apache-2.0
"""The facts of one network as a person reads them; the page and the terminal share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import PurePosixPath

from bitscout.core import Metrics, QuantPolicy
from bitscout.export import Certificate
from bitscout.pipeline import FinalRecord, RunResult, TrialRecord
from bitscout.report.bounds import CostHeading, cost_cells, over_budget

__all__ = [
    "ABSENT",
    "BitSummary",
    "NetworkRow",
    "format_count",
    "format_percent",
    "format_size",
    "network_row",
    "trial_row",
]

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class BitSummary:
    """Weight bits over the layers of a network, every layer counted once.

    Attributes:
        low: Fewest bits of any layer.
        mean: Mean over the layers.
        high: Most bits of any layer.
    """

    low: int
    mean: float
    high: int

    @classmethod
    def of(cls, policy: QuantPolicy) -> BitSummary:
        """Return the summary of `policy`, which names at least one layer."""
        bits = [pair.weight_bits for pair in policy.values()]
        return cls(min(bits), sum(bits) / len(bits), max(bits))

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"{self.low}–{self.high}, mean {self.mean:.1f}"


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network, formatted; `ABSENT` where a quantity is not known.

    Attributes:
        label: ``trial 7``, ``seed network, uniform 8 bit``.
        size: Weights and biases, in kB of 1000 bytes.
        test: Test accuracy in percent, with its standard error where the number of test images
            is known.
        validation: Validation accuracy in percent.
        floating: Validation accuracy before quantization, in percent.
        bits: Weight bits, lowest to highest and mean.
        macs: Multiply-accumulates for one input.
        folder: Where its files are, relative to the run directory; empty without files.
        files: Names of its files in `folder`.
        is_best: Whether it is the run's answer.
        certificate: Targets that passed of those that ran, ``9/9``, or ``FAILED``.
        over: Names of the budget's bounds that it is over; empty where there are none.
        costs: Its other costs, a cell for each of the headings it was made with.
    """

    label: str
    size: str
    test: str
    validation: str
    floating: str
    bits: str
    macs: str
    folder: str = ""
    files: tuple[str, ...] = ()
    is_best: bool = False
    certificate: str = ABSENT
    over: str = ""
    costs: tuple[str, ...] = ()


def network_row(
    record: FinalRecord, result: RunResult, headings: Sequence[CostHeading] = ()
) -> NetworkRow:
    """Return the row of a final network or baseline of `result`, with costs under `headings`."""
    paths = [PurePosixPath(name) for name in record.files]
    folder = f"{paths[0].parent}/" if paths else ""
    return NetworkRow(
        label=record.label,
        size=format_size(record.metrics.size_bytes),
        test=_with_error(record.metrics.test_accuracy, int(result.dataset.get("n_test", 0))),
        validation=format_percent(record.metrics.val_accuracy),
        floating=format_percent(record.float_accuracy),
        bits=str(BitSummary.of(record.candidate.policy)),
        macs=format_count(record.metrics.macs),
        folder=folder,
        files=tuple(str(path).removeprefix(folder) for path in paths),
        is_best=record is result.best_final,
        certificate=_certificate(result.certificates.get(record.name)),
        over=over_budget(result.config.budget.build(), record.metrics),
        costs=cost_cells(record.metrics, headings),
    )


def trial_row(trial: TrialRecord) -> NetworkRow:
    """Return the row of a trial."""
    metrics = trial.metrics or Metrics()
    policy = trial.candidate.policy if trial.candidate else None
    return NetworkRow(
        label=f"trial {trial.number}",
        size=format_size(metrics.size_bytes),
        test=ABSENT,
        validation=format_percent(metrics.val_accuracy),
        floating=ABSENT,
        bits=str(BitSummary.of(policy)) if policy else ABSENT,
        macs=format_count(metrics.macs),
    )


def format_percent(fraction: float | None) -> str:
    """Return a fraction as percent with one decimal, without the sign.

    Example:
        >>> format_percent(0.97222), format_percent(None)
        ('97.2', '–')
    """
    return ABSENT if fraction is None else f"{100 * fraction:.1f}"


def format_size(size_bytes: float | None) -> str:
    """Return bytes as kB with three significant digits, without the unit.

    Example:
        >>> [format_size(size) for size in (413, 8421, 91576, 1234567)]
        ['0.413', '8.42', '91.6', '1235']
    """
    if size_bytes is None:
        return ABSENT
    size = size_bytes / 1000
    # 9.995 would be printed with one digit too many: compare what is printed.
    decimals = next(d for d in (3, 2, 1, 0) if d == 0 or round(size, d) < 10 ** (3 - d))
    return f"{size:.{decimals}f}"


def format_count(count: float | None) -> str:
    """Return a large count with three significant digits and a unit prefix.

    Example:
        >>> [format_count(count) for count in (950, 1234, 45_600_000, 2_000_000_000, None)]
        ['950', '1.23 k', '45.6 M', '2 G', '–']
    """
    if count is None:
        return ABSENT
    for limit, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        # 999,600 is printed as 1 M, not as 1e+03 k.
        if count >= 0.9995 * limit:
            return f"{count / limit:.3g}{prefix}"
    return f"{count:.3g}"


def _certificate(certificate: Certificate | None) -> str:
    if certificate is None:
        return ABSENT
    ran = len(certificate.targets) - certificate.n_not_run
    return f"{certificate.n_passed}/{ran}" if certificate.passed else "FAILED"


def _with_error(accuracy: float | None, n_images: int) -> str:
    if accuracy is None or n_images < 1:
        return format_percent(accuracy)
    error = sqrt(accuracy * (1 - accuracy) / n_images)
    return f"{100 * accuracy:.1f} ± {100 * error:.1f}"
