"""Running statistics estimated anew."""

import pytest
import torch
from torch import nn

from bitscout.networks import recalibrate_batch_norm


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.9))


def batches(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 2, 4, 4, generator=generator) for n in sizes]


def test_statistics_become_the_plain_average_over_batches():
    module, images = network(), batches(5, 5, 5)
    with torch.no_grad():
        outputs = [module[0](batch) for batch in images]
    recalibrate_batch_norm(module, images)
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0)
    variances = torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0)
    torch.testing.assert_close(module[1].running_mean, means)
    torch.testing.assert_close(module[1].running_var, variances)


def test_one_tensor_is_one_batch_and_leaves_nothing_of_before():
    module, (images,) = network(), batches(6)
    module[1].running_mean.fill_(100)
    recalibrate_batch_norm(module, images)
    with torch.no_grad():
        expected = module[0](images).mean((0, 2, 3))
    torch.testing.assert_close(module[1].running_mean, expected)


def test_a_later_norm_sees_images_normalized_by_the_one_before_it():
    module = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    module[0].running_var.fill_(1e6)
    recalibrate_batch_norm(module, batches(64))
    torch.testing.assert_close(module[1].running_var, torch.ones(2), rtol=0, atol=1e-2)


@pytest.mark.parametrize("mode", [True, False])
def test_modes_momenta_and_weights_stay(mode):
    module = network().train(mode)
    module[2].train(not mode)
    weights = [p.clone() for p in module.parameters()]
    recalibrate_batch_norm(module, batches(2, 2))
    assert [part.training for part in module.modules()] == [mode, mode, mode, not mode]
    assert module[1].momentum == 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))


def test_norms_without_statistics_and_no_batches_change_nothing():
    module = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2))
    recalibrate_batch_norm(module, [])
    assert module[1].running_mean.tolist() == [0, 0]
    recalibrate_batch_norm(module, batches(3))
    assert module[0].running_mean is None


def test_modes_come_back_after_a_failure():
    module = network().train()
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(module, torch.zeros(2, 5, 4, 4))
    assert module.training
    assert module[1].momentum == 0.3
