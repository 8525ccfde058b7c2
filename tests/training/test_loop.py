# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from math import log

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError, DataError, TrainingError
from bitscout.export import Reference, lower
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize
from bitscout.training import OneCycle, Recipe, Split, evaluate, fork_rng, train

QUIET = Recipe(epochs=1, batch_size=16, flip=False, shift=0, weight_decay=0.0)


def weights(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def trained(make_net, data, recipe, *, seed=0, dropout=0.0):
    model = make_net(n_classes=data.n_classes, dropout=dropout)
    history = train(model, data, recipe.float_phase(), seed=seed, device="cpu")
    return model, history


class Constant(nn.Module):
    """Logits that do not depend on the input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


class Bad(nn.Module):
    """Logits that turn into NaN after some calls."""

    def __init__(self, n_good):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.n_left = n_good

    def forward(self, x):
        self.n_left -= 1
        bad = float("nan") if self.n_left < 0 else 1.0
        return x.flatten(1)[:, :4] * self.scale * bad


# --- determinism


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_same_seed_gives_bit_identical_weights(make_net, make_data, dropout):
    recipe = Recipe(epochs=2, batch_size=16, flip=True)
    runs = [trained(make_net, make_data(), recipe, seed=4, dropout=dropout) for _ in range(2)]
    assert equal(weights(runs[0][0]), weights(runs[1][0]))
    assert runs[0][1].losses == runs[1][1].losses


def test_another_seed_gives_other_weights(make_net, make_data):
    recipe = Recipe(epochs=1, batch_size=16)
    first, second = (trained(make_net, make_data(), recipe, seed=s)[0] for s in (4, 5))
    assert not equal(weights(first), weights(second))


def test_global_random_state_neither_matters_nor_changes(make_net, make_data):
    recipe = Recipe(epochs=1, batch_size=16)
    first, _ = trained(make_net, make_data(), recipe, dropout=0.5)
    with fork_rng(99):
        before = torch.random.get_rng_state()
        second, _ = trained(make_net, make_data(), recipe, dropout=0.5)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert equal(weights(first), weights(second))


# --- what is learned


def test_a_small_set_is_learned_by_heart(make_net, make_data):
    data = make_data(n=64, n_classes=4)
    recipe = replace(QUIET, epochs=60, lr=0.1)
    model, history = trained(make_net, data, recipe)
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert evaluate(model, data, "train", device="cpu") == 1.0


def test_digits_are_learned_in_a_few_epochs(make_net, digits):
    model, _ = trained(make_net, digits, Recipe(epochs=5))
    assert evaluate(model, digits, "test", device="cpu") > 0.9


def test_one_step_is_nesterov_sgd_by_hand(make_data):
    data = make_data(n=16, n_classes=4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    start = [p.detach().clone() for p in model.parameters()]
    recipe = replace(QUIET, lr=0.5, momentum=0.75, weight_decay=0.25, label_smoothing=0.2)
    train(model, data, recipe.float_phase(), seed=0, device="cpu")
    weight, bias = (p.requires_grad_() for p in start)
    x = data.normalizer()(data.train.images).flatten(1)
    log_p = F.log_softmax(x @ weight.T + bias, dim=1)
    target = 0.8 * F.one_hot(data.train.labels, 4) + 0.2 / 4
    loss = -(target * log_p).sum(1).mean()
    loss.backward()
    # The only step is in the middle of the schedule: (1 - 0.5) / (1 - 0.2) of the peak. Nesterov's
    # first step is (1 + momentum) times the gradient; only the weight, not the bias, decays.
    rate = 0.5 * 0.5 / 0.8 * 1.75
    expected_weight = weight - rate * (weight.grad + 0.25 * weight)
    expected_bias = bias - rate * bias.grad
    torch.testing.assert_close(model[1].weight, expected_weight)
    torch.testing.assert_close(model[1].bias, expected_bias)


def test_two_steps_are_adam_with_coupled_decay_by_hand(make_data):
    data = make_data(n=16, n_classes=4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    start = [p.detach().clone() for p in model.parameters()]
    recipe = replace(
        QUIET, epochs=2, optimizer="adam", lr=0.5, momentum=0.75, weight_decay=0.25,
    )  # fmt: skip
    train(model, data, recipe.float_phase(), seed=0, device="cpu")
    parameters = [p.double().requires_grad_() for p in start]
    x = data.normalizer()(data.train.images).flatten(1).double()
    target = 0.9 * F.one_hot(data.train.labels, 4) + 0.1 / 4
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step, share in enumerate((OneCycle()(0.25), OneCycle()(0.75)), 1):
        weight, bias = parameters
        loss = -(target * F.log_softmax(x @ weight.T + bias, dim=1)).sum(1).mean()
        gradients = torch.autograd.grad(loss, parameters)
        for i, decay in enumerate((0.25, 0.0)):  # The weight's; the bias has none.
            g = gradients[i] + decay * parameters[i].detach()
            means[i] = 0.75 * means[i] + 0.25 * g
            squares[i] = 0.999 * squares[i] + 0.001 * g**2
            mean, square = means[i] / (1 - 0.75**step), squares[i] / (1 - 0.999**step)
            moved = parameters[i].detach() - 0.5 * share * mean / (square.sqrt() + 1e-8)
            parameters[i] = moved.requires_grad_()
    torch.testing.assert_close(model[1].weight.double(), parameters[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].bias.double(), parameters[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 8])
def test_adam_moves_learned_steps_by_a_share_of_their_size(make_data, bits):
    data = make_data(n=16, n_classes=4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    images = data.normalizer()(data.train.images)
    config = QuantConfig(learn_weight_steps=True, learn_act_steps=True, exact_steps=False)
    quantized = post_training_quantize(model, QuantPolicy.uniform(["1"], bits), images, config)
    steps = [p for name, p in quantized.named_parameters() if name.endswith("scale")]
    before = [p.detach().clone() for p in steps]
    phase = replace(QUIET, optimizer="adam", lr=0.01).qaft_phase()
    train(quantized, data, replace(phase, peak_lr=0.01), seed=0, device="cpu")
    # Adam's first step is its rate, here in the middle of the cycle, times the sign.
    rate = 0.01 * OneCycle()(0.5)
    assert len(steps) == 2
    for after, old in zip(steps, before, strict=True):
        moved = (after - old).abs() / old.mean()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=0)


def test_the_loss_of_constant_logits_is_the_smoothed_entropy(make_data):
    logits = [2.0, 0.0, 0.0, 0.0]
    recipe = replace(QUIET, lr=1e-12, label_smoothing=0.1, batch_size=64)
    history = train(Constant(logits), make_data(n=64), recipe.float_phase(), seed=0, device="cpu")
    norm = log(torch.tensor(logits).exp().sum())
    # A quarter of the labels is class 0; the uniform part averages all four log-probabilities.
    mean_logit = 2.0 / 4
    assert history.losses == (pytest.approx(norm - mean_logit, rel=1e-6),)


def test_learning_rates_follow_the_schedule_at_the_middle_of_each_step(make_data, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def recording_step(self):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recording_step)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    recipe = replace(QUIET, epochs=2, batch_size=16, lr=1.0, warmup=0.5)
    train(model, make_data(n=70), recipe.float_phase(), seed=0, device="cpu")
    expected = [1 / 8, 3 / 8, 5 / 8, 7 / 8, 7 / 8, 5 / 8, 3 / 8, 1 / 8]
    assert [pair[0] for pair in rates] == pytest.approx(expected)
    assert all(pair[0] == pair[1] for pair in rates)


def test_weights_decay_but_biases_batch_norms_and_steps_do_not(make_data):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.step = nn.Parameter(torch.full((), 0.5))

        def forward(self, x):
            # Multiplied by zero: no gradient but weight decay moves anything.
            return 0 * (self.norm(self.conv(x)).mean((2, 3)) * self.step)

    model = Net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = replace(QUIET, weight_decay=0.1, lr=0.1)
    train(model, make_data(n=16), recipe.float_phase(), seed=0, device="cpu")
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"conv.weight"}
    assert (model.conv.weight.abs() < before["conv.weight"].abs()).all()


def test_qaft_bounds_the_gradient_and_float_training_does_not(make_data):
    data = make_data(n=16, n_classes=4)

    def moved(phase):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        nn.init.constant_(model[1].weight, 0.0)
        before = model[1].weight.detach().clone(), model[1].bias.detach().clone()
        # A hundred times the loss has a hundred times the gradient.
        model[1].register_forward_hook(lambda _module, _inputs, logits: 100 * logits)
        train(model, data, phase, seed=0, device="cpu")
        after = model[1].weight.detach(), model[1].bias.detach()
        changes = [(a - b).flatten() for a, b in zip(after, before, strict=True)]
        return float(torch.cat(changes).norm())

    recipe = replace(QUIET, lr=1.0, qaft_lr_fraction=1.0)
    # The only step is at half the cosine; Nesterov's first step is 1.9 times the gradient.
    assert moved(recipe.qaft_phase()) == pytest.approx(0.5 * 1.9 * 1.0, rel=1e-5)
    assert moved(replace(recipe.float_phase(), max_grad_norm=None)) > 10


@pytest.mark.parametrize(
    ("asked", "known", "mirrored"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_the_recipe_overrides_what_the_data_set_says_of_mirror_images(
    make_data, asked, known, mirrored
):
    data = make_data(n=32, shape=(1, 4, 4), n_classes=2, flip=known)
    ramp = torch.arange(4, dtype=torch.uint8).expand(32, 1, 4, 4)
    data = replace(data, train=Split(ramp, data.train.labels))
    model = Recorder()
    phase = replace(QUIET, flip=asked, batch_size=32).float_phase()
    train(model, data, phase, seed=0, device="cpu")
    assert (len(model.seen[0].unique()) > 1) == mirrored


@pytest.mark.parametrize(("shift", "n_distances"), [(None, 2), (0, 1), (2, 3)])
def test_shifts_are_an_eighth_of_the_edge_unless_the_recipe_says_otherwise(
    make_data, shift, n_distances
):
    data = make_data(n=256, shape=(1, 8, 8), n_classes=2)
    # Any row with any column of the first three has a sum of its own.
    column = torch.tensor([100, 90, 81, 0, 0, 0, 0, 0], dtype=torch.uint8).view(1, 1, 8, 1)
    row = torch.tensor([60, 33, 7, 0, 0, 0, 0, 0], dtype=torch.uint8).view(1, 1, 1, 8)
    data = replace(data, train=Split((column + row).repeat(256, 1, 1, 1), data.train.labels))
    model = Recorder()
    phase = replace(QUIET, shift=shift, batch_size=256).float_phase()
    train(model, data, phase, seed=0, device="cpu")
    # Reflection makes a shift by +d and one by -d alike at the corner pixel.
    assert len(model.seen[0].unique()) == n_distances**2


def test_frozen_parameters_stay(make_net, make_data):
    model = make_net(n_classes=4)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, make_data(), QUIET.float_phase(), seed=0, device="cpu")
    assert torch.equal(model[0].weight, before)


def test_qaft_freezes_batch_norm_statistics_and_float_training_updates_them(make_net, make_data):
    data = make_data()
    model = make_net(n_classes=4)
    before, conv = model[1].running_mean.clone(), model[0].weight.detach().clone()
    train(model, data, QUIET.qaft_phase(), seed=0, device="cpu")
    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(model[0].weight, conv)
    train(model, data, QUIET.float_phase(), seed=0, device="cpu")
    assert not torch.equal(model[1].running_mean, before)


def test_no_epochs_change_nothing(make_net, make_data):
    model = make_net(n_classes=4)
    before = weights(model)
    history = train(model, make_data(), Recipe(qaft_epochs=0).qaft_phase(), seed=0, device="cpu")
    assert equal(weights(model), before)
    assert (history.losses, history.n_steps) == ((), 0)


# --- batches


class Recorder(nn.Module):
    """Notes the batches it sees in training."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.seen = []

    def forward(self, x):
        self.seen.append(x[:, 0, 0, 0].detach().clone())
        return self.linear(x[:, 0, 0, :1])


def seen_by(n, batch_size, epochs=1):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4)
    return images, replace(QUIET, batch_size=batch_size, epochs=epochs)


def test_an_epoch_is_full_batches_of_different_images_in_an_order_of_its_own(make_data):
    images, recipe = seen_by(70, 16, epochs=3)
    data = make_data(n=2, shape=(1, 4, 4), n_classes=2)
    data = replace(data, train=Split(images, torch.arange(70) % 2), mean=(0.0,), std=(1 / 255,))
    model = Recorder()
    train(model, data, recipe.float_phase(), seed=0, device="cpu")
    assert [len(batch) for batch in model.seen] == [16] * 12
    epochs = [torch.cat(model.seen[i : i + 4]).round().tolist() for i in (0, 4, 8)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])
    assert set(epochs[0]) != set(epochs[1])


def test_data_smaller_than_a_batch_is_one_batch(make_data):
    images, recipe = seen_by(10, 128)
    data = make_data(n=2, shape=(1, 4, 4), n_classes=2)
    data = replace(data, train=Split(images, torch.arange(10) % 2))
    model = Recorder()
    history = train(model, data, recipe.float_phase(), seed=0, device="cpu")
    assert [len(batch) for batch in model.seen] == [10]
    assert history.n_steps == 1


# --- bookkeeping


def test_on_epoch_gets_what_the_history_keeps(make_net, make_data):
    calls = []
    model = make_net(n_classes=4)
    phase = replace(QUIET, epochs=3).float_phase()
    history = train(
        model, make_data(), phase, seed=0, device="cpu", on_epoch=lambda *a: calls.append(a)
    )
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert tuple(call[2] for call in calls) == history.losses
    assert tuple(call[3] for call in calls) == history.seconds
    assert history.n_steps == 3 * 64 // 16
    assert all(seconds > 0 for seconds in history.seconds)


def test_an_interrupt_from_on_epoch_ends_the_training_and_restores_the_random_state(
    make_net, make_data
):
    def interrupt(epoch, *_):
        if epoch == 2:
            raise KeyboardInterrupt

    model = make_net(n_classes=4)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(
            model,
            make_data(),
            replace(QUIET, epochs=5).float_phase(),
            seed=0,
            device="cpu",
            on_epoch=interrupt,
        )
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_network_is_left_in_evaluation_mode(make_net, make_data):
    model, _ = trained(make_net, make_data(), QUIET)
    assert not any(module.training for module in model.modules())


# --- errors


def test_a_loss_that_is_not_finite_names_epoch_and_step(make_data):
    # 64 images in batches of 16: four steps an epoch, the seventh call is epoch 2, step 3.
    phase = replace(QUIET, epochs=4, lr=0.01).float_phase()
    message = (
        r"the loss is nan at epoch 2 of 4, step 3 of 4 \(float phase, peak learning rate 0.01\)"
    )
    with pytest.raises(TrainingError, match=message):
        train(Bad(6), make_data(), phase, seed=0, device="cpu")


def test_parameters_that_are_not_finite_after_the_last_step_are_found(make_data):
    model = Constant([0.0, 0.0, 0.0, 0.0])
    model.register_parameter("unused", nn.Parameter(torch.tensor([float("inf")])))
    with pytest.raises(TrainingError, match="after 1 epochs of the float phase unused is not"):
        train(model, make_data(), QUIET.float_phase(), seed=0, device="cpu")


def test_a_network_without_trainable_parameters_is_rejected(make_data):
    with pytest.raises(ConfigError, match="no trainable parameters"):
        train(nn.Flatten(), make_data(), QUIET.float_phase(), seed=0, device="cpu")


def test_one_training_image_is_too_few(make_data):
    data = make_data()
    one = Split(data.train.images[:1], data.train.labels[:1])
    with pytest.raises(DataError, match="at least two images, got 1"):
        train(
            Constant([0.0] * 4),
            replace(data, train=one),
            QUIET.float_phase(),
            seed=0,
            device="cpu",
        )


# --- evaluate


@pytest.mark.parametrize("batch_size", [1, 5, 8, 100])
def test_accuracy_is_the_share_of_the_predicted_class(make_data, batch_size):
    data = make_data(n=64, n_classes=4)
    labels = torch.tensor([2, 2, 2, 0, 1, 3, 2, 2])
    data = replace(data, val=Split(data.val.images, labels))
    model = Constant([0.0, 0.0, 1.0, 0.0])
    assert evaluate(model, data, "val", device="cpu", batch_size=batch_size) == 5 / 8


def test_ties_go_to_the_first_class(make_data):
    model = Constant([1.0, 1.0, 1.0, 1.0])
    assert evaluate(model, make_data(n_classes=4), "val", device="cpu") == 1 / 4


def test_evaluation_uses_running_statistics_and_puts_the_mode_back(make_net, make_data):
    data = make_data()
    model = make_net(n_classes=4, dropout=0.5)
    model.train()
    before = weights(model)
    first = evaluate(model, data, "train", device="cpu", batch_size=7)
    assert model.training
    assert equal(weights(model), before)
    assert evaluate(model, data, "train", device="cpu", batch_size=64) == first


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_not_finite_are_an_error(make_data, bad):
    model = Constant([0.0, 1.0, bad, 0.0])
    with pytest.raises(TrainingError, match="outputs on the val split are not finite"):
        evaluate(model, make_data(), "val", device="cpu")


def test_a_withheld_test_split_cannot_be_evaluated_on(make_data):
    with pytest.raises(DataError, match="withheld"):
        evaluate(Constant([0.0] * 4), make_data().without_test(), "test", device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_training_on_cuda_is_deterministic_and_learns(make_net, digits):
    data = digits.to("cuda")
    runs = [trained_on_cuda(make_net, data) for _ in range(2)]
    assert equal(weights(runs[0]), weights(runs[1]))
    assert evaluate(runs[0], data, "test", device="cuda") > 0.9


def trained_on_cuda(make_net, data):
    model = make_net()
    train(model, data, Recipe(epochs=5).float_phase(), seed=0, device="cuda")
    return model


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_evaluation_adds_integers_exactly_without_onednn_too(make_data):
    """NNPACK's transforms, which PyTorch then takes for 16 images and more, would round."""
    errors = []

    class Probe(nn.Module):
        def forward(self, x):
            codes = (x * 100).round()
            weight = torch.arange(3 * 16 * 9).reshape(16, 3, 3, 3) % 255 - 127.0
            sums = nn.functional.conv2d(codes, weight, padding=1)
            exact = nn.functional.conv2d(codes.double(), weight.double(), padding=1)
            errors.append(float((sums.double() - exact).abs().max()))
            return sums.mean((2, 3))[:, :10]

    data = make_data(n=64, shape=(3, 8, 8), n_classes=10)
    with torch.backends.mkldnn.flags(enabled=False):
        evaluate(Probe(), data, "train", device="cpu")
    assert errors
    assert max(errors) == 0.0


def test_revived_batch_norms_are_folded_after_the_training(make_data):
    data = make_data(n=64, n_classes=4)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 4),
    ).eval()  # fmt: skip
    images = data.normalizer()(data.train.images)
    config = QuantConfig(learn_weight_steps=True)
    policy = QuantPolicy.uniform(layer_names(model), 3)
    quantized = post_training_quantize(model, policy, images, config)
    seen = []
    conv = quantized[0]
    conv.register_forward_hook(lambda module, *_: seen.append(module.norm is not None))
    phase = replace(QUIET.qaft_phase(), batch_norm="revived", peak_lr=0.05, epochs=4)
    before = conv.bias.detach().clone()
    losses = train(quantized, data, phase, seed=0, device="cpu").losses
    assert all(seen[1:])  # The first use is the one that measures the statistics.
    assert conv.norm is None
    assert losses[-1] < losses[0]
    # The network has become the integer network of what was trained, bias included.
    assert not torch.equal(conv.bias, before)
    graph = lower(quantized, images[:2])
    scores = graph.scores(Reference(graph).run(images.numpy()))
    torch.testing.assert_close(
        quantized(images).double(), torch.from_numpy(scores), rtol=0, atol=0, check_stride=False
    )
