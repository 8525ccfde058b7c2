# SPDX-License-Identifier: Apache-2.0
"""The charts show what the run holds."""

import dataclasses

import numpy as np
import pytest

from bitscout.core import pareto_mask
from bitscout.report.front_chart import accuracy_charts, baseline_symbols, hidden_below
from bitscout.report.front_map import cost_map
from bitscout.report.history_charts import hypervolume_chart, score_chart


def accuracy_size_chart(result):
    (chart,) = accuracy_charts(result).values()
    return chart


def traces_in(chart, **marks):
    found = []
    for trace in chart["data"]:
        flat = {**trace, **{f"marker_{k}": v for k, v in trace.get("marker", {}).items()}}
        flat |= {f"line_{k}": v for k, v in trace.get("line", {}).items()}
        if all(flat.get(key) == value for key, value in marks.items()):
            found.append(trace)
    return found


def candidates_in(chart):
    (trace,) = [t for t in chart["data"] if "colorscale" in t.get("marker", {})]
    return trace


def test_candidates_stand_at_size_and_validation_accuracy_coloured_by_number(complete):
    trace = candidates_in(accuracy_size_chart(complete))
    trials = complete.complete
    assert trace["x"] == [t.metrics.size_bytes / 1000 for t in trials]
    assert trace["y"] == [100 * t.metrics.val_accuracy for t in trials]
    assert trace["marker"]["color"] == [t.number for t in trials]
    assert trace["marker"]["colorscale"] == [[0, "--early"], [1, "--late"]]
    assert f"<b>trial {trials[0].number}</b> {trials[0].candidate.digest}" in trace["text"][0]
    assert "bits " in trace["text"][0]


def test_final_networks_stand_at_their_test_accuracy_linked_to_their_candidates(complete):
    chart = accuracy_size_chart(complete)
    (finals,) = traces_in(chart, marker_color="--final")
    assert finals["y"] == [100 * r.metrics.test_accuracy for r in complete.final]
    (links,) = traces_in(chart, line_color="--final", mode="lines")
    assert len(links["x"]) == 3 * len(complete.final)
    record = complete.final[1]
    trial = complete.trials[record.number]
    assert links["x"][3:6] == [
        trial.metrics.size_bytes / 1000,
        record.metrics.size_bytes / 1000,
        None,
    ]
    assert links["y"][3:5] == [
        100 * trial.metrics.val_accuracy,
        100 * record.metrics.test_accuracy,
    ]


def test_baselines_have_different_markers_and_none_is_missing(complete):
    chart = accuracy_size_chart(complete)
    baselines = traces_in(chart, marker_color="--baseline")
    assert [t["y"] for t in baselines] == [
        [100 * r.metrics.test_accuracy] for r in complete.baselines
    ]
    assert len({t["marker"]["symbol"] for t in baselines}) == len(complete.baselines) == 3
    assert len({character for _, _, character in baseline_symbols(complete)}) == 3


def test_score_lines_lie_in_the_visible_part_and_have_their_score(complete):
    chart = accuracy_size_chart(complete)
    lines = traces_in(chart, line_dash="dot")
    assert len(lines) == 5
    objective = complete.config.objective.build()
    low, high = chart["layout"]["yaxis"]["range"]
    for line in lines:
        label = float(line["text"][-1])
        score = objective.score(line["y"][-1] / 100, 8000 * line["x"][-1])
        assert label == pytest.approx(score, abs=0.005)
        assert low <= min(line["y"])
        assert max(line["y"]) <= min(high, 100)


def test_labels_of_score_lines_lie_apart_and_inside_the_chart(make_result):
    for seed in range(4):
        chart = accuracy_size_chart(make_result(n_trials=12, seed=seed))
        (left, right), (low, high) = (chart["layout"][f"{a}axis"]["range"] for a in "xy")
        lines = traces_in(chart, line_dash="dot")
        places = [
            ((np.log10(t["x"][-1]) - left) / (right - left), (t["y"][-1] - low) / (high - low))
            for t in lines
        ]
        assert len({trace["text"][-1] for trace in lines}) == len(lines) >= 2
        assert all(trace["textposition"] == "top left" for trace in lines)
        assert all(0.12 <= x <= 1 for x, _ in places)
        for index, (x, y) in enumerate(places):
            for other_x, other_y in places[:index]:
                assert abs(x - other_x) >= 0.12 or abs(y - other_y) >= 0.045


def test_score_lines_that_are_close_are_left_out_but_the_best(complete):
    best = complete.best
    close = tuple(
        dataclasses.replace(best, number=n, values=(best.score - 1e-6 * n,)) for n in range(5)
    )
    (line,) = traces_in(
        accuracy_size_chart(dataclasses.replace(complete, trials=close)), line_dash="dot"
    )
    assert float(line["text"][-1]) == pytest.approx(best.score, abs=1e-6)


@pytest.mark.parametrize("n_finished", [1, 2, 25])
def test_axes_of_trials_have_whole_ticks_and_room_for_the_first_and_last_mark(
    make_result, n_finished
):
    result = make_result(n_finished=n_finished)
    for chart in (score_chart(result), hypervolume_chart(result)):
        axis = chart["layout"]["xaxis"]
        assert axis["range"][0] <= -0.5
        assert axis["range"][1] >= n_finished - 0.5
        assert axis["tick0"] == 0
        assert isinstance(axis["dtick"], int)
        assert n_finished - 1 <= 10 * axis["dtick"]


def test_the_axes_of_costs_have_three_ticks_where_one_looks(three):
    layouts = [chart["layout"] for chart in accuracy_charts(three).values()]
    for axis in [layout["xaxis"] for layout in layouts] + [cost_map(three)[1]["layout"]["yaxis"]]:
        low, high = axis["range"]
        assert sum(low <= np.log10(tick) <= high for tick in axis["tickvals"]) >= 3
        assert len(axis["ticktext"]) == len(axis["tickvals"])


def test_a_front_of_several_metrics_has_no_score_lines(runs):
    assert traces_in(accuracy_size_chart(runs["front"]), line_dash="dot") == []


def test_the_front_line_joins_the_front_of_the_search(complete):
    (front,) = traces_in(accuracy_size_chart(complete), line_shape="hv")
    assert front["x"] == [
        complete.trials[n].metrics.size_bytes / 1000 for n in complete.pareto_front
    ]


def test_the_axes_show_all_but_the_candidates_counted_as_hidden(complete):
    layout = accuracy_size_chart(complete)["layout"]
    start, n_hidden = hidden_below(complete)
    accuracies = np.array([t.metrics.val_accuracy for t in complete.complete])
    assert n_hidden == (accuracies < start).sum() == 2
    assert layout["yaxis"]["range"][0] < 100 * start
    shown = [r.metrics.test_accuracy for r in (*complete.final, *complete.baselines)]
    assert layout["yaxis"]["range"][0] < 100 * min(shown)
    sizes = [t.metrics.size_bytes / 1000 for t in complete.complete]
    left, right = layout["xaxis"]["range"]
    assert 10**left < min(sizes)
    assert max(sizes) < 10**right


def test_a_baseline_that_learned_nothing_is_shown_all_the_same(complete):
    poor = dataclasses.replace(
        complete.baselines[0],
        metrics=dataclasses.replace(complete.baselines[0].metrics, test_accuracy=0.05),
    )
    result = dataclasses.replace(complete, baselines=(poor,))
    assert hidden_below(result) == (0.05, 0)


def test_one_trial_is_enough_for_every_chart(make_result):
    result = make_result(n_finished=1)
    assert len(result.complete) == 1
    assert candidates_in(accuracy_size_chart(result))["x"]
    assert score_chart(result)["data"][1]["y"] == [result.complete[0].score]
    assert hypervolume_chart(result)["data"][0]["y"] == [0.0]


def test_the_score_chart_shows_scores_and_a_front_run_accuracies(complete, runs):
    points, best = score_chart(complete)["data"]
    assert points["y"] == [t.score for t in complete.complete]
    assert best["y"][-1] == complete.best.score
    points, best = score_chart(runs["front"])["data"]
    assert points["y"] == [100 * t.metrics.val_accuracy for t in runs["front"].complete]
    assert best["y"][-1] == max(points["y"])


@pytest.fixture(scope="module")
def three(make_result):
    """A front of accuracy, size and energy."""
    objective = {"front": ["accuracy", "energy_mj", "size_bytes"]}
    return make_result(n_trials=24, sections={"hardware": "bitfusion", "objective": objective})


def test_a_front_of_three_has_a_projection_for_each_cost_and_a_view_from_above(three):
    charts = accuracy_charts(three)
    assert list(charts) == ["accuracy-energy", "accuracy-size"]
    trials = three.complete
    trace = candidates_in(charts["accuracy-energy"])
    energies = np.array([t.metrics.energy_mj for t in trials])
    assert np.ptp(np.array(trace["x"]) / energies) < 1e-9 * trace["x"][0] / energies[0]
    assert trace["y"] == [100 * t.metrics.val_accuracy for t in trials]
    title, above = cost_map(three)
    assert title == "size over energy"
    assert candidates_in(above)["y"] == [t.metrics.size_bytes / 1000 for t in trials]
    assert candidates_in(above)["x"] == trace["x"]
    assert candidates_in(above)["marker"]["color"] == trace["y"]


def test_the_members_of_a_front_of_three_have_rings_instead_of_a_line(three):
    rows = [
        [-t.metrics.val_accuracy, t.metrics.energy_mj, t.metrics.size_bytes]
        for t in three.complete
    ]
    n_members = pareto_mask(np.array(rows)).sum()
    for chart in accuracy_charts(three).values():
        assert traces_in(chart, line_shape="hv") == []
        (rings,) = traces_in(chart, marker_size=15)
        assert len(rings["x"]) == n_members
        points = candidates_in(chart)
        places = set(zip(points["x"], points["y"], strict=True))
        assert set(zip(rings["x"], rings["y"], strict=True)) <= places


def test_a_front_of_accuracy_and_energy_is_drawn_over_energy(make_result):
    objective = {"front": ["accuracy", "energy_mj"]}
    result = make_result(n_trials=9, sections={"hardware": "bitfusion", "objective": objective})
    (key, chart), *others = accuracy_charts(result).items()
    assert (key, others, cost_map(result)) == ("accuracy-energy", [], None)
    assert chart["layout"]["xaxis"]["title"]["text"].startswith("energy in ")
    (front,) = traces_in(chart, line_shape="hv")
    assert front["x"] == sorted(front["x"])
    assert front["y"] == sorted(front["y"])
