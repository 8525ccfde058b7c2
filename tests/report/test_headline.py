# SPDX-License-Identifier: Apache-2.0
"""The answer in words."""

import dataclasses

import pytest

from bitscout.report.headline import headline, state_sentence, verdict_summary


def with_test_accuracies(result, final, baselines):
    """Networks of 5 kB and baselines of 6 kB with these test accuracies."""

    def change(records, accuracies, size):
        return tuple(
            dataclasses.replace(
                record,
                metrics=dataclasses.replace(
                    record.metrics, test_accuracy=accuracy, size_bytes=size
                ),
            )
            for record, accuracy in zip(records, accuracies, strict=False)
        )

    return dataclasses.replace(
        result,
        final=change(result.final, final, 5000.0),
        baselines=change(result.baselines, baselines, 6000.0),
    )


@pytest.mark.parametrize(
    ("baselines", "summary"),
    [
        ([0.8, 0.8, 0.8], "The search beats all 3 uniform-precision baselines."),
        ([0.8, 0.95, 0.8], "The search beats 2 of 3 uniform-precision baselines."),
        ([0.8], "The search beats the uniform-precision baseline."),
        ([0.95, 0.95, 0.95], "Nothing found beats a uniform-precision baseline"),
        ([0.95], "Nothing found beats a uniform-precision baseline"),
    ],
)
def test_the_summary_counts_the_baselines_beaten(complete, baselines, summary):
    result = with_test_accuracies(complete, [0.9], baselines)
    assert verdict_summary(result).startswith(summary)


@pytest.mark.parametrize("state", ["empty", "unfinished", "without-finals", "without-baselines"])
def test_there_is_no_summary_before_there_is_something_to_compare(runs, state):
    assert verdict_summary(runs[state]) is None


def test_the_headline_is_the_best_network_known_so_far(runs):
    assert headline(runs["empty"]) is None
    best = runs["unfinished"].best
    found = headline(runs["unfinished"])
    assert found.what == f"Best candidate: trial {best.number}"
    assert (found.accuracy, found.accuracy_of) == (
        f"{100 * best.metrics.val_accuracy:.1f}",
        "validation accuracy",
    )
    assert headline(runs["complete"]).accuracy_of == "test accuracy"


def test_the_state_is_told_with_its_counts(runs):
    assert (
        state_sentence(runs["complete"]) == "Complete: 40 of 40 trials (2 failed, 2 infeasible)."
    )
    assert state_sentence(runs["unfinished"]) == (
        "Unfinished: 25 of 40 trials (1 failed, 1 infeasible), final networks not yet trained."
    )
    assert "0 final networks trained so far" in state_sentence(runs["without-finals"])
    assert state_sentence(runs["empty"]).startswith("Unfinished: 0 of 40 trials, final")
