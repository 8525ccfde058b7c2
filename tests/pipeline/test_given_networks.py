# SPDX-License-Identifier: Apache-2.0
"""A given network from its configuration to its final networks."""

from __future__ import annotations

import itertools
import json

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import bitscout
from bitscout.core import Budget, PenalizedScore
from bitscout.errors import ConfigError, DataError, InfeasibleError, RunError, UnsupportedError
from bitscout.networks import model_names
from bitscout.pipeline import load_config, load_result, make_config, resume_search, run_search
from bitscout.pipeline.components import build_components, build_sampler
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.events import ignore_events
from bitscout.pipeline.explanation import MODEL_SHAPES, explain_source
from bitscout.pipeline.model_start import start_model
from bitscout.training import OneCycle, Recipe, save_weights


class Tiny(nn.Module):
    """A residual network of four layers, with an addition written in its forward."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        return self.fc(x.mean((2, 3)))


def document(**sections):
    base = {
        "name": "given",
        "dataset": {"name": "digits", "limit": 100, "validation": 0.3},
        "space": {"name": "model", "model": "tests.pipeline.test_given_networks:Tiny"},
        "searcher": {"name": "random", "n_trials": 4},
        "budget": {"size_kb": 0.9},
        "pretrain": {"epochs": 1},
        "training": {"qaft_epochs": 1, "batch_size": 32},
        "final": {"qaft_epochs": 1, "max_networks": 1},
        "quantization": {"calibration_images": 32},
        "sensitivity": {"images": 32},
        "certificate": {"enabled": False},
    }
    for key, value in sections.items():
        base[key] = {**base[key], **value} if isinstance(base.get(key), dict) else value
    return base


def config(**sections):
    return make_config(document(**sections))


def test_a_given_network_is_searched_compared_and_loaded_back(tmp_path):
    space = {"tie": "layer", "widths": [0.75, 1.0]}
    result = run_search(config(space=space, seed=1), tmp_path / "run")
    assert result.state == "complete"
    assert result.counts()["infeasible"] >= 1  # The given network itself, at 8 bits.
    labels = [record.label for record in result.baselines]
    assert any("integer program" in label for label in labels)
    assert {f"given network at uniform {bits} bit" for bits in (8, 4, 3, 2)} <= set(labels)
    best = result.best_final
    assert best.metrics.size_bytes <= 900
    module = result.load(best.name)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    program = next(r for r in result.baselines if r.name == "integer-program")
    assert program.metrics.size_bytes <= best.metrics.size_bytes
    widths = [name for name in best.candidate.values if name.endswith(".width")]
    assert all(program.candidate.values[w] == best.candidate.values[w] for w in widths)
    verdict = next(v for v in result.verdicts if v.is_allocated)
    assert verdict.sentence().startswith("Searching")


def test_a_run_that_was_interrupted_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = run_search(config(), tmp_path / "whole")
    from bitscout.pipeline import trials

    real, calls = trials.evaluate_policies, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(trials, "evaluate_policies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), tmp_path / "part")
    weights = (tmp_path / "part/model/weights.safetensors").read_bytes()
    monkeypatch.setattr(trials, "evaluate_policies", real)
    resumed = resume_search(tmp_path / "part")
    assert (tmp_path / "part/model/weights.safetensors").read_bytes() == weights
    assert [t.metrics for t in resumed.trials] == [t.metrics for t in whole.trials]
    assert [r.metrics for r in resumed.final] == [r.metrics for r in whole.final]


def test_a_module_handed_over_in_python_is_searched_and_stays_itself(tmp_path):
    torch_state = torch.random.get_rng_state()
    network = Tiny()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = {
        "searcher.name": "random",
        "searcher.n_trials": 2,
        "budget.size_kb": 2,
        "dataset.limit": 100,
        "pretrain.epochs": 0,
        "training.qaft_epochs": 0,
        "final.qaft_epochs": 0,
        "final.max_networks": 1,
        "certificate.enabled": False,
    }
    result = bitscout.search(
        model=network, space={"widths": [1]}, data="digits", out=tmp_path, settings=settings
    )
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert network.training
    loaded = result.load(result.best_final.name, model=Tiny())
    assert loaded(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(ConfigError, match="handed over again"):
        result.load(result.best_final.name)
    torch.random.set_rng_state(torch_state)


def test_a_checkpoint_is_what_the_search_begins_with(tmp_path):
    network = Tiny()
    save_weights(network, tmp_path / "w.safetensors")
    space = {"checkpoint": str(tmp_path / "w.safetensors")}
    components = build_components(config(space=space, pretrain={"epochs": None}))
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    ready = start_model(components, run, ignore_events)
    built = ready.space.builder.module.state_dict()
    assert all(torch.equal(built[name], t) for name, t in network.state_dict().items())


def test_pruning_by_sensitivity_leaves_each_block_the_bits_of_its_cluster(tmp_path):
    sensitivity = {"prune": True, "clusters": 2, "images": 32}
    budget = {"size_kb": 2}
    pruned = config(
        space={"tie": "layer"}, sensitivity=sensitivity, budget=budget, pretrain={"epochs": 0}
    )
    components = build_components(pruned)
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    ready = start_model(components, run, ignore_events)
    subsets = ready.space.subsets
    assert set(subsets) == {"stem", "first", "second", "fc"}
    assert subsets["stem"] == subsets["fc"]  # The edges are in the top cluster.
    assert all(len(bits) < 5 for bits in subsets.values())
    kept = json.loads(run.model_space.read_text())
    assert {k: tuple(v) for k, v in kept["subsets"].items()} == dict(subsets)


@pytest.fixture(scope="module")
def guidance(tmp_path_factory):
    space = {"tie": "layer", "widths": [0.75, 1], "weight_bits": [2, 4, 8], "act_bits": [4, 8]}
    components = build_components(config(space=space, pretrain={"epochs": 0}))
    run = RunDirectory(tmp_path_factory.mktemp("guided") / "run")
    run.path.mkdir()
    return start_model(components, run, ignore_events).guidance


@pytest.mark.parametrize("size", [400, 700, 1000, 1300])
@pytest.mark.parametrize("width", [0.75, 1.0])
def test_the_integer_program_is_the_best_of_all_bits(guidance, size, width):
    space = guidance.space
    values = {name: width if name.endswith(".width") else v for name, v in seed(space).items()}
    limits = {"size_bytes": float(size), "bops": 3e6}
    found = guidance.best_bits(values, limits)
    lengths = [
        [space.encode(values)[i]] if choice.name.endswith(".width") else range(len(choice.values))
        for i, choice in enumerate(space.choices)
    ]
    rows = np.array(list(itertools.product(*lengths)))
    known = guidance.costs.batch(rows, tuple(limits))
    fits = np.all([known[name] <= limit for name, limit in limits.items()], axis=0)
    losses = guidance.expected_loss(rows)
    if not fits.any():
        assert found is None
    else:
        assert np.isclose(guidance.expected_loss(found[None])[0], losses[fits].min())


def seed(space):
    return space.seed_values()


def test_expected_losses_fall_with_more_bits(guidance):
    space = guidance.space
    least, most = space.seed_indices() * 0, space.seed_indices()
    assert guidance.expected_loss(least[None])[0] > guidance.expected_loss(most[None])[0] > 0


def test_what_is_over_a_penalized_budget_is_trained_and_no_answer(tmp_path, fake_training):
    loose = config(objective={"score": "penalized"}, budget={"size_kb": 1.0})
    result = run_search(loose, tmp_path / "run")
    over = [t for t in result.trials if not t.is_feasible]
    assert over and all(t.outcome == "complete" for t in over)
    for trial in result.complete:
        excess = max(0.0, trial.metrics.size_bytes / 1000 - 1)
        assert trial.score == pytest.approx(trial.metrics.val_accuracy - excess)
    assert result.best.is_feasible
    assert all(result.trials[number].is_feasible for number in result.pareto_front)


def test_a_penalized_search_without_an_answer_says_so(tmp_path, fake_training):
    tight = config(
        objective={"score": "penalized"},
        budget={"size_kb": 0.5},
        space={"widths": [1], "weight_bits": [6, 8]},
    )
    with pytest.raises(InfeasibleError, match=r"% over size_kb"):
        run_search(tight, tmp_path / "run")
    assert load_result(tmp_path / "run").counts()["complete"] == 4  # Nothing finished is lost.


def test_penalties_are_the_lagrangian_of_the_paper():
    score = PenalizedScore(tuple(Budget(size_kb=1, latency_ms=2).limits().values()), 0.5)
    metrics = bitscout.core.Metrics(val_accuracy=0.9, size_bytes=1500, latency_ms=1)
    assert score.values(metrics) == (pytest.approx(0.9 - 0.5 * 0.5),)
    with pytest.raises(ConfigError, match="needs a budget"):
        PenalizedScore(())


class Transposed(Tiny):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 2)

    def forward(self, x):
        return self.fc(self.up(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Odd(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"space": {"model": None}}, ConfigError, "`space.model` is empty"),
        ({"space": {"model": "resnet21"}}, ConfigError, "resnet20"),
        ({"space": {"options": {"n_classes": 7}}}, ConfigError, "10"),
        ({"space": {"model": f"{__name__}:Transposed"}}, UnsupportedError, "(?i)transposed"),
        ({"space": {"model": f"{__name__}:Odd"}}, ConfigError, "(?i)no (layer|convolution)"),
        ({"space": {"checkpoint": "nowhere.pt"}}, DataError, "nowhere.pt"),
        ({"space": {"widths": [1.0], "weight_bits": [8]}}, ConfigError, "nothing is left"),
        ({"budget": {"size_kb": 0.1}}, InfeasibleError, "nothing was trained"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path, sections, error, message
):
    with pytest.raises(error, match=message):
        run_search(config(**sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_network_lists_its_keys(tmp_path):
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"stem\.weight"):
        build_components(config(space={"checkpoint": str(tmp_path / "w.safetensors")}))


def test_a_run_whose_module_folder_was_changed_does_not_go_on_silently(tmp_path, fake_training):
    fake_training.crash_on = {1}
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), tmp_path / "run")
    save_weights(nn.Linear(2, 2), tmp_path / "run/model/weights.safetensors")
    with pytest.raises((DataError, RunError)):
        resume_search(tmp_path / "run")


class Gated(Tiny):
    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.fc((x * torch.sigmoid(self.first(x))).mean((2, 3)))


def test_what_cannot_be_exported_is_said_beforehand():
    report = explain_source(f"{__name__}:Gated", input_shape="1x8x8")
    assert any("not exported" in note and "sigmoid" in note for note in report.notes)
    assert not explain_source(f"{__name__}:Tiny", input_shape="1x8x8").notes


def test_networks_are_explained_layer_by_layer_without_data():
    report = explain_source(f"{__name__}:Tiny", input_shape="1x8x8", settings=["space.tie=layer"])
    assert [layer.name for layer in report.layers] == ["stem", "first", "second", "fc"]
    assert {layer.state for layer in report.layers} == {"searched"}
    report = explain_source(f"{__name__}:Transposed", input_shape="1x8x8")
    up = next(layer for layer in report.layers if layer.name == "up")
    assert up.state == "unsupported"
    assert up.reason


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("quickstar", {}, "'quickstart'"),
        ("quickstart", {"input_shape": "1x8x8"}, "--input belongs to a network"),
        (f"{__name__}:Tiny", {}, "--input is needed"),
        (f"{__name__}:Tinny", {"input_shape": "1x8x8"}, "Did you mean 'Tiny'"),
    ],
)
def test_what_cannot_be_explained_says_why(source, options, message):
    with pytest.raises(ConfigError, match=message):
        explain_source(source, **options)


@pytest.mark.parametrize(
    "name",
    [
        "kmeans-tpe-resnet20-cifar10",
        "kmeans-tpe-resnet18-cifar100",
        "kmeans-tpe-mobilenet-v1-cifar100",
    ],
)
def test_presets_of_the_paper_carry_its_numbers(name):
    preset = load_config(name)
    assert (preset.searcher.n_startup_trials, preset.searcher.n_trials) == (40, 160)
    assert preset.space.weight_bits == [2, 3, 4, 6, 8]
    assert preset.space.widths == [0.75, 0.875, 1.0, 1.125, 1.25]
    assert (preset.training.qaft_epochs, preset.final.qaft_epochs) == (4, 90)
    assert preset.sensitivity.prune
    assert preset.objective.score == "penalized"
    common = preset.training
    recipe = Recipe(optimizer=common.optimizer, qaft_lr_fraction=common.qaft_lr_fraction)
    phase = recipe.qaft_phase()
    assert (phase.optimizer, phase.peak_lr, phase.weight_decay) == ("adam", 0.01, 1e-4)
    assert isinstance(phase.schedule, OneCycle)


def test_given_networks_have_defaults_of_their_own_that_settings_replace():
    usual = make_config(
        {"space": {"name": "model", "model": "resnet20"}, "budget": {"size_kb": 9}}
    )
    assert usual.searcher.name == "guided"
    assert usual.training.epochs == usual.final.epochs == 0
    assert usual.objective.score == "accuracy"
    changed = make_config(document(searcher={"name": "tpe"}, training={"qaft_epochs": 9}))
    assert (changed.searcher.name, changed.training.qaft_epochs) == ("tpe", 9)


def test_the_guided_searcher_begins_within_the_budget_at_several_widths(tmp_path):
    guided = config(searcher={"name": "guided"}, space={"tie": "layer", "widths": [0.75, 1, 1.25]})
    components = build_components(guided)
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    ready = start_model(components, run, ignore_events)
    starts = np.array(ready.guidance.starts(ready.budget))
    sizes = ready.space.size_bits(starts) / 8
    assert (sizes <= 900).all()
    assert len(np.unique(starts, axis=0)) == len(starts)
    widths = [ready.space.decode(row)["stage1.width"] for row in starts]
    assert widths[0] == 1.0
    assert set(widths) == {0.75, 1.0, 1.25}
    sampler = build_sampler(ready)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    sizes = {choice.name: len(choice.values) for choice in ready.space.choices}
    trial = study.ask()
    first = [trial.suggest_int(name, 0, n - 1) for name, n in sizes.items()]
    assert first == starts[0].tolist()


def test_widths_alone_can_be_searched(tmp_path, fake_training):
    alone = config(
        searcher={"name": "guided", "n_trials": 3},
        space={"weight_bits": [8], "widths": [0.75, 1]},
        budget={"size_kb": 1.2},
    )
    result = run_search(alone, tmp_path / "run")
    assert result.best.candidate.values == {"stage1.width": 0.75}


def test_traces_of_the_hessian_come_with_inputs(tmp_path):
    hessian = config(sensitivity={"estimator": "hessian", "images": 8}, pretrain={"epochs": 0})
    components = build_components(hessian)
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    assert (start_model(components, run, ignore_events).guidance.losses.inputs[:, 0] > 0).all()


def test_a_run_needs_its_checkpoint_only_once(tmp_path, fake_training, monkeypatch):
    save_weights(Tiny(), tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    fake_training.crash_on = {1}
    with pytest.raises(KeyboardInterrupt):
        run_search(config(space={"checkpoint": "w.safetensors"}), tmp_path / "run")
    (tmp_path / "w.safetensors").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume_search(tmp_path / "run").state == "complete"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["space={name: bomp}"], "only keys of its space"),
        (["training.epochs=3"], "only keys of its space"),
        (["space.model=resnet20"], "only keys of its space"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        explain_source(f"{__name__}:Tiny", input_shape="1x8x8", settings=settings)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("space", {"input": "1x16x16"}, "images are 1x8x8"),
        ("searcher", {"variant": "literal"}, "belongs to kmeans-tpe"),
    ],
)
def test_sections_that_do_not_fit_are_refused(section, value, message):
    with pytest.raises(ConfigError, match=message):
        build_components(config(**{section: value}))


@pytest.mark.parametrize(
    "section", [{"pretrain": {"epochs": 3}}, {"sensitivity": {"prune": True}}]
)
def test_sections_of_given_networks_are_refused_elsewhere(section):
    with pytest.raises(ConfigError, match="is for given networks"):
        make_config(section)


def test_networks_with_usual_images_are_the_built_in_ones():
    assert set(MODEL_SHAPES) == set(model_names())
