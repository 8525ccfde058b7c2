# SPDX-License-Identifier: Apache-2.0
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from bitscout.errors import ConfigError
from bitscout.training import Cosine, OneCycle, Recipe, Triangular

progress = st.floats(0, 1)


@pytest.mark.parametrize(("at", "share"), [(0, 0), (0.1, 0.4), (0.25, 1), (0.625, 0.5), (1, 0)])
def test_triangular_values_by_hand(at, share):
    assert Triangular(0.25)(at) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize(
    ("at", "share"), [(0, 1), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1, 0)]
)
def test_cosine_values_by_hand(at, share):
    assert Cosine()(at) == pytest.approx(share, abs=1e-15)


@given(at=progress, warmup=st.floats(0, 0.99))
def test_schedules_stay_between_zero_and_the_peak(at, warmup):
    assert 0 <= Triangular(warmup)(at) <= 1
    assert 0 <= Cosine()(at) <= 1
    assert 0 < OneCycle()(at) <= 1


@pytest.mark.parametrize("schedule", [Triangular(0), Triangular(0.2), Triangular(0.9), Cosine()])
def test_every_schedule_has_half_the_peak_as_its_mean(schedule):
    area, _ = quad(schedule, 0, 1, points=[0.2, 0.9])
    assert area == pytest.approx(0.5, abs=1e-9)


@given(first=progress, second=progress)
def test_triangular_falls_after_the_warmup_and_cosine_always(first, second):
    low, high = sorted((first, second))
    assert Cosine()(high) <= Cosine()(low)
    schedule = Triangular(0.2)
    assert schedule(max(high, 0.2)) <= schedule(max(low, 0.2))


@pytest.mark.parametrize("warmup", [-0.1, 1.0, float("nan")])
def test_warmups_out_of_range_are_rejected(warmup):
    with pytest.raises(ConfigError, match=r"`warmup` must be in \[0, 1\), got"):
        Recipe(warmup=warmup)


@pytest.mark.parametrize("batch_size", [32, 128, 1024])
def test_the_default_peak_is_linear_in_the_batch_size(batch_size):
    per_128 = Recipe(batch_size=128).peak_lr
    assert Recipe(batch_size=batch_size).peak_lr == pytest.approx(per_128 * batch_size / 128)


def test_a_given_learning_rate_is_the_peak_whatever_the_batch():
    assert Recipe(lr=0.03, batch_size=1024).float_phase().peak_lr == 0.03


def test_the_phases_carry_what_the_recipe_says():
    recipe = Recipe(epochs=7, qaft_epochs=3, lr=0.2, qaft_lr_fraction=0.1, warmup=0.3)
    float_phase, qaft_phase = recipe.float_phase(), recipe.qaft_phase()
    assert (float_phase.epochs, qaft_phase.epochs) == (7, 3)
    assert float_phase.peak_lr == 0.2
    assert qaft_phase.peak_lr == pytest.approx(0.02)
    assert float_phase.schedule == Triangular(0.3)
    assert qaft_phase.schedule == Cosine()
    assert (float_phase.batch_norm, qaft_phase.batch_norm) == ("update", "frozen")
    assert (float_phase.max_grad_norm, qaft_phase.max_grad_norm) == (2.0, 1.0)
    assert (float_phase.precision, qaft_phase.precision) == ("mixed", "float32")
    shared = ("batch_size", "momentum", "label_smoothing", "flip", "shift", "optimizer")
    for name in shared:
        assert getattr(float_phase, name) == getattr(qaft_phase, name) == getattr(recipe, name)
    assert float_phase.weight_decay == qaft_phase.weight_decay == 5e-4


def test_adam_is_that_of_the_kmeans_tpe_paper():
    # Azizi et al., IV-C: Adam, weight decay 1e-4, one cycle up to 0.01, whatever the batch.
    phase = Recipe(optimizer="adam", batch_size=512).float_phase()
    assert (phase.optimizer, phase.peak_lr, phase.weight_decay) == ("adam", 0.01, 1e-4)
    assert phase.schedule == OneCycle()
    given = Recipe(optimizer="adam", lr=0.003, weight_decay=0.0).float_phase()
    assert (given.peak_lr, given.weight_decay) == (0.003, 0.0)


def test_norms_that_live_are_fine_tuned_at_a_higher_rate():
    frozen, revived = Recipe().qaft_phase(), Recipe(revive_norms=True).qaft_phase()
    assert (frozen.batch_norm, revived.batch_norm) == ("frozen", "revived")
    assert frozen.peak_lr == pytest.approx(0.02)
    assert revived.peak_lr == pytest.approx(0.05)
    given = Recipe(revive_norms=True, qaft_lr_fraction=0.5).qaft_phase()
    assert given.peak_lr == pytest.approx(0.1)


def test_fine_tuning_by_adam_is_the_training_of_the_kmeans_tpe_paper():
    phase = Recipe(optimizer="adam", revive_norms=True, qaft_epochs=90).qaft_phase()
    assert (phase.peak_lr, phase.schedule, phase.weight_decay) == (0.01, OneCycle(), 1e-4)
    assert Recipe(optimizer="adam").qaft_phase().peak_lr == pytest.approx(0.001)


def test_one_cycle_is_pytorchs():
    n_steps = 10_000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=n_steps, cycle_momentum=False
    )
    shares = []
    for _ in range(n_steps - 1):
        shares.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = [OneCycle()((step + 0.5) / n_steps) for step in range(n_steps - 1)]
    # The steepest slope, pi / (2 * 0.3) a training, times PyTorch's step of 1 to 1.5 steps.
    assert ours == pytest.approx(shares, abs=1.5 * np.pi / 0.6 / n_steps)


def test_a_recipe_is_immutable():
    with pytest.raises(FrozenInstanceError):
        Recipe().epochs = 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", -1, "`epochs` must be an integer of at least 0, got -1"),
        ("epochs", 2.5, "`epochs` must be an integer of at least 0, got 2.5"),
        ("epochs", True, "`epochs` must be an integer of at least 0, got True"),
        ("qaft_epochs", -1, "`qaft_epochs` must be an integer of at least 0, got -1"),
        ("batch_size", 1, "`batch_size` must be an integer of at least 2, got 1"),
        ("shift", -1, "`shift` must be an integer of at least 0, got -1"),
        ("lr", 0.0, "`lr` must be finite and > 0, got 0.0"),
        ("lr", np.inf, "`lr` must be finite and > 0, got inf"),
        ("momentum", 1.0, r"`momentum` must be in \(0, 1\), got 1.0"),
        ("momentum", 0.0, r"`momentum` must be in \(0, 1\), got 0.0"),
        ("weight_decay", -1e-4, r"`weight_decay` must be in \[0, 1\), got -0.0001"),
        ("optimizer", "rmsprop", "`optimizer` must be 'sgd' or 'adam', got 'rmsprop'"),
        ("label_smoothing", 1.0, r"`label_smoothing` must be in \[0, 1\), got 1.0"),
        ("qaft_lr_fraction", 0.0, r"`qaft_lr_fraction` must be in \(0, 1\], got 0.0"),
        ("qaft_lr_fraction", np.nan, r"`qaft_lr_fraction` must be in \(0, 1\], got nan"),
    ],
)
def test_values_out_of_range_are_rejected(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**{field: value})
