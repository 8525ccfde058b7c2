# SPDX-License-Identifier: Apache-2.0
"""Batch-norm folding: closed form, third-party style networks, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from bitscout.errors import UnsupportedError
from bitscout.quantization import (
    MaxAbsObserver,
    MseObserver,
    fake_quantize,
    fold_batch_norm,
    integer_range,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seasoned(module, seed=0):
    """Give every batch norm statistics and weights of a trained network, signs included."""
    generator = torch.Generator().manual_seed(seed)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = child.running_mean.shape
            child.running_mean.copy_(torch.randn(shape, generator=generator))
            child.running_var.copy_(torch.rand(shape, generator=generator) + 0.1)
            if child.affine:
                child.weight.data.copy_(torch.randn(shape, generator=generator))
                child.bias.data.copy_(torch.randn(shape, generator=generator))
    return module


def assert_folds(module, x):
    seasoned(module).eval()
    original = copy.deepcopy(module)
    fold_batch_norm(module, x)
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in module.modules())
    # Float32 sums of at most 100 terms in another order.
    torch.testing.assert_close(module(x), original(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_affine", [True, False])
def test_folded_convolution_gives_the_outputs_of_the_pair(has_bias, is_affine):
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=has_bias), nn.BatchNorm2d(5, affine=is_affine)
    )
    assert_folds(net, randn(4, 3, 6, 6))


def test_folded_weight_and_bias_are_the_closed_form():
    net = seasoned(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=0.01)))
    conv, norm = copy.deepcopy(net[0]), net[1]
    fold_batch_norm(net, randn(2, 2, 3, 3))
    factor = norm.weight / (norm.running_var + 0.01).sqrt()
    torch.testing.assert_close(net[0].weight, conv.weight * factor[:, None, None, None])
    expected = norm.bias + (conv.bias - norm.running_mean) * factor
    torch.testing.assert_close(net[0].bias, expected)


def test_linear_depthwise_and_grouped_layers_fold():
    assert_folds(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), randn(8, 4))
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 1, groups=2),
        nn.BatchNorm2d(6),
    )
    assert_folds(net, randn(2, 4, 5, 5))


class ThirdParty(nn.Module):
    """Names, functional activations and order of definition as other people write them."""

    def __init__(self):
        super().__init__()
        self.zz_norm2 = nn.BatchNorm2d(4)
        self.aa_norm1 = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.shared_act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.shared_act(self.aa_norm1(self.first(x)))
        return y + torch.relu(self.zz_norm2(self.second(self.shared_act(y))))


def test_pairs_are_found_by_the_flow_of_tensors_and_not_by_names():
    assert_folds(ThirdParty(), randn(2, 3, 5, 5))


def test_mode_of_every_module_is_kept_and_statistics_do_not_move():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[2].eval()
    norm = net[1]
    fold_batch_norm(net, randn(2, 3, 4, 4))
    assert [child.training for child in net] == [True, True, False]
    assert norm.num_batches_tracked == 0


def test_network_without_batch_norm_is_left_alone():
    net = nn.Linear(3, 2)
    weight = net.weight
    fold_batch_norm(net, randn(2, 3))
    assert net.weight is weight


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class NormTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.norm(self.conv(x)))


class ConvTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.conv(x)))


class ActivatedNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (ReadTwice(), "'norm' cannot be folded into 'conv': something else reads"),
        (NormTwice(), "'norm' runs 2 times"),
        (ConvTwice(), "'norm' reads layer 'conv', which runs several times"),
        (nn.Sequential(nn.BatchNorm2d(3)), "'0' reads 'the input of the network'"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), "'2' reads '1', not"),
    ],
)
def test_what_cannot_be_folded_is_left_and_named(net, message):
    before = copy.deepcopy(net.state_dict())
    (reason,) = fold_batch_norm(net, randn(2, 3, 4, 4)).left.values()
    assert message in reason
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(3, track_running_stats=False), ActivatedNorm(3), nn.InstanceNorm2d(3)]
)
def test_what_is_more_or_less_than_a_batch_norm_is_left(norm):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), norm)
    assert fold_batch_norm(net, randn(2, 3, 4, 4)) == ({}, {})
    assert net[1] is norm


def test_layer_that_does_more_than_its_weights_say_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[0].register_forward_hook(lambda _module, _inputs, result: result * 2)
    net[1].running_mean.fill_(1)
    with pytest.raises(UnsupportedError, match="'1' into '0' changed its output"):
        fold_batch_norm(net, randn(2, 3, 4, 4))


def test_broken_statistics_are_refused_by_name():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[1].running_var.fill_(torch.nan)
    with pytest.raises(UnsupportedError, match="'1' gives NaN or infinite"):
        fold_batch_norm(net, randn(2, 3, 4, 4))


def equivariance_gap(observer, factor, *, narrow=True, per_tensor=False):
    """Largest difference of a * Q(W) and Q(a * W), over the largest value."""
    weight = randn(6, 27, seed=3)
    low, high = integer_range(4, narrow_range=narrow)

    def quantized(w):
        rows = w.reshape(1, -1) if per_tensor else w
        scale = observer.scales(rows, high)[:, None].expand(6, 1)
        if not narrow:  # Full range: the step covers 2**b levels, lopsided around 0.
            scale = scale * (2 * high) / (2 * high + 1)
        return fake_quantize(w, scale, torch.tensor(0.0), quant_min=low, quant_max=high)

    scaled = quantized(weight * factor)
    return float((factor * quantized(weight) - scaled).abs().max() / scaled.abs().max())


FACTOR = torch.tensor([-1.7, 0.3, -0.02, 5.1, 1.0, -9.3])[:, None]


@pytest.mark.parametrize("observer", [MaxAbsObserver(), MseObserver()])
def test_quantize_then_normalise_equals_quantizing_the_folded_weights(observer):
    # Specification 5.3, negative factors included; a rounding tie may break either way only
    # where a float32 product lands within an ulp of it, which these values do not.
    assert equivariance_gap(observer, FACTOR) < 1e-6


def test_equivariance_does_not_hold_for_the_full_range():
    assert equivariance_gap(MaxAbsObserver(), FACTOR, narrow=False) > 0.01


def test_equivariance_does_not_hold_per_tensor():
    assert equivariance_gap(MaxAbsObserver(), FACTOR, per_tensor=True) > 0.01
