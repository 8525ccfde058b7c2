"""What samplers are told equals what a trial is told, candidate by candidate."""

import numpy as np
import pytest

from bitscout.core import BompScore, Budget, FrontObjective
from bitscout.hardware import load_hardware, size_report
from bitscout.pipeline import make_config
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.pipeline.components import build_components, build_sampler
from bitscout.pipeline.hooks import describer, space_hooks
from bitscout.space import BompSpace

SPACE = BompSpace()
COSTS = CandidateCosts(SPACE)
ROWS = np.vstack([SPACE.seed_indices(), SPACE.sample_indices(np.random.default_rng(0), 40)])


def metrics(row, accuracy=0.5):
    values = SPACE.decode(row)
    return size_report(SPACE.layers(values), SPACE.policy(values)).metrics(val_accuracy=accuracy)


def test_known_term_is_the_score_without_its_accuracy_part():
    objective = BompScore(0.8, 6)
    hooks = space_hooks(COSTS, objective, Budget())
    expected = [objective.values(metrics(row, accuracy=0.0))[0] for row in ROWS]
    np.testing.assert_allclose(hooks.known_term(ROWS), expected, rtol=1e-12)
    assert not hooks.known_objectives
    assert hooks.violation is None


def test_sizes_are_known_objectives_in_bytes_and_accuracy_is_not():
    objective = FrontObjective(("size_bytes", "val_accuracy", "weight_bytes", "macs"))
    hooks = space_hooks(COSTS, objective, Budget())
    assert hooks.known_term is None
    assert sorted(hooks.known_objectives) == [0, 2, 3]
    for position, name in ((0, "size_bytes"), (2, "weight_bytes"), (3, "macs")):
        expected = [metrics(row)[name] for row in ROWS]
        assert hooks.known_objectives[position](ROWS).tolist() == expected


def test_feasible_rows_are_those_the_budget_lets_pass():
    sizes = sorted(metrics(row)["size_bytes"] for row in ROWS)
    # The bound is one of the sizes: a budget is inclusive.
    budget = Budget(size_kb=sizes[20] / 1000)
    hooks = space_hooks(COSTS, BompScore(), budget)
    expected = [budget.reason(metrics(row)) is None for row in ROWS]
    assert (hooks.violation(ROWS) <= 0).tolist() == expected
    assert sum(expected) == 21


def test_several_bounds_add_up_to_one_distance():
    costs = CandidateCosts(SPACE, (load_hardware("bitfusion"), load_hardware("mcu")))
    known = [
        costs.of(SPACE.architecture(values), SPACE.policy(values))
        for values in map(SPACE.decode, ROWS)
    ]
    middle = {name: np.median([m[name] for m in known]) for name in ("energy_mj", "latency_ms")}
    memory = np.median([m["peak_memory_bytes"] for m in known])
    budget = Budget(**middle, peak_memory_kb=memory / 1000)
    violation = space_hooks(costs, BompScore(), budget).violation(ROWS)
    feasible = [budget.reason(metrics) is None for metrics in known]
    assert (violation <= 0).tolist() == feasible
    assert 0 < sum(feasible) < len(ROWS)
    for metrics, distance in zip(known, violation, strict=True):
        excess = sum(max(v, 0.0) for v in budget.constraints(metrics).values())
        largest = max(budget.constraints(metrics).values())
        assert distance == pytest.approx(excess if excess > 0 else largest, rel=1e-9)


def test_search_space_lists_every_choice_in_order_with_its_length():
    hooks = space_hooks(COSTS, BompScore(), Budget())
    lengths = [(d.low, d.high + 1) for d in hooks.search_space.values()]
    assert list(hooks.search_space) == [choice.name for choice in SPACE.choices]
    assert lengths == [(0, len(choice.values)) for choice in SPACE.choices]


@pytest.mark.parametrize("index", [0, 5])
def test_described_networks_have_a_layer_for_each_of_the_graph(index):
    described = describer(SPACE)(ROWS)
    assert described.n_layers[index] == len(SPACE.layers(SPACE.decode(ROWS[index])))


@pytest.mark.parametrize(("surrogate", "knows"), [("paper", False), ("scaled", True)])
def test_the_papers_surrogate_models_the_whole_score(surrogate, knows, monkeypatch):
    given = {}

    def record(surrogate, **options):
        given.update(options)
        return surrogate

    monkeypatch.setattr("bitscout.pipeline.components.GaussianProcessSampler", record)
    config = make_config({"searcher": {"surrogate": surrogate}})
    build_sampler(build_components(config))
    assert (given["hooks"].known_term is not None) == knows
