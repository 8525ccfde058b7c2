# SPDX-License-Identifier: Apache-2.0
"""Costs in the report: the figures are the models', the pictures add up, nothing is left out."""

import dataclasses
import sys

import pytest

from bitscout.core import Metrics, QuantPolicy
from bitscout.hardware import CostReport, LayerCost, load_hardware, reference_network
from bitscout.pipeline import cost, run_costs
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.report import render_report
from bitscout.report.cost_chart import breakdown, cost_chart
from bitscout.report.costs import cost_sections
from bitscout.report.quantities import part_names
from bitscout.report.rejected import budget_chart, rejected
from bitscout.space import BompSpace


@pytest.fixture(scope="module")
def budgeted(runs):
    return runs["budgeted"]


@pytest.fixture(scope="module")
def fused():
    return cost("mobilenet_v2", "bitfusion:batch=16").reports[0]


def number(text):
    return float(text.replace(",", ""))


# --- tables


def test_there_is_a_section_for_each_hardware_with_every_network_of_the_run(budgeted):
    sections, why_not = cost_sections(budgeted)
    assert why_not == ""
    assert [section.hardware for section in sections] == ["bitfusion:batch=4", "mcu"]
    assert [section.batch for section in sections] == [4, 1]
    labels = [record.label for record in (*budgeted.final, *budgeted.baselines)]
    for section in sections:
        assert [row.label for row in section.totals] == labels
        assert [network.label for network in section.networks] == labels
        best = [row.label for row in section.totals if row.is_best]
        assert best == [budgeted.best_final.label]


def test_the_totals_are_those_the_search_knew(budgeted):
    fused, memory = cost_sections(budgeted)[0]
    energy = [heading[0] for heading in fused.headings].index("energy")
    unit = {"mJ": 1.0, "µJ": 1e-3}[fused.headings[energy][1]]
    peak = [heading[0] for heading in memory.headings].index("peak memory")
    records = (*budgeted.final, *budgeted.baselines)
    for record, row, memory_row in zip(records, fused.totals, memory.totals, strict=True):
        assert number(row.cells[energy]) * unit == pytest.approx(
            record.metrics.energy_mj, rel=5.1e-3
        )
        peak_kb = record.metrics.peak_memory_bytes / 1000
        assert number(memory_row.cells[peak]) == pytest.approx(peak_kb, rel=5.1e-3)


def test_each_layer_has_a_row_and_the_network_the_last_one(budgeted):
    record = budgeted.final[0]
    (costs, _) = run_costs(budgeted, {record.name: record.candidate})
    report = costs.reports[record.name]
    network = cost_sections(budgeted)[0][0].networks[0]
    assert [row[0] for row in network.rows] == [layer.name for layer in report.layers]
    assert [row[2] for row in network.rows] == [
        f"{layer.weight_bits}/{layer.act_bits}" for layer in report.layers
    ]
    for column, _ in enumerate(network.headings):
        values = [number(row[3 + column]) for row in network.rows]
        decimals = len(network.total[column].partition(".")[2])
        # Each row is rounded to half a unit of its last digit.
        slack = (len(values) + 1) * 0.5 * 10.0**-decimals
        assert sum(values) == pytest.approx(number(network.total[column]), abs=slack)


def test_parts_of_the_energy_are_written_in_the_unit_of_the_energy(budgeted):
    network = cost_sections(budgeted)[0][0].networks[0]
    units = dict(network.headings)
    assert {units[name] for name in ("core", "wbuf", "ibuf", "obuf", "dram")} == {units["energy"]}


def test_a_run_without_hardware_shows_size_and_memory_alone(runs):
    sections, _ = cost_sections(runs["complete"])
    assert [section.hardware for section in sections] == ["size", "mcu"]


def test_before_the_final_networks_the_best_candidate_is_shown(runs):
    result = runs["unfinished"]
    for section in cost_sections(result)[0]:
        (row,) = section.totals
        assert row.label == f"trial {result.best.number}, the best so far"
    assert cost_sections(runs["empty"]) == ((), "No candidate has been evaluated yet.")


def test_notes_about_one_network_stand_with_that_network(budgeted):
    memory = cost_sections(budgeted)[0][1]
    own = [[s for s in n.sentences if "fullest" in s] for n in memory.networks]
    assert all(len(sentences) == 1 for sentences in own)
    assert not any("fullest" in note for note in memory.notes)
    assert memory.notes


def test_hardware_without_a_rule_is_told_for_each_network(budgeted, monkeypatch):
    model = load_hardware("bitfusion")
    monkeypatch.setattr(type(model), "kinds", ("conv", "linear"))
    (fused, memory) = cost_sections(budgeted)[0]
    assert fused.totals == ()
    for record in (*budgeted.final, *budgeted.baselines):
        assert any(note.startswith(f"{record.label}: Hardware") for note in fused.notes)
    assert memory.totals
    render_report(budgeted)


def test_what_was_recorded_is_shown_where_a_board_s_answers_are_gone(budgeted, monkeypatch):
    monkeypatch.setattr(type(load_hardware("bitfusion")), "needs_file", True)
    fused, _ = cost_sections(budgeted)[0]
    assert fused.networks == ()
    assert len(fused.totals) == len(budgeted.final) + len(budgeted.baselines)
    assert fused.notes[0].startswith("Measured when each network was tried")
    render_report(budgeted)


def measured_run(make_result, folder):
    """A run whose board logs each question in a file, asked about all networks but one."""
    script, log = folder / "measure.py", folder / "log"
    script.write_text(
        "import json, pathlib, sys\n"
        f"pathlib.Path({str(log)!r}).open('a').write('asked\\n')\n"
        "macs = {l['name']: {'latency_ms': l['macs'] / 1e6}"
        " for l in json.load(sys.stdin)['layers']}\n"
        "total = sum(m['latency_ms'] for m in macs.values())\n"
        "print(json.dumps({'latency_ms': total, 'layers': macs}))\n"
    )
    command = [sys.executable, str(script)]
    sections = {"hardware": {"name": "measured", "command": command}}
    result = make_result(folder / "run", n_trials=2, sections=sections)
    return result, log


def test_a_board_is_not_asked_again_but_what_it_answered_is_shown(make_result, tmp_path):
    result, log = measured_run(make_result, tmp_path)
    (section,), _ = cost_sections(result)
    assert section.notes[0].startswith("Measured when each network was tried")
    assert (section.totals, log.exists()) == ((), False)
    records = (*result.final, *result.baselines)
    space = BompSpace(input_shape=(1, 8, 8))
    costs = CandidateCosts(space, result.config.build_hardware())
    (model,) = costs.kept_in(result.directory / "hardware").models
    (tmp_path / "x.onnx").touch()
    for record in records[1:]:
        graph = space.layers(record.candidate.values)
        model.report(graph, record.candidate.policy, onnx=lambda: tmp_path / "x.onnx")
    n_asked = len(log.read_text().splitlines())
    (section,), _ = cost_sections(result)
    assert len(log.read_text().splitlines()) == n_asked
    assert [row.label for row in section.totals] == [record.label for record in records[1:]]
    assert all(network.picture is not None for network in section.networks)
    assert any(note.startswith(f"{records[0].label}: ") for note in section.notes)


def test_a_space_that_was_handed_over_in_python_is_a_reason(budgeted):
    space = budgeted.config.space.model_copy(update={"name": "custom"})
    config = budgeted.config.model_copy(update={"space": space})
    sections, why_not = cost_sections(dataclasses.replace(budgeted, config=config))
    assert sections == ()
    assert "handed over in Python" in why_not
    sections, why_not = cost_sections(dataclasses.replace(budgeted, dataset={}))
    assert "dataset.json" in why_not


# --- pictures


def test_stacked_bars_add_up_to_energy_and_latency_layer_by_layer(fused):
    picture = cost_chart(fused)
    assert [name for name, _ in picture.legend] == ["energy", "latency"]
    for name, axis, unit in (("energy_mj", "y", 1.0), ("latency_ms", "y2", 1.0)):
        traces = [trace for trace in picture.chart["data"] if trace["yaxis"] == axis]
        assert len(traces) == {"energy_mj": 5, "latency_ms": 2}[name]
        for index, layer in enumerate(fused.layers):
            total = sum(trace["y"][index] for trace in traces)
            assert total * unit == pytest.approx(layer.costs[name], rel=1e-9)
        assert len({trace["marker"]["color"] for trace in traces}) == len(traces)
        assert all(trace["x"] == [layer.name for layer in fused.layers] for trace in traces)


def test_parts_must_add_up_in_every_layer():
    def report(*layers):
        costs = tuple(LayerCost(f"l{i}", "conv", 1, 8, 8, v) for i, v in enumerate(layers))
        return CostReport("x", 1, dict.fromkeys(("e_mj", "a_mj", "b_mj"), "mJ"), {}, costs)

    right = {"e_mj": 3.0, "a_mj": 1.0, "b_mj": 2.0}
    assert part_names(report(right, right), "e_mj") == ["a_mj", "b_mj"]
    assert part_names(report(right, {**right, "b_mj": 2.1}), "e_mj") == []
    assert part_names(report(right, {"e_mj": 3.0}), "e_mj") == []
    assert breakdown(report(right, {**right, "b_mj": 2.1}), "e_mj") == {"e": [3.0, 3.0]}


def test_memory_is_drawn_step_by_step_with_the_peak_of_the_network():
    graph = reference_network("resnet20")
    report = load_hardware("mcu").report(graph, QuantPolicy.uniform(graph.names, 8))
    chart = cost_chart(report).chart
    (memory,) = [trace for trace in chart["data"] if trace["yaxis"] == "y"]
    (level,) = chart["layout"]["shapes"]
    assert level["y0"] == level["y1"] == max(memory["y"])
    assert level["y0"] * 1000 == report.total["peak_memory_bytes"]


def test_a_model_without_known_quantities_has_its_own_drawn_and_one_without_layers_none(fused):
    layers = tuple(
        dataclasses.replace(layer, costs={"carbon_g": float(i)})
        for i, layer in enumerate(fused.layers)
    )
    own = CostReport("own", 1, {"carbon_g": "g"}, {"carbon_g": 1.0}, layers)
    (trace,) = cost_chart(own).chart["data"]
    assert trace["y"] == [float(i) for i in range(len(layers))]
    assert cost_chart(dataclasses.replace(own, layers=())) is None


def test_names_of_layers_cannot_become_markup(fused):
    layer = dataclasses.replace(fused.layers[0], name="<img src=x>")
    chart = cost_chart(dataclasses.replace(fused, layers=(layer, *fused.layers[1:]))).chart
    assert all("<img" not in trace["text"][0] for trace in chart["data"])
    assert "<img" not in chart["layout"]["xaxis2"]["ticktext"][0]


# --- rejected before training


def test_rejected_candidates_are_counted_bound_by_bound(budgeted):
    metrics = [t.metrics for t in budgeted.trials if t.outcome == "infeasible"]
    over = [
        (m.size_bytes > 60_000, m.peak_memory_bytes > 7000, m.energy_mj > 0.7) for m in metrics
    ]
    found = rejected(budgeted)
    assert [bound.label for bound in found.bounds] == ["size, kB", "peak memory, kB", "energy, mJ"]
    assert [bound.limit for bound in found.bounds] == ["60", "7", "0.7"]
    assert [bound.n_over for bound in found.bounds] == [
        sum(column) for column in zip(*over, strict=True)
    ]
    assert [bound.n_alone for bound in found.bounds] == [
        sum(row[i] and sum(row) == 1 for row in over) for i in range(3)
    ]
    assert len(metrics) == len(found.rows) > 3
    assert f"{len(metrics)} of 24 candidates were not trained" in found.summary
    for trial_over, row in zip(over, found.rows, strict=True):
        assert tuple(flag for _, flag in row.cells) == trial_over
        assert row.reason == budgeted.trials[row.number].reason


def test_the_budget_chart_has_each_candidate_at_its_tightest_bound(budgeted):
    chart = budget_chart(budgeted)
    crosses, points = chart["data"]
    assert min(crosses["y"]) > 100 >= max(points["y"])
    assert sorted(crosses["x"] + points["x"]) == list(range(24))
    trial = budgeted.trials[crosses["x"][0]]
    shares = (trial.metrics.size_bytes / 60_000, trial.metrics.peak_memory_bytes / 7000)
    tightest = max(*shares, trial.metrics.energy_mj / 0.7)
    assert crosses["y"][0] == pytest.approx(100 * tightest, rel=1e-12)
    layout = chart["layout"]
    assert layout["xaxis"]["range"][0] < 0
    low, high = layout["yaxis"]["range"]
    assert 10**low < min(points["y"])
    assert max(crosses["y"]) < 10**high
    assert sum(10**low <= tick <= 10**high for tick in layout["yaxis"]["tickvals"]) >= 3


def test_candidates_that_hardware_cannot_run_are_counted_apart(budgeted):
    first = next(t for t in budgeted.trials if t.outcome == "infeasible")
    odd = dataclasses.replace(first, metrics=Metrics(size_bytes=1.0), reason="no rule for it")
    trials = tuple(odd if t is first else t for t in budgeted.trials)
    found = rejected(dataclasses.replace(budgeted, trials=trials))
    assert found.n_without_rule == 1
    assert [cell for cell, _ in found.rows[0].cells] == ["0.001", "–", "–"]


def test_without_a_budget_or_rejections_there_is_a_sentence_and_no_chart(runs, make_result):
    assert budget_chart(runs["complete"]) is None
    large = make_result(n_trials=3, sections={"budget": {"size_kb": 1000.0}})
    assert budget_chart(large) is None
    assert rejected(large).summary.startswith("None: all 3 candidates")
    assert rejected(runs["empty"]).rows == ()


def test_the_page_shows_bounds_reasons_and_costs(budgeted):
    text = render_report(budgeted)
    for reason in {trial.reason for trial in budgeted.trials if trial.reason}:
        assert reason in text
    assert text.count("layer by layer</summary>") == 2 * (
        len(budgeted.final) + len(budgeted.baselines)
    )
