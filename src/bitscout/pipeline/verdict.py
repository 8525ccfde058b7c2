# SPDX-License-Identifier: Apache-2.0
"""Is the search worth it? Searched networks against uniform precision, both tested once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from bitscout.pipeline.records import INTEGER_PROGRAM, FinalRecord

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One baseline against one searched network, its rival.

    Attributes:
        baseline: Label of the baseline.
        rival: Label of the searched network.
        is_twin: Whether the baseline has the rival's architecture: then only the bits differ.
        is_allocated: Whether the baseline's bits are an integer program's: then what is judged is
            the search, not the mixture of bits.
        outcome: ``won`` where the rival is at most as large and at least as accurate, and better
            in one of the two; ``lost`` where the baseline is, or both are equal; ``open`` where
            each is better in one.
        accuracy_gain: Test accuracy of the rival minus the baseline's, a fraction.
        size_ratio: Size of the rival over the baseline's.
        standard_error: Standard error of `accuracy_gain` if errors were independent, a fraction;
            0 where the number of test images is not known.
    """

    baseline: str
    rival: str
    is_twin: bool
    outcome: Literal["won", "lost", "open"]
    accuracy_gain: float
    size_ratio: float
    standard_error: float
    is_allocated: bool = False

    def sentence(self) -> str:
        """Return the verdict for a person."""
        gain, error = 100 * self.accuracy_gain, 100 * self.standard_error
        noise = ", within the noise" if abs(gain) < 2 * error else ""
        figures = f"{gain:+.1f} points (standard error {error:.1f}{noise})"
        figures += f" at {self.size_ratio:.2f}x its size"
        if self.is_twin:
            answer = {"won": "pays", "lost": "does not pay", "open": "is a trade"}[self.outcome]
            what = "Searching" if self.is_allocated else "Mixing bits"
            return f"{what} {answer}: {self.rival} against {self.baseline}, {figures}."
        verb = {"won": "beats", "lost": "does not beat", "open": "trades with"}[self.outcome]
        return f"{self.rival} {verb} {self.baseline}: {figures}."

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as an entry of ``show --json``."""
        return {
            "baseline": self.baseline,
            "rival": self.rival,
            "is_twin": self.is_twin,
            "is_allocated": self.is_allocated,
            "outcome": self.outcome,
            "accuracy_gain": self.accuracy_gain,
            "size_ratio": self.size_ratio,
            "standard_error": self.standard_error,
            "sentence": self.sentence(),
        }


def judge(
    final: Sequence[FinalRecord], baselines: Sequence[FinalRecord], *, n_test: int
) -> tuple[Verdict, ...]:
    """Compare every baseline with the searched networks.

    A baseline made from a searched network (its architecture at a uniform width) is compared with
    that network: is the mixture worth it? For the others the rival is the network no larger than
    the baseline that was most accurate on the validation split, so that the test set chooses
    nothing; where all are larger, the smallest of them. A searched network that is the baseline
    itself is no rival, unless there is no other.

    Args:
        final: Searched networks with ``test_accuracy`` and ``size_bytes``.
        baselines: Baselines with the same metrics.
        n_test: Number of test images, for the standard error.

    Returns:
        One verdict a baseline; none where nothing was searched.
    """
    return tuple(_judge_one(final, baseline, n_test) for baseline in baselines if final)


def _judge_one(final: Sequence[FinalRecord], baseline: FinalRecord, n_test: int) -> Verdict:
    rival = _rival(final, baseline)
    gain, ratio = _accuracy(rival) - _accuracy(baseline), _size(rival) / _size(baseline)
    if gain >= 0 and ratio <= 1 and (gain > 0 or ratio < 1):
        outcome: Literal["won", "lost", "open"] = "won"
    elif gain <= 0 and ratio >= 1:
        outcome = "lost"
    else:
        outcome = "open"
    return Verdict(
        baseline=baseline.label,
        rival=rival.label,
        is_twin=rival.number == baseline.number is not None,
        outcome=outcome,
        accuracy_gain=gain,
        size_ratio=ratio,
        standard_error=_standard_error(_accuracy(rival), _accuracy(baseline), n_test),
        is_allocated=baseline.name == INTEGER_PROGRAM,
    )


def _rival(final: Sequence[FinalRecord], baseline: FinalRecord) -> FinalRecord:
    twins = [record for record in final if record.number == baseline.number is not None]
    if twins:
        return twins[0]
    others = [record for record in final if record.candidate != baseline.candidate] or final
    smaller = [record for record in others if _size(record) <= _size(baseline)]
    if not smaller:
        return min(others, key=_size)
    return max(smaller, key=lambda record: (record.metrics["val_accuracy"], -_size(record)))


def _standard_error(first: float, second: float, n_test: int) -> float:
    if n_test < 1:
        return 0.0
    return sqrt((first * (1 - first) + second * (1 - second)) / n_test)


def _accuracy(record: FinalRecord) -> float:
    return record.metrics["test_accuracy"]


def _size(record: FinalRecord) -> float:
    return record.metrics["size_bytes"]
