# SPDX-License-Identifier: Apache-2.0
"""Traces against closed forms, full Hessians and one gradient at a time."""

import math

import pytest
import torch
from tests.networks.zoo import IMAGE, ZOO, make
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn import functional as F

from bitscout.errors import ConfigError, DataError, TrainingError, UnsupportedError
from bitscout.networks import describe, resnet
from bitscout.quantization import fold_batch_norm
from bitscout.sensitivity import (
    CrossEntropy,
    EmpiricalFisher,
    GaussNewton,
    Hutchinson,
    Sensitivity,
    SquaredError,
    measure_sensitivity,
)
from bitscout.sensitivity.per_sample import autograd_norms, watched_norms
from bitscout.sensitivity.subject import Subject

EXACT = GaussNewton(draws=1000)  # More than classes: nothing is drawn.


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randomized(module, seed=0):
    """Return `module` with normal weights in float64."""
    rng = generator(seed)
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng).double() * 0.4
    return module


def mlp(seed=0):
    """Return a network of 4 x 12 + 12 x 10 + 10 x 3 = 198 weights."""
    net = nn.Sequential(
        nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3)
    )
    return randomized(net, seed)


def data(n, shape=(4,), n_classes=3, seed=1):
    rng = generator(seed)
    x = torch.randn((n, *shape), generator=rng).double()
    return x, torch.randint(0, n_classes, (n,), generator=rng)


def fitted(n):
    """Return a network, and data it fits: the curvature is then positive in every layer."""
    net, (x, _) = mlp(), data(n)
    return net, x, net(x).argmax(dim=1)


def exact_hessian_traces(net, x, y, loss):
    """Return the trace of each weight's block of the full Hessian."""
    found = {}
    for name, weight in net.named_parameters():
        block = hessian(lambda w, n=name: loss(functional_call(net, {n: w}, (x,)), y), weight)
        block = block.reshape(weight.numel(), weight.numel())
        found[name.removesuffix(".weight")] = float(block.trace())
    return found


def exact_gauss_newton_traces(net, x):
    """Return the traces of J^T (diag p - p p^T) J, mean over images, from the full Jacobian."""
    jacobians = {
        name: jacobian(lambda w, n=name: functional_call(net, {n: w}, (x,)), weight)
        for name, weight in net.named_parameters()
    }
    p = net(x).softmax(dim=1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return {
        name.removesuffix(".weight"): float(
            torch.einsum("nck,ncd,ndk->", J.flatten(2), curvature, J.flatten(2)) / len(x)
        )
        for name, J in jacobians.items()
    }


def test_hutchinson_agrees_with_the_full_hessian_of_a_network_of_200_weights():
    net, x, y = fitted(32)
    expected = exact_hessian_traces(net, x, y, F.cross_entropy)
    estimator = Hutchinson(tolerance=0.01, max_probes=120, chunk_size=8)
    for layer in measure_sensitivity(net, x, y, estimator=estimator).layers:
        assert layer.probe_error <= 0.05 * abs(expected[layer.name])
        assert abs(layer.trace - expected[layer.name]) <= 4 * layer.probe_error


def test_gauss_newton_with_all_classes_equals_the_full_matrix():
    net, (x, y) = mlp(), data(32)
    expected = exact_gauss_newton_traces(net, x)
    for layer in measure_sensitivity(net, x, y, estimator=EXACT).layers:
        assert layer.trace == pytest.approx(expected[layer.name], rel=1e-10)
        assert layer.probe_error == 0


def test_drawn_labels_scatter_around_the_gauss_newton_trace_within_their_error():
    net, (x, y) = mlp(), data(32)
    expected = exact_gauss_newton_traces(net, x)
    runs = [
        measure_sensitivity(net, x, y, estimator=GaussNewton(draws=2, seed=seed))
        for seed in range(20)
    ]
    for name in runs[0].names:
        traces = torch.tensor([run[name].trace for run in runs])
        reported = sum(run[name].probe_error for run in runs) / len(runs)
        assert abs(float(traces.mean()) - expected[name]) <= 4 * reported / math.sqrt(len(runs))
        # Systematic draws scatter less than the bound for independent ones.
        assert 0 < float(traces.std()) <= 1.5 * reported


def test_gauss_newton_equals_the_hessian_where_the_network_is_linear():
    net, (x, y) = randomized(nn.Sequential(nn.Linear(4, 3))), data(16)
    expected = exact_hessian_traces(net, x, y, F.cross_entropy)["0"]
    found = measure_sensitivity(net, x, y, estimator=EXACT).layers[0]
    assert found.trace == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("estimator", [EXACT, Hutchinson(tolerance=0.01, max_probes=200)])
def test_linear_least_squares_has_twice_the_second_moment(estimator):
    net, (x, _) = randomized(nn.Sequential(nn.Linear(4, 3, bias=False))), data(16)
    found = measure_sensitivity(
        net, x, torch.zeros(16, 3).double(), estimator=estimator, loss=SquaredError()
    )
    expected = 2 * 3 * float(x.square().sum()) / 16  # H = 2 X^T X / N for each of 3 outputs.
    assert found.layers[0].trace == pytest.approx(
        expected, rel=1e-10, abs=4 * found.layers[0].probe_error
    )


def test_one_probe_is_exact_for_a_diagonal_hessian():
    net = randomized(nn.Sequential(nn.Linear(4, 3, bias=False)))
    x = torch.eye(4).double() * torch.tensor([1.0, 2.0, 3.0, 4.0]).double()  # X^T X is diagonal.
    found = measure_sensitivity(
        net, x, torch.zeros(4, 3).double(), estimator=Hutchinson(), loss=SquaredError()
    )
    assert found.layers[0].trace == pytest.approx(2 * 3 * 30 / 4, rel=1e-12)
    assert found.layers[0].probe_error == pytest.approx(0, abs=1e-12)
    assert found.layers[0].n_probes == Hutchinson().min_probes


@pytest.mark.parametrize("estimator", [EXACT, Hutchinson(), EmpiricalFisher()])
def test_weights_scaled_by_s_have_a_trace_divided_by_s_squared(estimator):
    net, (x, y) = mlp(), data(16)
    before = measure_sensitivity(net, x, y, estimator=estimator, layers=["0"])["0"]
    net[0].weight.data *= 8.0  # Powers of two round nothing, so that the draws are the same.
    after = measure_sensitivity(net, x / 8, y, estimator=estimator, layers=["0"])["0"]
    assert after.trace == pytest.approx(before.trace / 64, rel=1e-9)
    assert after.standard_error == pytest.approx(before.standard_error / 64, rel=1e-9)


def test_the_fisher_is_the_mean_of_squared_gradients():
    net, (x, y) = mlp(), data(16)
    found = measure_sensitivity(net, x, y, estimator=EmpiricalFisher())
    norms = {name: [] for name in found.names}
    for image, label in zip(x, y, strict=True):
        net.zero_grad()
        F.cross_entropy(net(image[None]), label[None]).backward()
        for name in norms:
            norms[name].append(float(net.get_submodule(name).weight.grad.square().sum()))
    for name, values in norms.items():
        values = torch.tensor(values, dtype=torch.float64)
        assert found[name].trace == pytest.approx(float(values.mean()), rel=1e-10)
        assert found[name].standard_error == pytest.approx(float(values.std() / 4), rel=1e-10)


class Twice(nn.Module):
    """Use one convolution twice, and an activation in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return F.relu_(self.conv(F.relu_(self.conv(x))) + x)


class Tokens(nn.Module):
    """Apply a linear layer to every pixel, and one to windows moved into the batch."""

    def __init__(self):
        super().__init__()
        self.pixel = nn.Linear(4, 4)
        self.window = nn.Linear(8, 4)

    def forward(self, x):
        x = self.pixel(x.flatten(2).transpose(1, 2)).tanh()
        return self.window(x.reshape(-1, 2, 8)).reshape(len(x), -1, 1)


BODIES = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "pointwise": nn.Conv2d(4, 6, 1, stride=2),
    "padded pointwise": nn.Conv2d(4, 6, 1, padding=1),
    "same": nn.Conv2d(4, 6, (3, 5), padding="same"),
    "circular": nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"),
    "gram": nn.Conv2d(4, 30, 6),  # More weights than positions.
    "twice": Twice(),
    "tokens": Tokens(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_norms_of_watched_layers_equal_one_gradient_at_a_time(body):
    x, y = data(5, (4, 6, 8))
    n_features = body.double()(x).flatten(1).shape[1]
    net = randomized(nn.Sequential(body, nn.Flatten(), nn.Linear(n_features, 3)))
    subject = Subject.of(net, x, y, CrossEntropy())
    factors = torch.randn((2, 5, 3), generator=generator()).double()
    watched = watched_norms(subject, x, lambda _: factors)
    plain = autograd_norms(subject, x, lambda _: factors)
    assert list(watched) == list(plain)
    for name, norms in plain.items():
        torch.testing.assert_close(watched[name].weights, norms.weights, rtol=1e-9, atol=1e-12)


def test_small_parts_of_a_chunk_give_the_same_norms(monkeypatch):
    net, (x, y) = randomized(nn.Sequential(BODIES["plain"], nn.Flatten())), data(5, (4, 6, 8))
    subject = Subject.of(net, x, y, CrossEntropy())
    factors = torch.randn((2, 5, 6 * 6 * 8), generator=generator()).double()
    whole = watched_norms(subject, x, lambda _: factors)["0"].weights
    monkeypatch.setattr("bitscout.sensitivity.per_sample.MAX_ELEMENTS", 1)
    parts = watched_norms(subject, x, lambda _: factors)["0"].weights
    torch.testing.assert_close(parts, whole)


def test_input_traces_are_of_the_layers_own_gradient_where_others_read_the_same():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            x = self.stem(x).tanh()
            return self.left(x) + self.right(x) + 7 * x

    net, (x, y) = randomized(Branches()), data(6, n_classes=4)
    found = measure_sensitivity(net, x, y, estimator=EmpiricalFisher())
    stem = net.stem(x).tanh()
    leaf = stem.detach().requires_grad_(True)
    outputs = net.left(leaf) + (net.right(stem) + 7 * stem).detach()
    F.cross_entropy(outputs, y, reduction="sum").backward()
    expected = float(leaf.grad.square().sum(dim=1).mean())
    assert found["left"].input_trace == pytest.approx(expected, rel=1e-10)
    assert found["left"].n_inputs == 4


def test_batch_norm_is_folded_first():
    net = resnet(8, base_width=4).double()
    for child in net.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.weight.data.uniform_(0.5, 2, generator=generator())
            child.running_var.uniform_(0.5, 2, generator=generator())
    x, y = data(6, (3, 8, 8), 10)
    found = measure_sensitivity(net, x, y, estimator=EXACT)
    assert found.notes == ()
    assert any(isinstance(child, nn.BatchNorm2d) for child in net.modules())
    fold_batch_norm(net, x)
    folded = measure_sensitivity(net, x, y, estimator=EXACT)
    for layer in found.layers:
        assert folded[layer.name].trace == pytest.approx(layer.trace, rel=1e-9)


def test_a_network_that_cannot_be_quantized_keeps_its_norms():
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 3)
    )
    net, (x, y) = randomized(net).eval(), data(16, (2, 2, 2))
    found = measure_sensitivity(net, x, y, estimator=EXACT)
    assert "Not every batch norm" in found.notes[0]
    assert found["3"].trace == pytest.approx(exact_gauss_newton_traces(net, x)["3"])


class PastItsLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return F.linear(x, self.layer.weight * 2.0)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x.reshape(len(x), 2, 2).transpose(0, 1)).tanh().mean(dim=0)


def test_a_network_that_cannot_be_watched_is_differentiated_image_by_image():
    net, (x, y) = randomized(TimeFirst()), data(8)
    found = measure_sensitivity(net, x, y, estimator=EXACT)
    assert "differentiated on its own" in found.notes[0]
    assert found["layer"].trace == pytest.approx(exact_gauss_newton_traces(net, x)["layer"])
    assert found["layer"].input_trace is None


def test_computed_weights_count_as_they_are_used():
    net, (x, y) = randomized(PastItsLayer()), data(8)
    expected = exact_gauss_newton_traces(net, x)["layer"] / 4
    found = measure_sensitivity(net, x, y, estimator=EXACT)
    assert len(found.layers) == 1
    assert found.layers[0].trace == pytest.approx(expected)


@pytest.mark.parametrize("name", ZOO)
def test_layers_are_those_of_the_description_in_networks_of_many_kinds(name):
    net = make(name)
    x = torch.randn((2, *IMAGE), generator=generator())
    found = measure_sensitivity(net, x, torch.tensor([0, 1]), estimator=EmpiricalFisher())
    assert set(found.names) == {given.layer.name for given in describe(net, IMAGE).layers}
    assert found.notes == ()
    assert min(layer.trace for layer in found.layers) > 0


@pytest.mark.parametrize("estimator", [GaussNewton(), Hutchinson(), EmpiricalFisher()])
def test_the_network_stays_as_it_is_and_the_estimate_repeats(estimator):
    net, (x, y) = mlp().train(), data(16)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first = measure_sensitivity(net, x, y, estimator=estimator)
    second = measure_sensitivity(net, x, y, estimator=estimator)
    assert first.layers == second.layers
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(child._forward_hooks == {} for child in net.modules())


def test_hutchinson_stops_on_its_error_and_no_later_than_told():
    net, x, y = fitted(32)
    loose = measure_sensitivity(net, x, y, estimator=Hutchinson(tolerance=0.5, chunk_size=8))
    tight = Hutchinson(tolerance=1e-6, max_probes=10, chunk_size=8)
    assert {layer.n_probes for layer in loose.layers} == {4}
    found = measure_sensitivity(net, x, y, estimator=tight)
    assert {layer.n_probes for layer in found.layers} == {10}


def test_a_layer_the_loss_does_not_see_has_no_curvature():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.heard, self.deaf = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.heard(x) + 0 * self.deaf(x)

    net, (x, y) = randomized(Deaf()), data(8)
    for estimator in (EXACT, Hutchinson(), EmpiricalFisher()):
        found = measure_sensitivity(net, x, y, estimator=estimator)["deaf"]
        assert (found.trace, found.standard_error) == (0, 0)


def damaged(value):
    net = mlp()
    net[2].weight.data[0, 0] = value
    return net


@pytest.mark.parametrize(
    ("net", "x", "y", "error", "message"),
    [
        (damaged(math.nan), *data(8), TrainingError, "The loss on the first 8 images is nan"),
        (nn.Sequential(nn.Flatten()), *data(8), ConfigError, "no Conv2d or Linear"),
        (mlp(), *data(8, n_classes=7), DataError, "3 classes apart, but the labels run from"),
        (mlp(), data(8)[0], data(7)[1], DataError, "as many labels, at least one, got 8 and 7"),
        (mlp(), *data(8, (5,)), ConfigError, r"does not run on images of \(8, 5\)"),
        (mlp(), *data(8, (2, 4)), UnsupportedError, r"it returned \(8, 2, 3\)"),
        (mlp(), data(8)[0] * math.inf, data(8)[1], DataError, "NaN or infinite"),
    ],
)
def test_what_has_no_sensitivity_is_refused(net, x, y, error, message):
    with pytest.raises(error, match=message):
        measure_sensitivity(net, x, y)


def test_unknown_layers_are_refused_by_name():
    with pytest.raises(ConfigError, match="no layers 9; the network has 0, 2, 4"):
        measure_sensitivity(mlp(), *data(8), layers=["9", "0"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussNewton(draws=0), "`draws` must be at least 1, got 0"),
        (lambda: EmpiricalFisher(chunk_size=0), "`chunk_size` must be at least 1"),
        (lambda: Hutchinson(tolerance=0.0), "between 0 and 1"),
        (lambda: Hutchinson(min_probes=1), "at least 2"),
        (lambda: Hutchinson(min_probes=9, max_probes=8), "no less than that, got 0.05, 9 and 8"),
    ],
)
def test_settings_that_estimate_nothing_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_result_survives_json():
    found = measure_sensitivity(mlp(), *data(8))
    assert Sensitivity.from_json(found.to_json()) == found
    with pytest.raises(DataError, match="Not a sensitivity"):
        Sensitivity.from_json({"schema_version": 0})
