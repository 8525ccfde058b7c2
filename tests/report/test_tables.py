# SPDX-License-Identifier: Apache-2.0
"""The tables in a terminal of the usual width."""

import dataclasses
import io

import pytest
from rich.console import Console

from bitscout.report import front_table, networks_table, show_run, verdict_lines
from bitscout.report.headline import verdict_summary
from bitscout.report.quantities import column


def printed(renderable, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_network_and_its_figures_fit_the_terminal(complete, width):
    text = printed(networks_table(complete), width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for record in (*complete.final, *complete.baselines):
        assert f"{100 * record.metrics.test_accuracy:.1f} ±" in words
    assert "…" not in text


def test_the_best_network_is_marked_once(complete):
    assert printed(networks_table(complete), 120).count(" *") == 1


def test_the_front_is_listed_in_its_order_with_scores(complete):
    text = printed(front_table(complete), 120)
    places = [text.index(f"trial {number} ") for number in complete.pareto_front]
    assert places == sorted(places)
    assert f"{complete.best.score:.4f}" in text


def test_the_front_of_several_metrics_has_no_score(runs, complete):
    assert "score" not in printed(front_table(runs["front"]), 120)
    assert "score" in printed(front_table(complete), 120)


@pytest.mark.parametrize(
    "front",
    [
        ["accuracy", "energy_mj"],
        ["accuracy", "size_bytes", "energy_mj"],
        ["accuracy", "energy_mj", "latency_ms", "peak_memory_bytes"],
    ],
)
def test_the_costs_of_a_front_have_columns_that_fit_80(make_result, front):
    hardware = ["bitfusion", "mcu"]
    sections = {"hardware": hardware, "objective": {"front": front}}
    result = make_result(n_trials=8, sections=sections)
    for table in (front_table(result), networks_table(result)):
        text = printed(table)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        assert f"trial {result.pareto_front[0]} " in text
        for name in front[1:]:
            label = {"energy_mj": "energy", "latency_ms": "latency", "size_bytes": "kB"}
            assert label.get(name, "memory") in text
    energy_mj = [r.metrics.energy_mj for r in (*result.final, *result.baselines)]
    for value in energy_mj:
        assert column("energy_mj", "mJ", energy_mj).with_unit(value).split()[0][:4] in text


def test_verdicts_come_with_their_summary(complete, runs):
    summary, grid = verdict_lines(complete)
    assert summary.plain == verdict_summary(complete)
    lines = printed(grid, 200).splitlines()
    assert [line.split(maxsplit=1) for line in map(str.strip, lines)] == [
        [verdict.outcome, verdict.sentence()] for verdict in complete.verdicts
    ]
    assert verdict_lines(runs["unfinished"]) == []


def test_networks_that_could_not_be_trained_are_named_with_the_reason(complete):
    failure = {"name": "uniform", "label": "trial 3 at uniform 5 bit", "reason": "the loss is nan"}
    lines = verdict_lines(dataclasses.replace(complete, failures=(failure,)))
    assert lines[-1].plain == "trial 3 at uniform 5 bit could not be trained: the loss is nan"


def test_long_verdicts_wrap_between_words(complete):
    lines = printed(verdict_lines(complete)[1], 60).splitlines()
    words = " ".join(line.strip() for line in lines)
    for verdict in complete.verdicts:
        assert verdict.sentence() in words
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("state", "titles"),
    [
        ("empty", []),
        ("unfinished", ["Front of the search"]),
        ("complete", ["Front of the search", "Final networks and baselines"]),
    ],
)
def test_show_has_a_table_for_whatever_exists(runs, state, titles):
    text = printed(show_run(runs[state]))
    assert [t for t in ("Front of the search", "Final networks and baselines") if t in text] == (
        titles
    )
    assert "runs/quickstart" in text


def test_brackets_in_paths_and_labels_are_text_and_not_markup(complete):
    from pathlib import Path

    baseline = dataclasses.replace(complete.baselines[0], label="[red]x[/red]")
    result = dataclasses.replace(complete, directory=Path("runs/[bold]"), baselines=(baseline,))
    text = printed(show_run(result), 120)
    assert "runs/[bold]" in text
    assert "[red]x[/red]" in text


def test_budgets_have_columns_lines_and_marks(make_result):
    budget = {"energy_mj": 0.3, "peak_memory_kb": 7}
    result = make_result(sections={"hardware": "bitfusion:batch=4", "budget": budget})
    for width in (80, 120):
        text = printed(show_run(result), width)
        assert "Budget: peak_memory_kb 7, energy_mj 0.3" in text
        assert "Rejected before training: " in text
        assert "energy" in text
        assert "memory" in text
        assert max(map(len, text.splitlines())) <= width
    table = networks_table(result)
    bound, records = result.config.budget.build(), (*result.final, *result.baselines)
    over = [bound.reason(record.metrics) is not None for record in records]
    assert [str(cell).endswith(" !") for cell in table.columns[0].cells] == over
    assert any(over)
    assert "over the budget" in str(table.caption)


def test_a_run_that_ended_with_nothing_says_why_and_what_helps(make_result):
    result = make_result(sections={"budget": {"size_kb": 60}})
    over = [
        dataclasses.replace(
            trial,
            outcome="infeasible",
            values=(),
            reason="size_kb 91 is over the budget of 60",
            constraints={"size_kb": 0.5},
        )
        for trial in result.trials
    ]
    ended = dataclasses.replace(
        result, trials=tuple(over), final=(), baselines=(), certificates={}, state="finalizing"
    )
    text = " ".join(printed(show_run(ended)).split())
    assert f"Ended without a network: {len(over)} of {len(over)} trials." in text
    assert "Raise the budget" in text
    assert "resume" not in text
