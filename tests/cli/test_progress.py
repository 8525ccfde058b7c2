# SPDX-License-Identifier: Apache-2.0
"""What a watcher sees, line by line, without a terminal and in one."""

import dataclasses
import io

import pytest
from rich.console import Console

from bitscout.cli.pace import Pace, format_duration
from bitscout.cli.progress import ProgressDisplay
from bitscout.pipeline import (
    FinalFinished,
    FinalStarted,
    SearchStarted,
    StageProgress,
    TrialFinished,
    TrialStarted,
)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def result(make_result):
    return make_result(n_trials=24)


def watch(events, *, history=(), terminal=False, seconds=10.0):
    """Show `events`, `seconds` apart, and return what was written."""
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=100,
        color_system=None,
        legacy_windows=False,
    )
    clock = Clock()
    with ProgressDisplay(console, history=history, clock=clock) as listener:
        for event in events:
            clock.now += seconds
            listener(event)
            if terminal:
                listener._live.refresh()
    return console.file.getvalue()


def trials_by_outcome(result, outcome):
    return [trial for trial in result.trials if trial.outcome == outcome]


def test_every_finished_trial_leaves_one_line_with_its_figures_and_the_best_so_far(result):
    first, second = trials_by_outcome(result, "complete")[:2]
    first = dataclasses.replace(first, values=(2.5,))
    second = dataclasses.replace(second, values=(2.25,))
    text = watch(
        [
            SearchStarted(24, 0, "runs/x"),
            TrialStarted(first.number, 1000.0),
            StageProgress("train", 1, 2, 0.5),
            TrialFinished(first),
            TrialFinished(second),
        ]
    )
    lines = text.splitlines()
    assert lines[0] == "Searching: 24 trials."
    assert len(lines) == 3
    accuracy = 100 * first.metrics.val_accuracy
    assert lines[1].startswith(f"[ 1/24] trial {first.number}: {accuracy:.1f} %, ")
    assert "score 2.5000" in lines[1]
    # 30 s for the first of 24; 40 s for the first two.
    assert lines[1].endswith("; 12 min left")
    assert "score 2.2500" in lines[2]
    assert f"best 2.5000 (trial {first.number})" in lines[2]
    assert lines[2].endswith("; 7 min left")


def test_without_a_score_the_most_accurate_is_the_best(make_result):
    result = make_result(n_trials=24, front=True)
    best = max(result.complete, key=lambda trial: trial.metrics.val_accuracy)
    events = [TrialFinished(trial) for trial in result.trials]
    text = watch([SearchStarted(24, 0, "x"), *events])
    accuracy = 100 * best.metrics.val_accuracy
    assert f"best {accuracy:.1f} % (trial {best.number})" in text.splitlines()[-1]
    assert "score" not in text


@pytest.mark.parametrize("outcome", ["failed", "infeasible"])
def test_a_trial_without_a_result_tells_its_reason(result, outcome):
    trial = trials_by_outcome(result, outcome)[0]
    text = watch([SearchStarted(24, 0, "x"), TrialFinished(trial)])
    assert f"trial {trial.number}: {outcome}: {trial.reason}" in text
    assert "best" not in text


def test_of_a_long_reason_the_first_line_is_enough(result):
    trial = trials_by_outcome(result, "failed")[0]
    trial = dataclasses.replace(trial, reason="the board failed. Its last lines:\nrubbish\nmore")
    text = watch([SearchStarted(24, 0, "x"), TrialFinished(trial)])
    assert "failed: the board failed. Its last lines: ...;" in text
    assert "rubbish" not in text


def test_what_is_to_be_known_before_a_search_is_said_first(result):
    text = watch([SearchStarted(24, 0, "x", ("npu has no rule for 3-bit weights.",))])
    assert text.splitlines()[:2] == ["Searching: 24 trials.", "npu has no rule for 3-bit weights."]


def test_a_repeated_candidate_names_the_trial_it_repeats(result):
    trial = dataclasses.replace(result.complete[3], duplicate_of=1)
    text = watch([SearchStarted(24, 0, "x"), TrialFinished(trial)])
    assert "the same candidate as trial 1" in text


def test_a_resumed_search_knows_what_was_done_before(result):
    before = result.trials[:5]
    best = max((t for t in before if t.score is not None), key=lambda t: t.score)
    worse = dataclasses.replace(result.complete[6], values=(best.score - 1,))
    text = watch([SearchStarted(24, 5, "x"), TrialFinished(worse)], history=before)
    lines = text.splitlines()
    assert lines[0] == "Searching: 24 trials, 5 of them done before."
    assert lines[1].startswith("[ 6/24]")
    assert f"best {best.score:.4f} (trial {best.number})" in lines[1]
    assert lines[1].endswith("; 3 min left")  # 10 s a trial, 18 to go


def test_final_networks_are_counted_and_those_on_disk_skipped(result):
    second, fourth = result.final[:2]
    text = watch(
        [
            SearchStarted(24, 24, "x"),
            FinalStarted("trial 7", 2, 5),  # 1 is on disk
            FinalFinished(second),
            FinalStarted("trial 9", 4, 5),  # 3 is on disk
            FinalFinished(fourth),
            FinalStarted("trial 9, uniform 4 bit", 5, 5),
            FinalFinished(fourth),
        ]
    )
    lines = text.splitlines()
    assert lines[1] == "Training 5 final networks and baselines."
    test = 100 * second.metrics.test_accuracy
    assert lines[2].startswith(f"[2/5] {second.label}: {test:.1f} % test, ")
    assert lines[2].endswith("; 30 s left")  # 10 s for one, 3 to go
    assert lines[3].startswith(f"[4/5] {fourth.label}")
    assert lines[3].endswith("; 15 s left")  # 30 s for two, 1 to go
    assert lines[4].startswith("[5/5] ")
    assert "left" not in lines[4]
    assert len(lines) == 5


def test_labels_are_text_and_not_markup(result):
    record = dataclasses.replace(result.final[0], label="[red]x[/red]")
    events = [FinalStarted("[red]x[/red]", 1, 1), FinalFinished(record)]
    assert "[red]x[/red]: " in watch(events)
    assert "[red]x[/red]" in watch(events[:1], terminal=True)


def test_a_terminal_shows_what_is_in_work_and_clears_it_at_the_end(result):
    trial = result.complete[0]
    text = watch(
        [
            SearchStarted(24, 0, "x"),
            TrialStarted(0, 8420.0),
            StageProgress("fine-tune", 2, 3, 0.125),
            TrialFinished(trial),
        ],
        terminal=True,
    )
    assert "trial 0, 8.42 kB, fine-tune 2/3, loss 0.1250" in text
    assert "[ 0/24]" in text
    assert "[ 1/24] trial 0: " in text
    # Transient: the last escape codes erase the two lines of the display.
    assert text.rsplit("\n", 1)[-1].count("\x1b[2K") >= 2


def test_nothing_is_extrapolated_from_nothing():
    pace = Pace(Clock())
    assert pace.left is None
    pace.begin(3, 5)
    assert pace.left is None
    pace.advance()
    assert pace.left is not None
    pace.advance()
    assert pace.left is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (59.49, "59 s"),
        (59.5, "1 min"),
        (3569, "59 min"),
        (3571, "1 h"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_are_rounded_to_what_a_person_would_say(seconds, text):
    assert format_duration(seconds) == text
