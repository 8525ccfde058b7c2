"""Layers, policies, candidates, metrics, objectives, budgets and seeds."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bitscout.core import (
    BompScore,
    Budget,
    Candidate,
    FrontObjective,
    Layer,
    LayerBits,
    LayerGraph,
    Metrics,
    Node,
    QuantPolicy,
    canonical_json,
    child_rng,
    child_seed,
)
from bitscout.errors import BitscoutError, ConfigError, InfeasibleError, PolicyError

# ------------------------------------------------------------------------------------- layers


def test_counts_of_a_grouped_convolution_follow_the_definition():
    layer = Layer(
        "c", "conv", 8, 12, kernel=(3, 5), groups=4, input_size=(9, 9), output_size=(7, 5)
    )
    assert layer.n_weights == 12 * (8 // 4) * 3 * 5
    assert layer.macs == layer.n_weights * 7 * 5
    assert layer.n_biases == 12
    assert not layer.is_depthwise


def test_depthwise_needs_one_group_a_channel_and_more_than_one_channel():
    assert Layer("d", "conv", 8, 8, groups=8).is_depthwise
    assert not Layer("d", "conv", 1, 8, groups=1).is_depthwise


def test_layer_without_bias_has_none():
    assert Layer("c", "linear", 3, 5, has_bias=False).n_biases == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 0}, "positive sizes"),
        ({"stride": (0, 1)}, "positive sizes"),
        ({"groups": 3}, "3 groups must divide 4 input and 6 output"),
    ],
)
def test_impossible_layers_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Layer(**{"name": "c", "kind": "conv", "in_channels": 4, "out_channels": 6, **changes})


def test_graph_sums_its_layers_and_finds_them_by_name():
    layers = (
        Layer("a", "conv", 3, 4, kernel=(3, 3), output_size=(2, 2)),
        Layer("b", "linear", 4, 10),
    )
    graph = LayerGraph(layers)
    assert (graph.n_weights, graph.n_biases) == (3 * 4 * 9 + 40, 14)
    assert graph.macs == 3 * 4 * 9 * 4 + 40
    assert graph["b"] is layers[1]
    assert list(graph) == list(layers)
    assert len(graph) == 2
    assert graph.names == ("a", "b")


def test_graph_refuses_repeated_names_and_readers_before_their_inputs():
    layer = Layer("a", "linear", 2, 2)
    with pytest.raises(ConfigError, match="got a more than once"):
        LayerGraph((layer, layer))
    with pytest.raises(ConfigError, match="'a' must be unique and come after"):
        LayerGraph((layer,), (Node("a", "linear", ("x",), (2,)),))


# ----------------------------------------------------------------------------------- policies


def test_policy_errors_list_the_layers_left_out_and_the_unknown_ones():
    policy = QuantPolicy.uniform(["a", "ghost"], 4)
    with pytest.raises(PolicyError, match=r"left out: b, c; not in the network: ghost"):
        policy.check_covers(["a", "b", "c"])
    QuantPolicy.uniform(["b", "a"], 4).check_covers(["a", "b"])


@pytest.mark.parametrize("bits", [1, 9, 4.0, True, "4"])
def test_bit_widths_outside_2_to_8_are_refused(bits):
    with pytest.raises(PolicyError, match="weight_bits"):
        LayerBits(bits, 8)
    with pytest.raises(PolicyError, match="act_bits"):
        LayerBits(8, bits)


def test_policy_equality_ignores_order_and_survives_json():
    policy = QuantPolicy({"a": LayerBits(2, 3), "b": LayerBits(4, 8)})
    twin = QuantPolicy({"b": LayerBits(4, 8), "a": LayerBits(2, 3)})
    assert policy == twin
    assert hash(policy) == hash(twin)
    assert QuantPolicy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    assert policy != QuantPolicy.uniform(["a", "b"], 4)
    with pytest.raises(PolicyError, match=r"'a' must be \[weight_bits, act_bits\], got 4"):
        QuantPolicy.from_json({"a": 4})


# --------------------------------------------------------------------------------- candidates

CANDIDATE = Candidate({"width": 0.1, "depth": 3}, QuantPolicy.uniform(["a", "b"], 4))


def test_digest_ignores_the_order_of_keys():
    twin = Candidate({"depth": 3, "width": 0.1}, QuantPolicy.uniform(["b", "a"], 4))
    assert twin.digest == CANDIDATE.digest
    assert hash(twin) == hash(CANDIDATE)


def test_digest_depends_on_values_and_bits():
    others = [
        Candidate({"width": 0.2, "depth": 3}, CANDIDATE.policy),
        Candidate(CANDIDATE.values, QuantPolicy.uniform(["a", "b"], 5)),
        Candidate(CANDIDATE.values, QuantPolicy.uniform(["a", "b"], 4, act_bits=7)),
    ]
    assert len({CANDIDATE.digest, *(other.digest for other in others)}) == 4


def test_digest_is_the_same_in_another_process():
    code = (
        "from bitscout.core import *\n"
        "print(Candidate({'width': 0.1, 'depth': 3}, QuantPolicy.uniform(['a', 'b'], 4)).digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    assert done.stdout.strip() == CANDIDATE.digest


def test_candidate_survives_json_and_cannot_be_changed():
    assert Candidate.from_json(json.loads(json.dumps(CANDIDATE.to_json()))) == CANDIDATE
    with pytest.raises(TypeError):
        CANDIDATE.values["depth"] = 4
    with pytest.raises(ConfigError, match="'policy'"):
        Candidate.from_json({"values": {}})


def test_canonical_json_refuses_nan():
    with pytest.raises(ConfigError, match="as JSON"):
        canonical_json({"a": float("nan")})


# ------------------------------------------------------------------------ metrics, objectives


def test_metrics_keep_only_what_is_known():
    metrics = Metrics(val_accuracy=0.5, size_bytes=10)
    assert metrics.to_json() == {"val_accuracy": 0.5, "size_bytes": 10}
    assert Metrics.from_json({**metrics.to_json(), "later_key": 1.0}) == metrics
    assert metrics["size_bytes"] == 10
    with pytest.raises(ConfigError, match="`energy_mj` is not known here"):
        metrics["energy_mj"]


@pytest.mark.parametrize(
    "bad", [{"val_accuracy": 97.0}, {"size_bytes": -1.0}, {"macs": float("nan")}]
)
def test_impossible_metrics_are_refused(bad):
    with pytest.raises(ConfigError, match="must be finite and in"):
        Metrics(**bad)


@pytest.mark.parametrize(
    ("percent", "kilobytes", "ref_size", "expected"),
    [
        # Table II of BOMP-NAS through its Eq. (1), computed independently.
        (67.36, 4.57, 8, 2.5952),
        (83.96, 16.30, 8, 2.6134),
        (88.67, 76.08, 8, 2.4914),
        (65.97, 4.47, 8, 2.5816),
        (68.18, 353, 6, 1.7824),
        (75.84, 4199, 6, 1.7452),
    ],
)
def test_scores_of_the_papers_networks(percent, kilobytes, ref_size, expected):
    metrics = Metrics(val_accuracy=percent / 100, size_bytes=kilobytes * 1000)
    (score,) = BompScore(0.8, ref_size).values(metrics)
    assert score == pytest.approx(expected, abs=5e-5)


def test_score_rises_with_accuracy_falls_with_size_and_ignores_the_unit_of_accuracy():
    score = BompScore(0.8, 8)
    assert score.score(0.6, 1e5) > score.score(0.5, 1e5) > score.score(0.5, 2e5)
    in_percent = 60 / 80 + score.size_term(1e5)
    assert score.score(0.6, 1e5) == pytest.approx(in_percent, rel=1e-12)


@pytest.mark.parametrize("size_bits", [1, 0, -5, float("nan")])
def test_score_is_undefined_at_or_below_one_bit(size_bits):
    with pytest.raises(ConfigError, match="above 1"):
        BompScore().score(0.5, size_bits)


def test_objectives_refuse_upside_down_references_and_unknown_metrics():
    with pytest.raises(ConfigError, match="ref_accuracy"):
        BompScore(ref_accuracy=80)
    with pytest.raises(ConfigError, match="ref_size"):
        BompScore(ref_size=0)
    with pytest.raises(ConfigError, match="two or more different metrics"):
        FrontObjective(("val_accuracy", "speed"))


def test_front_objective_keeps_the_order_of_its_metrics():
    metrics = Metrics(val_accuracy=0.5, size_bytes=10, macs=7)
    assert FrontObjective(("macs", "val_accuracy")).values(metrics) == (7, 0.5)


def test_budget_is_inclusive_in_thousands_of_bytes_and_names_every_excess():
    budget = Budget(size_kb=4, macs=100)
    assert budget.reason(Metrics(size_bytes=4000, macs=100)) is None
    assert budget.constraints(Metrics(size_bytes=2000, macs=200)) == {"size_kb": -0.5, "macs": 1.0}
    assert budget.reason(Metrics(size_bytes=4001, macs=101)) == (
        "size_kb 4.001 is over the budget of 4; macs 101 is over the budget of 100"
    )
    assert Budget().reason(Metrics()) is None
    with pytest.raises(ConfigError, match="Budget `size_kb`"):
        Budget(size_kb=0)


# -------------------------------------------------------------------------------------- seeds


def test_child_seeds_differ_by_root_path_type_and_order():
    seeds = {
        child_seed(0, "a", 1),
        child_seed(1, "a", 1),
        child_seed(0, "a", "1"),
        child_seed(0, 1, "a"),
        child_seed(0, "a"),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_child_seed_is_pinned():
    # SHA-256 of "(0, 'train', 7)", first eight bytes little endian, halved: must never change,
    # or old runs could not be resumed.
    import hashlib

    digest = hashlib.sha256(b"(0, 'train', 7)").digest()
    assert child_seed(0, "train", 7) == int.from_bytes(digest[:8], "little") // 2
    first = child_rng(0, "train", 7).random(3)
    np.testing.assert_array_equal(first, child_rng(0, "train", 7).random(3))


def test_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="`seed` must be >= 0, got -1"):
        child_seed(-1)


def test_exit_codes_of_the_error_tree():
    assert BitscoutError.exit_code == 2
    assert InfeasibleError.exit_code == 3
