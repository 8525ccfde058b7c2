# SPDX-License-Identifier: Apache-2.0
"""Progress of a run on stderr: a live display in a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from bitscout.cli.pace import Pace
from bitscout.pipeline import (
    CertificateFinished,
    CertificateStarted,
    Event,
    FinalFinished,
    FinalRecord,
    FinalStarted,
    ModelFinished,
    ModelStarted,
    SearchStarted,
    StageProgress,
    TrialFinished,
    TrialRecord,
    TrialStarted,
)
from bitscout.report import certificate_words, format_percent, format_size

__all__ = ["ProgressDisplay"]

BAR_WIDTH = 32


class ProgressDisplay:
    """A listener that shows a run, and the context in which it does.

    Every finished trial and network leaves one line. In a terminal, what is in work is shown
    below them: stage, epoch, loss, a bar, the best so far and the time left.

    Args:
        console: Where to; its `is_terminal` decides between live display and plain lines.
        history: Trials finished before this process, for the best so far.
        clock: Returns seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        history: Sequence[TrialRecord] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._console = console
        self._pace = Pace(clock)
        self._best: TrialRecord | None = None
        self._task = "preparing"
        self._stage = ""
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        for record in history:
            self._note_best(record)

    def __enter__(self) -> Self:
        """Start the live display where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the live display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        match event:
            case ModelStarted() | ModelFinished():
                self._show_model(event)
            case SearchStarted():
                self._begin_search(event)
            case TrialStarted():
                size = format_size(event.size_bytes)
                self._task, self._stage = f"trial {event.number}, {size} kB", ""
            case StageProgress():
                epoch = f"{event.epoch}/{event.n_epochs}"
                self._stage = f"{event.stage} {epoch}, loss {event.loss:.4f}"
            case TrialFinished():
                self._finish_trial(event.record)
            case FinalStarted():
                self._begin_final(event)
            case FinalFinished():
                self._finish_final(event.record)
            case CertificateStarted():
                self._begin_certificate(event)
            case CertificateFinished():
                self._finish_certificate(event)

    def _show_model(self, event: ModelStarted | ModelFinished) -> None:
        if isinstance(event, ModelStarted):
            self._task, self._stage = event.label, ""
            return
        for note in event.notes:
            self._print(note)

    def _begin_search(self, event: SearchStarted) -> None:
        before = f", {event.n_finished} of them done before" if event.n_finished else ""
        self._print(f"Searching: {event.n_trials} trials{before}.")
        for note in event.notes:
            self._print(note)
        self._pace.begin(event.n_finished, event.n_trials)

    def _finish_trial(self, record: TrialRecord) -> None:
        self._note_best(record)
        self._pace.advance()
        self._task, self._stage = "proposing the next candidate", ""
        details = [_trial_words(record), *self._best_words(), *self._left_words()]
        self._print(f"{self._pace.count} trial {record.number}: {'; '.join(details)}")

    def _begin_final(self, event: FinalStarted) -> None:
        if self._pace.total != event.total or event.index == 1:
            self._print(f"Training {event.total} final networks and baselines.")
            self._pace.begin(event.index - 1, event.total)
        self._pace.skip_to(event.index - 1)
        self._task, self._stage = event.label, ""

    def _finish_final(self, record: FinalRecord) -> None:
        self._pace.advance()
        words = (
            f"{format_percent(record.metrics.test_accuracy)} % test, "
            f"{format_size(record.metrics.size_bytes)} kB"
        )
        details = "; ".join([words, *self._left_words()])
        self._print(f"{self._pace.count} {record.label}: {details}")

    def _begin_certificate(self, event: CertificateStarted) -> None:
        if event.index == 1:
            self._print(f"Exporting and verifying {event.total} final networks.")
            self._pace.begin(0, event.total)
        self._task, self._stage = f"verifying {event.label}", ""

    def _finish_certificate(self, event: CertificateFinished) -> None:
        self._pace.advance()
        details = "; ".join([certificate_words(event.certificate), *self._left_words()])
        self._print(f"{self._pace.count} {event.record.label}: {details}")

    def _note_best(self, record: TrialRecord) -> None:
        if record.outcome == "complete" and (
            self._best is None or _merit(record) > _merit(self._best)
        ):
            self._best = record

    def _best_words(self) -> list[str]:
        if self._best is None:
            return []
        return [f"best {_merit_words(self._best)} (trial {self._best.number})"]

    def _left_words(self) -> list[str]:
        left = self._pace.left
        return [f"{left} left"] if left else []

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        work = Text(", ".join(part for part in (self._task, self._stage) if part))
        work.no_wrap, work.overflow = True, "ellipsis"
        first = Table.grid(padding=(0, 1))
        first.add_row(self._spinner, work)
        if not self._pace.total:
            return first
        second = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._pace.total, completed=self._pace.done, width=BAR_WIDTH)
        rest = Text("; ".join([*self._best_words(), *self._left_words()]), style="dim")
        rest.no_wrap, rest.overflow = True, "ellipsis"
        second.add_row(bar, self._pace.count, rest)
        return Group(first, second)


def _trial_words(record: TrialRecord) -> str:
    """Return how a trial ended."""
    if record.duplicate_of is not None:
        return f"the same candidate as trial {record.duplicate_of}"
    if record.metrics is None or record.outcome != "complete":
        first, _, rest = str(record.reason).partition("\n")
        return f"{record.outcome}: {first}{' ...' if rest else ''}"
    accuracy = format_percent(record.metrics.val_accuracy)
    score = f", score {record.score:.4f}" if record.score is not None else ""
    return f"{accuracy} %, {format_size(record.metrics.size_bytes)} kB{score}"


def _merit(record: TrialRecord) -> float:
    """Return the score, or the accuracy where there is none."""
    return record.score if record.score is not None else _accuracy(record)


def _merit_words(record: TrialRecord) -> str:
    if record.score is not None:
        return f"{record.score:.4f}"
    return f"{format_percent(_accuracy(record))} %"


def _accuracy(record: TrialRecord) -> float:
    assert record.metrics is not None
    return record.metrics["val_accuracy"]
