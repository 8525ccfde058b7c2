# SPDX-License-Identifier: Apache-2.0
"""k-means TPE inside HyperOpt: any of its bounded spaces, conditions, no duplicates."""

import functools
import sys

import numpy as np
import pytest

from bitscout.errors import UnsupportedError
from bitscout.samplers import (
    ClusterSplit,
    IndependentSelection,
    MixtureParzen,
    kmeans_tpe_suggest,
)

hyperopt = pytest.importorskip("hyperopt", reason="HyperOpt is an extra: bitscout[hyperopt]")
hp = hyperopt.hp

SPACE = {
    "bits": hp.choice("bits", [2, 3, 4, 6, 8]),
    "width": hp.quniform("width", 0.5, 1.5, 0.25),
    "rate": hp.loguniform("rate", np.log(1e-3), np.log(1.0)),
    "share": hp.uniform("share", -1.0, 1.0),
    "shift": hp.randint("shift", 2, 7),
    "seed": hp.randint("seed", 3),
    "likely": hp.pchoice("likely", [(0.1, "a"), (0.9, "b")]),
    "depth": hp.uniformint("depth", 0, 4),
}


def minimize(objective, space, n, seed=0, trials=None, **keywords):
    trials = hyperopt.Trials() if trials is None else trials
    hyperopt.fmin(
        objective,
        space,
        algo=functools.partial(kmeans_tpe_suggest, **keywords) if keywords else kmeans_tpe_suggest,
        max_evals=n,
        trials=trials,
        rstate=np.random.default_rng(seed),
        show_progressbar=False,
        verbose=False,
    )
    return trials


def loss(point):
    return abs(np.log(point["rate"]) + 3) + abs(point["share"] - 0.3) + abs(point["bits"] - 4)


def drawn(trials):
    return [
        {name: value[0] for name, value in document["misc"]["vals"].items() if value}
        for document in trials.trials
    ]


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"selection": IndependentSelection()},
        {"estimator": MixtureParzen(), "split": ClusterSplit(bad="rest")},
    ],
)
def test_every_bounded_distribution_stays_inside_its_bounds(keywords):
    points = drawn(minimize(loss, SPACE, 30, n_startup_jobs=10, **keywords))
    assert len(points) == 30
    for point in points:
        assert point["bits"] in range(5)
        assert point["width"] in {0.5, 0.75, 1.0, 1.25, 1.5}
        assert 1e-3 <= point["rate"] <= 1.0
        assert -1 <= point["share"] <= 1
        assert point["shift"] in range(2, 7)
        assert point["likely"] in (0, 1)
        assert point["depth"] in range(5)


def test_trials_after_the_startup_are_better():
    losses = minimize(loss, SPACE, 60, n_startup_jobs=20).losses()
    assert np.median(losses[30:]) < np.median(losses[:20])


def test_the_same_seed_gives_the_same_trials():
    def run(seed):
        return drawn(minimize(loss, SPACE, 26, seed=seed))

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_nothing_is_suggested_twice():
    space = [hp.choice("x", [0, 1, 2, 3]), hp.uniformint("y", 0, 4)]
    points = drawn(minimize(lambda p: p[0] + p[1], space, 18, n_startup_jobs=5))
    assert len({tuple(sorted(point.items())) for point in points}) == 18


def test_labels_below_a_choice_exist_only_in_their_branch():
    space = hp.choice(
        "kind",
        [
            {"kind": "tree", "depth": hp.uniformint("depth", 1, 9)},
            {
                "kind": "net",
                "rate": hp.uniform("rate", 0, 1),
                "more": hp.choice("more", [0, {"layers": hp.uniformint("layers", 1, 3)}]),
            },
            {"kind": "none"},
        ],
    )

    def objective(point):
        return {"tree": 1.0, "net": point.get("rate", 0.0), "none": 2.0}[point["kind"]]

    points = drawn(minimize(objective, space, 40, n_startup_jobs=15))
    expected = {0: {"kind", "depth"}, 1: {"kind", "rate", "more"}, 2: {"kind"}}
    for point in points:
        layers = {"layers"} if point.get("more") == 1 else set()
        assert set(point) == expected[point["kind"]] | layers
    assert np.mean([point["kind"] == 1 for point in points[15:]]) > 0.5


def test_a_label_of_two_branches_exists_in_either():
    shared = hp.uniform("rate", 0, 1)
    space = hp.choice("kind", [["none"], ["slow", shared], ["fast", shared]])
    for point in drawn(minimize(lambda p: len(p), space, 25, n_startup_jobs=10)):
        assert ("rate" in point) == (point["kind"] in (1, 2))


def test_failed_trials_and_losses_that_are_no_number_are_in_no_cluster():
    def objective(point):
        if point["seed"] == 0:
            return {"status": hyperopt.STATUS_FAIL}
        return {"status": hyperopt.STATUS_OK, "loss": loss(point)}

    trials = minimize(objective, SPACE, 40, n_startup_jobs=10)
    assert len(trials.trials) == 40


def test_several_trials_may_be_asked_for_at_once():
    trials = minimize(loss, SPACE, 12, n_startup_jobs=10)
    domain = hyperopt.base.Domain(loss, SPACE)
    documents = kmeans_tpe_suggest([12, 13, 14], domain, trials, 7, n_startup_jobs=10)
    values = [str(document["misc"]["vals"]) for document in documents]
    assert [document["tid"] for document in documents] == [12, 13, 14]
    assert len(set(values)) == 3


def test_equal_losses_leave_random_search():
    assert len(minimize(lambda point: 1.0, SPACE, 8, n_startup_jobs=4).trials) == 8


@pytest.mark.parametrize(
    "label", [hp.normal("x", 0, 1), hp.qloguniform("x", 0, 3, 1), hp.lognormal("x", 0, 1)]
)
def test_a_distribution_without_bounds_is_refused_by_name(label):
    with pytest.raises(UnsupportedError, match="Label 'x' has the distribution"):
        minimize(lambda x: x, label, 3)


def test_a_missing_hyperopt_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperopt.base", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'bitscout\[hyperopt\]'"):
        kmeans_tpe_suggest([0], None, None, 0)
