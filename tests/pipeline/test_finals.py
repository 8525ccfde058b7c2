"""Which networks are trained at the end, against which baselines, and what lies on disk."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bitscout.core import Candidate, Layer, LayerBits, LayerGraph, Metrics, QuantPolicy
from bitscout.errors import DataError, RunError, TrainingError
from bitscout.hardware import size_report
from bitscout.pipeline import FinalFinished, TrialRecord, load_result, resume_search, run_search
from bitscout.pipeline.components import build_components
from bitscout.pipeline.finals import select_networks, uniform_policy
from bitscout.training import evaluate, load_dataset

FRONT = ("val_accuracy", "size_bytes")


def trial(number, accuracy, size):
    return TrialRecord(
        number=number,
        outcome="complete",
        candidate=Candidate({"x": number}, QuantPolicy.uniform(["a"], 4)),
        metrics=Metrics(val_accuracy=accuracy, size_bytes=size),
        values=(accuracy,),
    )


def test_no_limit_or_a_loose_one_trains_the_whole_front():
    trials = [trial(0, 0.5, 100), trial(1, 0.9, 1000)]
    assert select_networks(trials, (0, 1), None, FRONT) == trials
    assert select_networks(trials, (0, 1), 2, FRONT) == trials


def test_limit_keeps_the_networks_that_span_the_front():
    trials = [
        trial(0, 0.2, 100),
        trial(1, 0.8, 1_000),
        trial(2, 0.81, 1_100),
        trial(3, 0.9, 9_000),
    ]
    kept = select_networks(trials, (0, 1, 2, 3), 3, FRONT)
    assert [t.number for t in kept] == [0, 1, 3]
    assert len(select_networks(trials, (0, 1, 2, 3), 1, FRONT)) == 1


def test_uniform_policy_is_the_nearest_in_size(make_tiny_config):
    components = build_components(make_tiny_config())
    values = components.space.seed_values()
    graph = components.space.layers(values)
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy = QuantPolicy({n: LayerBits(int(rng.integers(2, 9)), 8) for n in graph.names})
        chosen = uniform_policy(components, Candidate(values, policy))
        assert len(set(chosen.values())) == 1
        target = size_report(graph, policy).size_bits
        distance = {
            bits: abs(
                size_report(graph, QuantPolicy.uniform(graph.names, bits)).size_bits - target
            )
            for bits in range(2, 9)
        }
        assert distance[next(iter(chosen.values())).weight_bits] == min(distance.values())


def test_of_two_equally_near_widths_the_wider_is_taken():
    # Two layers of 6 weights: one at 4 and one at 5 bits lies half way between uniform 4 and 5.
    graph = LayerGraph((Layer("a", "linear", 2, 3), Layer("b", "linear", 3, 2)))
    space = SimpleNamespace(
        layers=lambda values: graph,
        uniform_policy=lambda values, bits: QuantPolicy.uniform(graph.names, bits),
    )
    components = SimpleNamespace(space=space)
    policy = QuantPolicy({"a": LayerBits(4, 8), "b": LayerBits(5, 8)})
    chosen = uniform_policy(components, Candidate({}, policy))
    assert chosen == QuantPolicy.uniform(["a", "b"], 5)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_uniform_candidate_is_its_own_nearest(make_tiny_config, bits):
    components = build_components(make_tiny_config())
    values = components.space.seed_values()
    policy = QuantPolicy.uniform(components.space.layers(values).names, bits)
    assert uniform_policy(components, Candidate(values, policy)) == policy


def test_baselines_are_the_seed_at_8_and_4_bits_and_the_best_networks_architecture(
    make_tiny_config, fake_training, tmp_path
):
    result = run_search(make_tiny_config(), tmp_path)
    baselines = {record.name: record for record in result.baselines}
    assert set(baselines) == {"seed-8bit", "seed-4bit", "uniform"}
    seed = result.trials[0].candidate.values
    for bits in (8, 4):
        record = baselines[f"seed-{bits}bit"]
        assert record.candidate.values == seed
        assert set(record.candidate.policy.values()) == {LayerBits(bits, 8)}
        assert record.number is None
    best = max(result.final, key=lambda r: result.config.objective.build().values(r.metrics))
    uniform = baselines["uniform"]
    assert uniform.number == best.number
    assert uniform.candidate.values == best.candidate.values
    assert len(set(uniform.candidate.policy.values())) == 1
    assert len(result.verdicts) == 3


def test_networks_that_differ_in_bits_only_share_their_floating_point_network(
    make_tiny_config, fake_training, tmp_path
):
    # The fake's accuracy has noise that depends on the seed it is given, and on nothing else.
    result = run_search(make_tiny_config(), tmp_path)
    networks = (*result.final, *result.baselines)
    seeds = fake_training.calls[result.config.searcher.n_trials :]
    architectures = {tuple(sorted(_architecture(record).items())) for record in networks}
    assert len(set(seeds)) == len(architectures)


def _architecture(record):
    values = record.candidate.values
    return {name: value for name, value in values.items() if not name.endswith(".bits")}


def test_a_final_network_that_diverges_is_recorded_and_the_others_are_trained(
    make_tiny_config, fake_training, tmp_path, monkeypatch
):
    seeds = []

    def diverges_for_the_second_architecture(*job, seed, **options):
        # As in truth: what diverges with one seed diverges whenever it is tried again.
        if seed not in seeds:
            seeds.append(seed)
        if seeds.index(seed) == 1:
            fake_training.calls.append(seed)
            msg = "the loss is nan"
            raise TrainingError(msg)
        return fake_training(*job, seed=seed, **options)

    monkeypatch.setattr(
        "bitscout.pipeline.finals.evaluate_policies", diverges_for_the_second_architecture
    )
    config = make_tiny_config(searcher={"name": "random"})
    result = run_search(config, tmp_path)
    assert result.state == "complete"
    assert len(result.failures) >= 1
    assert all("the loss is nan" in failure["reason"] for failure in result.failures)
    names = {record.name for record in (*result.final, *result.baselines)}
    assert not names & {failure["name"] for failure in result.failures}
    assert result.final
    (tmp_path / "done.json").unlink()
    before = len(fake_training.calls)
    assert resume_search(tmp_path).to_json() == result.to_json()
    assert len(fake_training.calls) == before


def test_one_diverging_policy_does_not_take_the_others_of_its_architecture_along(
    make_tiny_config, fake_training, tmp_path, monkeypatch
):
    def diverges_at_4_bits(architecture, policies, *rest, **options):
        if any(set(policy.values()) == {LayerBits(4, 8)} for policy in policies):
            msg = "the loss is nan"
            raise TrainingError(msg)
        return fake_training(architecture, policies, *rest, **options)

    monkeypatch.setattr("bitscout.pipeline.finals.evaluate_policies", diverges_at_4_bits)
    result = run_search(make_tiny_config(), tmp_path)
    assert "seed-8bit" in {record.name for record in result.baselines}
    assert {failure["name"] for failure in result.failures} >= {"seed-4bit"}
    assert "seed network at uniform 4 bit could not be trained: the loss is nan" in result.remarks


def test_a_search_over_one_bit_width_says_that_there_is_no_mixture(
    make_tiny_config, fake_training, tmp_path
):
    result = run_search(make_tiny_config(space={"bits": [4]}), tmp_path)
    assert {record.name for record in result.baselines} == {"seed-8bit", "seed-4bit"}
    assert any("one bit-width everywhere" in remark for remark in result.remarks)


def test_a_front_of_which_nothing_can_be_trained_is_an_error(
    make_tiny_config, fake_training, tmp_path
):
    fake_training.fail_on = set(range(8, 100))
    with pytest.raises(RunError, match=r"None of the final networks could be trained: .*nan"):
        run_search(make_tiny_config(), tmp_path)
    assert len(load_result(tmp_path).complete) == 8


def test_the_best_trial_is_always_trained():
    # The best by score is the small one, which adds least hypervolume.
    trials = [trial(0, 0.80, 1000), trial(1, 0.81, 1100), trial(2, 0.9, 9000)]
    trials[1] = replace(trials[1], values=(2.0,))
    assert 1 in [t.number for t in select_networks(trials, (0, 1, 2), 1, FRONT)]


def test_finals_on_disk_are_not_trained_again(make_tiny_config, fake_training, tmp_path):
    config = make_tiny_config()
    started = []
    run_search(config, tmp_path, listener=started.append)
    (tmp_path / "done.json").unlink()
    before = len(fake_training.calls)
    resume_search(tmp_path, listener=started.append)
    assert len(fake_training.calls) == before
    finished = [event.record.name for event in started if isinstance(event, FinalFinished)]
    networks = (*load_result(tmp_path).final, *load_result(tmp_path).baselines)
    assert sorted(finished) == sorted(record.name for record in networks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One small run, trained for real."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parent / "conftest.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    config = tiny.tiny_config(dataset={"limit": 400}, searcher={"n_trials": 3})
    return run_search(config, tmp_path_factory.mktemp("trained") / "run")


def test_a_saved_network_computes_the_reported_test_accuracy(trained):
    data = load_dataset("digits", validation=0.3, limit=400, seed=0)
    for record in (*trained.final, *trained.baselines):
        module = trained.load(record.name)
        # Not through `evaluate`: another batch size, so a tie may round to the other side.
        images = data.test.images.float() / 255
        mean = torch.tensor(trained.dataset["mean"]).view(1, -1, 1, 1)
        std = torch.tensor(trained.dataset["std"]).view(1, -1, 1, 1)
        with torch.inference_mode():
            hits = module((images - mean) / std).argmax(1) == data.test.labels
        assert hits.double().mean().item() == pytest.approx(
            record.metrics["test_accuracy"], abs=2 / 360
        )


def test_loaded_networks_evaluate_exactly_as_reported(trained):
    from bitscout.pipeline.components import load_data

    data = load_data(trained.config)
    for record in (*trained.final, *trained.baselines):
        module = trained.load(record.name)
        assert evaluate(module, data, "test", device="cpu") == record.metrics["test_accuracy"]
        assert evaluate(module, data, "val", device="cpu") == record.metrics["val_accuracy"]


def test_every_listed_file_exists(trained):
    for record in (*trained.final, *trained.baselines):
        assert record.files
        for name in record.files:
            assert (trained.directory / name).is_file()


def test_unknown_and_damaged_networks_are_refused(trained, tmp_path):
    with pytest.raises(RunError, match=r"no final network '99'\. It has: .*seed-4bit"):
        trained.load(99)
    record = trained.baselines[0]
    path = trained.directory / record.files[0]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="safetensors"):
            trained.load(record.name)
    finally:
        path.write_bytes(whole)
