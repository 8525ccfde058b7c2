# SPDX-License-Identifier: Apache-2.0
"""The page: self-contained, escaped, whole in every state of a run."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from bitscout.errors import RunError
from bitscout.pipeline import RunDirectory
from bitscout.report import render_report, write_report

STATES = [
    "empty", "unfinished", "without-finals", "without-baselines", "complete", "front", "budgeted",
]  # fmt: skip
SECTIONS = {
    "answer",
    "accuracy-and-cost",
    "costs",
    "rejected",
    "failed",
    "networks",
    "bits",
    "history",
    "reproduce",
}
VOID = {"meta", "link", "br", "img", "input", "hr"}
REFERENCES = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """Elements, ids, references, text and scripts of a page; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.references, self.scripts, self.tags = [], set(), [], {}, []
        self.text, self.style = "", ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            assert attrs["id"] not in self.ids
            self.ids.add(attrs["id"])
        self.references += [value for key, value in attrs.items() if key in REFERENCES]
        if tag not in VOID:
            self.open.append((tag, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag in {"td", "th"}:
            self.text += " "

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts[attrs.get("id", len(self.scripts))] = data
        elif tag == "style":
            self.style += data
        else:
            self.text += data

    @property
    def words(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def pages(runs):
    return {name: Page(render_report(result)) for name, result in runs.items()}


@pytest.mark.parametrize("state", STATES)
def test_the_page_has_every_section_and_refers_to_nothing_outside_itself(pages, state):
    page = pages[state]
    assert page.ids >= SECTIONS
    assert page.references == ["data:,"]  # the empty icon
    assert "url(" not in page.style
    assert "@import" not in page.style


@pytest.mark.parametrize("state", STATES)
def test_the_page_forbids_itself_to_load_anything(pages, state):
    policies = [
        attrs["content"]
        for tag, attrs in pages[state].tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert "http" not in policies[0]


@pytest.mark.parametrize("state", STATES)
def test_the_result_is_in_the_page_as_json(pages, runs, state):
    document = json.loads(pages[state].scripts["bitscout-result"])
    assert document == json.loads(json.dumps(runs[state].to_json()))


@pytest.mark.parametrize("state", STATES)
def test_plotly_accepts_every_chart_once_colours_are_filled_in(pages, state):
    page = pages[state]
    text = page.scripts["bitscout-charts"]
    charts = json.loads(re.sub(r'"--[a-z]+"', '"#123456"', text))
    assert set(charts) >= {"accuracy-size", "score", "hypervolume"}
    assert {name for name in charts if f"chart-{name}" in page.ids} == (
        set(charts) if state != "empty" else set()
    )
    for chart in charts.values():
        go.Figure(chart)


@pytest.mark.parametrize("state", STATES)
def test_every_colour_of_a_chart_is_a_variable_of_the_light_and_the_dark_theme(pages, state):
    page = pages[state]
    used = set(re.findall(r'"(--[a-z]+)"', page.scripts["bitscout-charts"]))
    assert used
    for name in used:
        assert len(re.findall(rf"[\s;]{name}:", page.style)) == 2


def test_the_plotting_library_is_in_the_page_once(complete):
    assert render_report(complete).count("plotly.js v") == 1


def test_a_chart_has_its_place_exactly_where_there_is_something_to_draw(pages):
    ids = {"chart-accuracy-size", "chart-score", "chart-hypervolume"}
    assert pages["complete"].ids >= ids
    assert not pages["empty"].ids & ids


def test_the_answer_names_the_best_network_and_every_verdict(pages, complete):
    words = pages["complete"].words
    best = max(complete.final, key=lambda r: complete.config.objective.build().values(r.metrics))
    assert f"Best final network: {best.label}" in words
    for verdict in complete.verdicts:
        sentence = verdict.sentence()
        assert sentence[0].upper() + sentence[1:] in words


def test_a_search_that_beats_nothing_is_said_to(make_result):
    result = make_result(gain=-0.2, baseline_gain=0.05)
    assert not result.beats_baselines
    assert "Nothing found beats a uniform-precision baseline" in Page(render_report(result)).words


def test_every_network_and_every_front_trial_is_in_a_table(pages, complete):
    words = pages["complete"].words
    for record in (*complete.final, *complete.baselines):
        assert record.label in words
    header = words[words.index("Bits of every layer") :]
    for number in complete.pareto_front:
        assert f" {number} " in header


def test_every_trial_without_a_result_is_listed_with_its_reason(pages, complete):
    words = pages["complete"].words
    reasons = {trial.reason for trial in complete.trials if trial.reason}
    assert len(reasons) == 2
    for reason in reasons:
        assert reason in words
    assert "2 failed" in words
    assert "2 of 40 candidates were not trained" in words


def test_long_lists_of_trials_without_a_result_are_cut_and_counted(make_result, complete):
    infeasible = next(trial for trial in complete.trials if trial.outcome == "infeasible")
    trials = tuple(dataclasses.replace(infeasible, number=n) for n in range(203))
    result = dataclasses.replace(make_result(n_finished=0), trials=trials)
    page = Page(render_report(result))
    assert "And 3 more" in page.words
    assert page.words.count("size_kb 91.6 is over") == 200


def test_an_unfinished_run_says_how_to_go_on_and_a_complete_one_does_not(pages):
    assert "Unfinished: 25 of 40 trials" in pages["unfinished"].words
    assert "bitscout resume runs/quickstart" in pages["unfinished"].words
    assert "bitscout resume" not in pages["complete"].words
    assert "Complete: 40 of 40 trials" in pages["complete"].words


def test_the_whole_configuration_and_environment_are_shown(pages):
    words = pages["complete"].words
    for expected in ("calibration_images: 512", "Example CPU", "seeds.root", "0123abc"):
        assert expected in words


def test_text_from_a_run_cannot_become_markup(complete):
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    baseline = dataclasses.replace(complete.baselines[0], label=attack)
    infeasible = [t for t in complete.trials if t.outcome == "infeasible"]
    trial = dataclasses.replace(infeasible[0], reason=attack)
    result = dataclasses.replace(
        complete,
        baselines=(baseline, *complete.baselines[1:]),
        trials=tuple(trial if t.number == trial.number else t for t in complete.trials),
        environment={attack: attack},
    )
    text = render_report(result)
    page = Page(text)
    assert "alert(1)" not in "".join(
        script for key, script in page.scripts.items() if isinstance(key, int)
    )
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert sum(tag == "script" for tag, _ in page.tags) == 4
    assert attack in page.text
    chart = page.scripts["bitscout-charts"]
    assert "onerror" in chart  # in a hover text
    assert "\\u003cimg" not in chart
    assert "&lt;img" in chart


def test_a_directory_with_special_characters_is_quoted_in_commands(make_result):
    page = Page(render_report(make_result("my runs/a & b", n_finished=0)))
    assert "bitscout resume 'my runs/a & b'" in page.words


def test_the_page_is_written_at_once_and_replaces_an_older_one(complete, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(complete, path) == path
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(complete, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Cannot write .*report\.html"):
        write_report(complete, tmp_path / "file" / "report.html")


def test_a_page_of_a_run_read_from_disk_is_the_same(complete, make_result, write_run, tmp_path):
    from bitscout.pipeline import load_result

    directory = write_run(make_result(tmp_path / "run", n_trials=24))
    result = load_result(directory)
    assert RunDirectory(directory).report == directory / "report.html"
    page = Page(render_report(result))
    assert json.loads(page.scripts["bitscout-result"])["state"] == "complete"
    assert page.ids >= SECTIONS
