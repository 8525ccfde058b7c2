# SPDX-License-Identifier: Apache-2.0
"""Small strided 1x1 convolutions compute and learn the same without their stride."""

import pytest
import torch
from torch import nn

from bitscout.core import QuantPolicy
from bitscout.quantization import layer_names, post_training_quantize
from bitscout.training.strides import unit_strides


def network(channels):
    return nn.Sequential(
        nn.Conv2d(channels, 12, 1, stride=2, bias=False), nn.ReLU(), nn.Conv2d(12, 4, 3, stride=2)
    )


def gradients(module, images):
    module.zero_grad()
    module(images).square().sum().backward()
    return [p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("channels", [6, 8])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_outputs_and_gradients_are_the_same(channels, is_quantized):
    images = torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    module = network(channels)
    if is_quantized:
        policy = QuantPolicy.uniform(layer_names(module), 4)
        module = post_training_quantize(module, policy, images)
    # Not in `channels_last`, in which the plain way may end the process.
    expected = module(images)
    expected_gradients = gradients(module, images)
    with unit_strides(module):
        assert module[0].stride == ((1, 1) if channels < 8 else (2, 2))
        assert torch.equal(module(images), expected) or torch.allclose(module(images), expected)
        for found, wanted in zip(gradients(module, images), expected_gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert module[0].stride in (2, (2, 2))
    assert not module[0]._forward_pre_hooks


def test_the_fault_does_not_end_a_training():
    images = torch.randn(32, 6, 8, 8).to(memory_format=torch.channels_last)
    module = network(6).to(memory_format=torch.channels_last)
    with unit_strides(module):
        for _ in range(5):
            gradients(module, images)
