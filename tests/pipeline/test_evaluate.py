"""Evaluation for real, on a few images: determinism, several policies, and what fails."""

import pytest
import torch

from bitscout.core import QuantPolicy
from bitscout.errors import TrainingError
from bitscout.pipeline import make_config
from bitscout.pipeline.components import build_components, build_plan
from bitscout.pipeline.evaluate import evaluate_policies


def ignore(*_):
    pass


@pytest.fixture
def job(make_tiny_config):
    components = build_components(make_tiny_config())
    space = components.space
    architecture = space.architecture(space.seed_values())
    names = architecture.layers().names
    plan = build_plan(components, components.config.training)
    return components, architecture, names, plan


def test_equal_seeds_give_equal_networks_and_others_do_not(job):
    components, architecture, names, plan = job
    policy = QuantPolicy.uniform(names, 4)
    runs = [
        evaluate_policies(
            architecture, [policy], components.data, plan, seed=seed, on_stage=ignore
        )[0]
        for seed in (0, 0, 1)
    ]
    first, again, other = (run.module.state_dict() for run in runs)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert runs[0].val_accuracy == runs[1].val_accuracy


def test_several_policies_of_one_network_equal_single_evaluations(job):
    components, architecture, names, plan = job
    policies = [QuantPolicy.uniform(names, bits) for bits in (2, 8)]
    together = evaluate_policies(
        architecture, policies, components.data, plan, seed=0, on_stage=ignore
    )
    for policy, trained in zip(policies, together, strict=True):
        (alone,) = evaluate_policies(
            architecture, [policy], components.data, plan, seed=0, on_stage=ignore
        )
        assert trained.policy == policy
        assert trained.float_accuracy == alone.float_accuracy
        state = alone.module.state_dict()
        assert all(
            torch.equal(value, state[k]) for k, value in trained.module.state_dict().items()
        )


def test_stages_are_told_epoch_by_epoch(job):
    components, architecture, names, plan = job
    told = []
    evaluate_policies(
        architecture,
        [QuantPolicy.uniform(names, 4)] * 2,
        components.data,
        plan,
        seed=0,
        on_stage=lambda *stage: told.append(stage[:3]),
    )
    assert told == [("train", 1, 1), ("fine-tune", 1, 1), ("fine-tune", 1, 1)]


def test_diverging_training_is_a_training_error(make_tiny_config):
    components = build_components(make_tiny_config(training={"lr": 1e30}))
    space = components.space
    architecture = space.architecture(space.seed_values())
    policy = QuantPolicy.uniform(architecture.layers().names, 4)
    with pytest.raises(TrainingError):
        evaluate_policies(
            architecture,
            [policy],
            components.data,
            build_plan(components, components.config.training),
            seed=0,
            on_stage=ignore,
        )


@pytest.mark.parametrize(
    ("message", "expected"),
    [("CUDA out of memory. Tried", TrainingError), ("shapes do not match", RuntimeError)],
)
def test_only_lack_of_memory_is_turned_into_a_training_error(job, monkeypatch, message, expected):
    components, architecture, names, plan = job

    def fail(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr("bitscout.pipeline.evaluate.build_network", fail)
    with pytest.raises(
        expected, match="ran out of memory" if expected is TrainingError else message
    ):
        evaluate_policies(
            architecture,
            [QuantPolicy.uniform(names, 4)],
            components.data,
            plan,
            seed=0,
            on_stage=ignore,
        )


def test_plan_follows_the_configuration():
    config = make_config(
        {
            "training": {"epochs": 3, "qaft_epochs": 2, "batch_size": 64, "lr": 0.3, "shift": 0},
            "final": {"epochs": 9, "qaft_epochs": 4},
            "quantization": {
                "weight_observer": "mse",
                "act_observer": "percentile",
                "bias_correction": False,
                "learn_weight_steps": False,
                "learn_act_steps": True,
                "exact_steps": False,
                "calibration_images": 7,
            },
        }
    )
    components = build_components(config)
    plan = build_plan(components, config.training)
    recipe = plan.recipe
    assert (recipe.epochs, recipe.qaft_epochs, recipe.batch_size) == (3, 2, 64)
    assert (recipe.lr, recipe.shift, recipe.flip) == (0.3, 0, None)
    assert type(plan.quantization.weight_observer).__name__ == "MseObserver"
    assert type(plan.quantization.act_observer).__name__ == "PercentileObserver"
    assert not plan.quantization.bias_correction
    assert not plan.quantization.learn_weight_steps
    assert plan.quantization.learn_act_steps
    assert not plan.quantization.exact_steps
    assert plan.calibration_images == 7
    final = build_plan(components, config.final).recipe
    assert (final.epochs, final.qaft_epochs, final.batch_size, final.lr) == (9, 4, 64, 0.3)
