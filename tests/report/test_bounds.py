# SPDX-License-Identifier: Apache-2.0
"""Budgets in the page: stated once, every network over them is marked, nothing left to guess."""

import dataclasses

import pytest

from bitscout.core import Budget, Metrics
from bitscout.report import render_report
from bitscout.report.bounds import (
    budget_sentence,
    cost_cells,
    cost_headings,
    not_judged,
    over_budget,
)
from bitscout.report.costs import cost_sections
from bitscout.report.untrained import untrained


@pytest.fixture(scope="module")
def budgeted(runs):
    return runs["budgeted"]


def over_by_hand(metrics):
    bounds = {"size_bytes": 60_000, "peak_memory_bytes": 7000, "energy_mj": 0.7}
    names = {"size_bytes": "size", "peak_memory_bytes": "peak memory", "energy_mj": "energy"}
    return ", ".join(names[name] for name in bounds if metrics[name] > bounds[name])


def test_a_budget_is_stated_in_its_own_units_at_the_top_of_the_page(budgeted, runs):
    sentence = budget_sentence(budgeted.config.budget.build())
    assert (
        sentence == "Budget: size at most 60 kB, peak memory at most 7 kB, energy at most 0.7 mJ."
    )
    head = render_report(budgeted).partition("</header>")[0]
    assert head.count(sentence) == 1
    assert budget_sentence(Budget()) is None
    assert "Budget:" not in render_report(runs["complete"]).partition("</header>")[0]


def test_networks_over_budget_are_marked_with_their_bounds_in_both_tables(budgeted):
    records = (*budgeted.final, *budgeted.baselines)
    over = [over_by_hand(record.metrics) for record in records]
    budget = budgeted.config.budget.build()
    assert [over_budget(budget, record.metrics) for record in records] == over
    assert any(over)
    assert not all(over)
    for section in cost_sections(budgeted)[0]:
        assert [row.over for row in section.totals] == over
    text = render_report(budgeted)
    for names in filter(None, over):
        # The table of networks and, for both models, that of costs.
        assert text.count(f">over budget: {names}</span>") == 3 * over.count(names)
    assert "baselines need not keep the budget" in text


def test_a_network_at_its_bound_or_of_unknown_cost_is_not_over():
    budget = Budget(size_kb=5, energy_mj=1)
    assert over_budget(budget, Metrics(size_bytes=5000)) == ""
    assert over_budget(budget, None) == ""
    assert over_budget(budget, Metrics(size_bytes=5001, energy_mj=2.0)) == "size, energy"


def test_networks_have_a_column_for_each_cost_of_front_and_budget(budgeted, make_result, runs):
    headings = cost_headings(budgeted)
    assert [h.label.partition(",")[0] for h in headings] == ["peak memory", "energy"]
    assert [h.limit for h in headings] == ["7", {"mJ": "0.7", "µJ": "700"}[headings[1].label[-2:]]]
    record = budgeted.baselines[-1]
    for heading, cell in zip(headings, cost_cells(record.metrics, headings), strict=True):
        value = float(cell.replace(",", "")) * heading.axis.column.scale
        assert value == pytest.approx(record.metrics[heading.axis.metric], rel=5.1e-3)
    assert cost_cells(None, headings) == ("–", "–")
    assert cost_headings(runs["complete"]) == ()
    objective = {"front": ["accuracy", "energy_mj"]}
    free = make_result(n_trials=3, sections={"hardware": "bitfusion", "objective": objective})
    assert [(h.axis.metric, h.limit) for h in cost_headings(free)] == [("energy_mj", "")]


def test_verdicts_say_what_they_leave_out(runs, budgeted, make_result):
    assert not_judged(runs["complete"]) is None
    assert "not the budget: a baseline may cost more" in not_judged(budgeted)
    assert not_judged(budgeted) in render_report(budgeted)
    objective = {"front": ["accuracy", "size_bytes", "energy_mj"]}
    free = make_result(n_trials=3, sections={"hardware": "bitfusion", "objective": objective})
    assert not_judged(free) == "The verdicts compare test accuracy and size alone, not energy."


# --- nothing was trained


def ended(result, *outcomes):
    """A run of these trials and no other."""
    config = result.config.model_copy(
        update={"searcher": result.config.searcher.model_copy(update={"n_trials": len(outcomes)})}
    )
    first = next(trial for trial in result.trials if trial.outcome == "infeasible")
    trials = [
        dataclasses.replace(first, number=number, **fields)
        for number, fields in enumerate(outcomes)
    ]
    changes = {"final": (), "baselines": (), "state": "finalizing"}
    return dataclasses.replace(result, config=config, trials=tuple(trials), **changes)


OVER = {"metrics": Metrics(size_bytes=61_000.0, peak_memory_bytes=1.0, energy_mj=2.0)}
NO_RULE = {"metrics": Metrics(size_bytes=1.0), "reason": "no rule for it"}
FAILED = {"outcome": "failed", "metrics": None, "reason": "No board\non `usb0`."}


def test_a_run_that_used_its_trials_in_vain_says_why_and_what_helps(budgeted):
    result = ended(budgeted, OVER, OVER, NO_RULE, FAILED)
    found = untrained(result)
    assert found.what == (
        "All 4 trials are used and none was trained: 2 over the budget (size 2, peak memory 0, "
        "energy 2); 1 that the hardware has no rule for; 1 failed (No board on `usb0`)."
    )
    assert found.advice.startswith("Raise the budget or give the search more trials")
    assert "the cause of the failures, and search again in a new directory" in found.advice
    text = render_report(result)
    assert "1 failed (No board on <code>usb0</code>)" in text
    assert "Nothing has been evaluated yet" not in text
    assert "bitscout resume" not in text
    assert "has been evaluated yet" not in text


def test_failures_are_counted_by_reason_the_commonest_first(budgeted):
    reasons = ["a", "b", "b", "c", "word " * 99]
    found = untrained(ended(budgeted, *({**FAILED, "reason": reason} for reason in reasons)))
    assert "5 failed (2 × b; 1 × a; 2 for other reasons)" in found.what
    assert found.advice.startswith("Remove the cause of the failures, and")
    long = untrained(ended(budgeted, {**FAILED, "reason": "word " * 99}))
    assert long.what.endswith("word ...).")
    assert len(long.what) < 240
    assert "None: the cost of no candidate is known." in render_report(
        ended(budgeted, FAILED, FAILED)
    )


def test_a_run_that_can_go_on_or_has_a_result_is_not_called_ended(runs, budgeted):
    for result in runs.values():
        assert untrained(result) is None
    running = ended(budgeted, OVER, OVER)
    assert untrained(dataclasses.replace(running, trials=running.trials[:1])) is None
