"""Searches that keep to budgets in the device's units, before any training."""

import functools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tests.pipeline.conftest import TINY_SPACE

from bitscout.core import Budget
from bitscout.errors import ConfigError, InfeasibleError, UnsupportedError
from bitscout.hardware import LayerModel, load_hardware
from bitscout.pipeline import (
    FinalStarted,
    SearchStarted,
    TrialStarted,
    load_result,
    make_config,
    resume_search,
    run_search,
)
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.pipeline.components import build_components
from bitscout.pipeline.config import RunConfig
from bitscout.space import BompSpace


def full_space(config, **sections):
    """The whole of Table I instead of the tiny space of the fixture."""
    document = config.model_dump()
    document["space"] = {"name": "bomp"}
    return make_config({**document, **sections})


@functools.cache
def quantile_budget(share):
    """A budget on energy and memory that this share of random networks for digits meets."""
    space = BompSpace(input_shape=(1, 8, 8))
    costs = CandidateCosts(space, (load_hardware("bitfusion"), load_hardware("mcu")))
    rows = space.sample_indices(np.random.default_rng(7), 4000)
    known = costs.batch(rows, ("energy_mj", "peak_memory_bytes"))
    memory = np.quantile(known["peak_memory_bytes"], 0.5)
    within = known["energy_mj"][known["peak_memory_bytes"] <= memory]
    energy = np.sort(within)[round(share * len(rows))]
    budget = {"energy_mj": float(energy), "peak_memory_kb": float(memory / 1000)}
    met = (known["energy_mj"] <= energy) & (known["peak_memory_bytes"] <= memory)
    assert met.mean() == pytest.approx(share, abs=0.003)
    return budget


@pytest.mark.parametrize(
    ("searcher", "n_trials"),
    [
        ("random", 100),
        ("tpe", 30),
        ("nsga2", 25),
        ("nsga3", 25),
        pytest.param("bomp", 15, marks=pytest.mark.slow),
        pytest.param("gp", 6, marks=pytest.mark.slow),
    ],
)
def test_a_budget_that_one_percent_meets_costs_no_training_outside(
    make_tiny_config, fake_training, tmp_path, searcher, n_trials
):
    budget = quantile_budget(0.01)
    config = full_space(
        make_tiny_config(searcher={"name": searcher, "n_trials": n_trials}),
        hardware="bitfusion",
        budget=budget,
    )
    events = []
    result = run_search(config, tmp_path / "run", listener=events.append)
    counts = result.counts()
    assert counts["complete"] == n_trials - 1
    # Only the seed network, which nobody proposed, is over: everything else was repaired.
    over = [trial for trial in result.trials if trial.outcome == "infeasible"]
    assert [trial.number for trial in over] == [0]
    assert re.search(r"energy_mj \S+ is over the budget of", over[0].reason)
    trained = {event.number for event in events if isinstance(event, TrialStarted)}
    assert trained == {t.number for t in result.complete if t.duplicate_of is None}
    bounds = Budget(**budget)
    assert all(bounds.reason(trial.metrics) is None for trial in result.complete)


def test_optuna_sees_the_constraints_of_every_trial(make_tiny_config, fake_training, tmp_path):
    config = make_tiny_config(
        searcher={"name": "tpe"}, hardware="bitfusion", budget={"size_kb": 3, "latency_ms": 9}
    )
    result = run_search(config, tmp_path / "run")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "run" / "study.journal")))
    study = optuna.load_study(study_name="bitscout", storage=storage)
    over = result.trials[0]
    assert over.outcome == "infeasible"
    assert study.trials[0].state is TrialState.PRUNED
    for trial, record in zip(study.trials, result.trials, strict=True):
        assert set(trial.constraints) == {"size_kb", "latency_ms"}
        assert trial.constraints["size_kb"] == record.metrics["size_bytes"] / 3000 - 1
        assert dict(trial.constraints) == dict(record.constraints)
        assert all(v <= 0 for v in trial.constraints.values()) == (record.outcome == "complete")
    assert study.best_trial.number in {trial.number for trial in result.complete}


def test_nothing_within_the_budget_ends_before_the_first_trial_with_one_that_can_be_met(
    make_tiny_config, fake_training, tmp_path
):
    budget = {"size_kb": 2.5, "energy_mj": 0.0001, "peak_memory_kb": 100}
    config = full_space(make_tiny_config(), hardware="bitfusion", budget=budget)
    with pytest.raises(InfeasibleError) as refusal:
        run_search(config, tmp_path / "run")
    message = str(refusal.value)
    assert re.search(r"found in \d\d,\d{3} attempts", message)
    assert "energy_mj" in message
    assert "nothing was trained" in message
    assert fake_training.calls == []
    assert InfeasibleError.exit_code == 3
    # The budget it offers can be met.
    offered = yaml.safe_load(re.search(r"budget: (\{.*?\})", message).group(1))
    assert offered["peak_memory_kb"] == 100
    config = full_space(
        make_tiny_config(searcher={"n_trials": 3}), hardware="bitfusion", budget=offered
    )
    assert run_search(config, tmp_path / "met").counts()["complete"] >= 1


@dataclass(frozen=True, kw_only=True)
class OddKernels(LayerModel):
    """Has no rule for even kernels."""

    quantities: ClassVar = {"latency_ms": "ms"}

    def costs(self, layers, weight_bits, act_bits):
        if (layers.kernel_height % 2 == 0).any():
            msg = "There is no rule for even kernels."
            raise UnsupportedError(msg)
        return {"latency_ms": layers.macs / 1e6}


def test_hardware_without_a_rule_for_a_network_rejects_it(
    make_tiny_config, fake_training, tmp_path, monkeypatch
):
    monkeypatch.setattr(RunConfig, "build_hardware", lambda _: (OddKernels(name="odd"),))
    config = make_tiny_config(
        budget={"latency_ms": 10}, searcher={"name": "random", "n_trials": 6}
    )
    # The seed network takes the kernel nearest to 3, the first of these: it has no rule.
    document = {**config.model_dump(), "space": {**TINY_SPACE, "kernels": [2, 5]}}
    result = run_search(make_config(document), tmp_path / "run")
    over = result.trials[0]
    assert over.outcome == "infeasible"
    assert over.reason == "There is no rule for even kernels."
    assert dict(over.constraints) == {"latency_ms": 1.0}
    assert over.metrics["size_bytes"] > 0
    # Samplers know where there is a rule.
    assert [trial.outcome for trial in result.trials[1:]] == ["complete"] * 5


SMALL_BUFFERS = "bitfusion:ibuf_bytes={},ibuf_read_nj_per_bit=1e-5,ibuf_write_nj_per_bit=1e-5"


@dataclass(frozen=True, kw_only=True)
class FourOrEight(LayerModel):
    """One of 10**8 policies of 4 to 8 bits in 23 places has only these."""

    quantities: ClassVar = {"latency_ms": "ms"}
    weight_bits: ClassVar = (4, 8)

    def costs(self, layers, weight_bits, act_bits):
        return {"latency_ms": layers.macs * weight_bits / 1e6}


@pytest.mark.parametrize("searcher", ["random", "bomp", "tpe"])
def test_bits_that_the_hardware_lacks_are_not_proposed(
    make_tiny_config, fake_training, tmp_path, monkeypatch, searcher
):
    monkeypatch.setattr(RunConfig, "build_hardware", lambda _: (FourOrEight(name="npu"),))
    config = full_space(make_tiny_config(searcher={"name": searcher, "n_trials": 6}))
    result = run_search(config, tmp_path / "run")
    assert result.counts()["complete"] == 6
    for trial in result.trials:
        assert {bits.weight_bits for bits in trial.candidate.policy.values()} <= {4, 8}


def kernels_of(trial):
    return [v for k, v in trial.candidate.values.items() if k.endswith(".kernel")]


@pytest.mark.parametrize("sections", [{}, {"budget": {"latency_ms": 3}}], ids=["free", "budget"])
def test_layers_that_do_not_fit_the_buffers_reject_their_networks_alone(
    make_tiny_config, fake_training, tmp_path, sections
):
    config = make_tiny_config(
        hardware=SMALL_BUFFERS.format(64),
        searcher={"name": "random", "n_trials": 12},
        **sections,
    )
    document = {**config.model_dump(), "space": {**TINY_SPACE, "kernels": [3, 7]}}
    # Without the rule for what may be proposed some random networks would be rejected.
    events = []
    result = run_search(make_config(document), tmp_path / "run", listener=events.append)
    counts = result.counts()
    rejected = [trial for trial in result.trials if trial.outcome == "infeasible"]
    started = next(event for event in events if isinstance(event, SearchStarted))
    assert "has no rule for" in started.notes[0]
    # Samplers know where there is a rule, with a budget and without one.
    assert counts == {"complete": 12 - len(rejected), "failed": 0, "infeasible": len(rejected)}
    assert [trial.number for trial in rejected] in ([], [0])
    assert {kernel for trial in result.complete for kernel in kernels_of(trial)} >= {3}
    for trial in rejected:
        assert "no rule for layer" in trial.reason
        assert "depthwise" in trial.reason


def test_hardware_that_runs_nothing_is_named_not_the_budget(
    make_tiny_config, fake_training, tmp_path
):
    for name, sections in {"free": {}, "budget": {"budget": {"latency_ms": 3}}}.items():
        config = make_tiny_config(hardware=SMALL_BUFFERS.format(1), **sections)
        with pytest.raises(InfeasibleError) as refusal:
            run_search(config, tmp_path / name)
        message = str(refusal.value)
        assert message.startswith("The hardware has no rule for any of")
        assert "ibuf_bytes" in message or "buffer" in message
        assert "Raise the budget" not in message
        assert ".." not in message


def test_energy_can_be_a_third_objective(make_tiny_config, fake_training, tmp_path):
    config = make_tiny_config(
        objective={"front": ["accuracy", "size_bytes", "energy_mj"]},
        hardware="bitfusion",
        searcher={"surrogate": "scaled", "n_trials": 10},
    )
    result = run_search(config, tmp_path / "run")
    assert result.front_metrics == ("val_accuracy", "size_bytes", "energy_mj")
    assert len(result.pareto_front) >= 2
    assert result.hypervolume() > 0
    final = result.final[0].metrics
    assert final["energy_mj"] > 0
    assert final["latency_ms"] > 0
    document = json.loads(json.dumps(result.to_json()))
    assert document["candidates"][1]["metrics"]["energy_mj"] > 0
    assert all(len(c["objectives"]) == 3 for c in document["candidates"])


def test_a_resumed_search_within_budgets_equals_the_uninterrupted_one(
    make_tiny_config, fake_training, tmp_path
):
    sections = {"hardware": ["bitfusion", "mcu"], "budget": {"size_kb": 3, "peak_memory_kb": 2}}
    config = make_tiny_config(searcher={"name": "tpe", "n_trials": 12}, **sections)
    straight = run_search(config, tmp_path / "straight")
    fake_training.calls.clear()
    fake_training.crash_on = {4}
    with pytest.raises(KeyboardInterrupt):
        run_search(config, tmp_path / "broken")
    resumed = resume_search(tmp_path / "broken")
    key = [(t.outcome, t.candidate.digest, dict(t.constraints), t.values) for t in straight.trials]
    assert key == [
        (t.outcome, t.candidate.digest, dict(t.constraints), t.values) for t in resumed.trials
    ]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"budget": {"latency_ms": 3}}, r"`budget.latency_ms` needs hardware that knows latency"),
        (
            {"objective": {"front": ["accuracy", "energy_mj"]}},
            r"`objective.front: energy_mj` needs hardware.*bitscout list hardware",
        ),
        ({"hardware": "bitfusoin"}, r"no hardware is called 'bitfusoin'.*mean 'bitfusion"),
        ({"hardware": "bitfusion:bacth=2"}, r"no option `bacth`.*mean `batch`"),
        ({"hardware": {"batch": 2}}, r"needs a `name`"),
        ({"hardware": ["mcu", "bitfusion:batch=zero"]}, r"`batch` .* must be an integer"),
        ({"hardware": []}, r"names no hardware: leave the key out"),
        ({"hardware": 3}, r"must be a name with its options.*; got 3\."),
        ({"hardware": ["mcu", "mcu"]}, r"'mcu' is named twice"),
        ({"hardware": "bitfusion:batch=0"}, r"at least 1, got 0\.$"),
        ({"objective": {"front": ["accuracy", "energy"]}}, r"did you mean 'energy_mj'\?"),
        ({"budget": {"latency_s": 3}}, r"latency_s.*did you mean `latency_ms`"),
        ({"budget": {"energy_mj": 0}}, r"energy_mj.*greater than 0; got 0"),
    ],
)
def test_configurations_that_cannot_be_judged_are_refused(make_tiny_config, sections, message):
    with pytest.raises(ConfigError, match=message):
        make_tiny_config(**sections)


def test_memory_needs_no_named_hardware_and_a_named_one_replaces_it(make_tiny_config):
    plain = make_tiny_config(budget={"peak_memory_kb": 40, "size_kb": 64})
    assert [model.name for model in plain.build_hardware()] == ["mcu"]
    named = make_tiny_config(budget={"peak_memory_kb": 40}, hardware=["mcu-unas", "bitfusion"])
    assert [model.name for model in named.build_hardware()] == ["mcu-unas", "bitfusion"]
    assert make_tiny_config().build_hardware() == ()


def test_the_hardware_belongs_to_what_a_run_must_be_resumed_with(make_tiny_config):
    from bitscout.pipeline.config import config_digest

    digests = {
        config_digest(make_tiny_config(hardware=hardware))
        for hardware in (None, "bitfusion", "bitfusion:batch=2", ["bitfusion", "mcu"])
    }
    assert len(digests) == 4
    # The constants count, also where they come from a file that was changed.
    models = [load_hardware("bitfusion"), load_hardware("bitfusion:dram_bits_per_cycle=64")]
    assert repr(models[0]) != repr(models[1])


def test_a_run_knows_its_hardware_after_loading(make_tiny_config, fake_training, tmp_path):
    hardware = [{"name": "bitfusion", "batch": 2}, "mcu"]
    run_search(make_tiny_config(hardware=hardware), tmp_path / "run")
    loaded = load_result(tmp_path / "run").config
    assert [model.spec for model in loaded.build_hardware()] == ["bitfusion:batch=2", "mcu"]
    assert build_components(loaded).costs.models == loaded.build_hardware()


MEASURE = """
import json, pathlib, sys
request = json.load(sys.stdin)
log = pathlib.Path({log!r})
log.write_text(log.read_text() + "asked\\n" if log.exists() else "asked\\n")
n = sum(layer["macs"] for layer in request["layers"])
assert pathlib.Path(sys.argv[-1]).stat().st_size > 0
if {fail!r} and n % 3 == 0:
    sys.exit("the board does not answer")
print(json.dumps({{"latency_ms": n / 1e4}}))
"""


@pytest.fixture
def board(tmp_path):
    """A command that measures, and the file in which it writes a line each time it is asked."""

    def make(fail=False):
        script, log = tmp_path / "measure.py", tmp_path / "asked.txt"
        script.write_text(MEASURE.format(log=str(log), fail=fail))
        command = [sys.executable, str(script)]
        return {"name": "measured", "command": command, "retries": 0}, log

    return make


def test_a_board_in_the_loop_marks_what_it_cannot_measure_as_failed(
    make_tiny_config, fake_training, tmp_path, board
):
    hardware, _ = board(fail=True)
    config = make_tiny_config(
        hardware=hardware, budget={"latency_ms": 1000}, searcher={"name": "random", "n_trials": 8}
    )
    result = run_search(config, tmp_path / "run")
    assert result.counts()["complete"] + result.counts()["failed"] == 8
    assert result.counts()["failed"] >= 1
    for trial in result.trials:
        fails = trial.candidate is not None and macs_of(config, trial) % 3 == 0
        assert (trial.outcome == "failed") == fails
        if fails:
            assert "the board does not answer" in trial.reason
            assert trial.metrics["size_bytes"] > 0
            assert trial.seconds["cost"] > 0
        else:
            assert trial.metrics["latency_ms"] == pytest.approx(macs_of(config, trial) / 1e4)


def macs_of(config, trial):
    return build_components(config).space.layers(trial.candidate.values).macs


def test_a_board_is_asked_once_about_each_network_of_a_run(
    make_tiny_config, fake_training, tmp_path, board
):
    hardware, log = board()
    config = make_tiny_config(
        hardware=hardware, budget={"latency_ms": 20}, searcher={"name": "random", "n_trials": 8}
    )
    result = run_search(config, tmp_path / "run")
    over = [trial for trial in result.trials if trial.outcome == "infeasible"]
    assert over
    assert all("latency_ms" in trial.reason for trial in over)
    networks = {trial.candidate.digest for trial in result.trials}
    networks |= {record.candidate.digest for record in (*result.final, *result.baselines)}
    assert len(log.read_text().splitlines()) == len(networks)
    final = {str(record.number): record.metrics["latency_ms"] for record in result.final}
    for name, latency in final.items():
        assert latency == result.trials[int(name)].metrics["latency_ms"]


def test_a_board_that_fails_at_the_end_loses_no_trained_network(
    make_tiny_config, fake_training, tmp_path, board
):
    hardware, _ = board()
    script = hardware["command"][1]

    def break_the_board(event):
        if isinstance(event, FinalStarted):
            Path(script).write_text("raise SystemExit('unplugged')")

    config = make_tiny_config(hardware=hardware, searcher={"name": "random", "n_trials": 4})
    result = run_search(config, tmp_path / "run", listener=break_the_board)
    assert result.state == "complete"
    # Those of the front were measured as trials; the baselines were not.
    assert all(record.cost_failure is None for record in result.final)
    failed = [record for record in result.baselines if record.cost_failure is not None]
    assert failed
    assert all(record.metrics["test_accuracy"] >= 0 for record in failed)
    assert any("unplugged" in remark for remark in result.remarks)


def test_tables_are_kept_with_the_run_and_a_damaged_one_is_made_again(
    make_tiny_config, fake_training, tmp_path
):
    config = make_tiny_config(hardware="bitfusion", budget={"latency_ms": 50})
    first = run_search(config, tmp_path / "run")
    (table,) = (tmp_path / "run" / "hardware").glob("bitfusion-*.npz")
    table.write_bytes(b"damaged")
    (tmp_path / "run" / "done.json").unlink()
    again = resume_search(tmp_path / "run")
    assert [t.metrics for t in again.trials] == [t.metrics for t in first.trials]
