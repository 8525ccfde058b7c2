# SPDX-License-Identifier: Apache-2.0
"""Every network of the zoo: prepared, calibrated, fine-tuned, copied, saved."""

import copy
from functools import cache

import pytest
import torch
from tests.networks.zoo import IMAGE, ZOO, make
from torch import nn
from torch.nn import functional as F

from bitscout.core import QuantPolicy
from bitscout.quantization import (
    QuantizedLayer,
    kept_in_float,
    layer_names,
    layer_sites,
    post_training_quantize,
    prepare,
    scale_sites,
)


def images(n=16, seed=0):
    return torch.randn(n, *IMAGE, generator=torch.Generator().manual_seed(seed))


def policy_for(net, x, bits=8):
    return QuantPolicy.uniform(layer_names(net, x[:2]), bits)


@cache
def quantized_zoo(name):
    """Return a network of the zoo in 8 bits; not to be changed."""
    net, x = make(name), images()
    return post_training_quantize(net, policy_for(net, x), x)


@pytest.mark.parametrize("name", ZOO)
def test_what_is_called_supported_is_prepared_and_stays_close(name):
    net, x = make(name), images()
    sites = layer_sites(net, x[:2])
    assert all(site.is_supported for site in sites.values())
    quantized = quantized_zoo(name)
    layers = [m.name for m in quantized.modules() if isinstance(m, QuantizedLayer)]
    assert set(layers) == {*sites, *scale_sites(net, x[:2])}
    assert len(layers) == len(set(layers))
    with torch.no_grad():
        real, y = net(x), quantized(x)
    # 25 quantizers in a row at most, each with an error of about 0.3 % of its range.
    assert (y - real).norm() < 25 * 0.003 * real.norm()


@pytest.mark.parametrize("name", ZOO)
def test_a_prepared_network_is_an_ordinary_module(name):
    net, x, quantized = make(name), images(), quantized_zoo(name)
    y = quantized(x)
    assert torch.equal(copy.deepcopy(quantized)(x), y)
    other = prepare(net, policy_for(net, x), x[:2])
    other.load_state_dict(quantized.state_dict())
    assert torch.equal(other(x), y)
    with torch.inference_mode():
        assert torch.equal(quantized(x), y)


@pytest.mark.parametrize("name", ZOO)
def test_one_step_of_fine_tuning_moves_every_parameter_that_runs(name):
    quantized, x = copy.deepcopy(quantized_zoo(name)).train(), images()
    # Blocks that are left out at random get a gradient in one of many passes.
    for _ in range(20 if name == "stochastic-depth" else 1):
        F.cross_entropy(quantized(x), torch.arange(len(x)) % 10).backward()
    for path, parameter in quantized.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, path
        assert parameter.grad is None or parameter.grad.isfinite().all(), path


def test_parameters_of_no_layer_are_listed():
    kept = kept_in_float(make("transformer"), images(2))
    assert [(one.path, one.kind, one.n_parameters) for one in kept] == [
        ("", "Transformer", 8 + 5 * 8),
        ("norm1", "LayerNorm", 16),
        ("norm2", "LayerNorm", 16),
    ]
    assert kept_in_float(make("residual"), images(2)) == ()


def test_norms_without_a_layer_in_front_are_listed_with_their_channels():
    names = scale_sites(make("pre-activation"), images(2))
    assert names == {"blocks.0.bn1": 8, "blocks.1.bn1": 8, "bn": 12}


def test_attention_with_weights_of_its_own_stays_real_and_is_listed():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, 4)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x):
            return self.encoder(self.embed(x).flatten(2).mT).mean(1)

    net, x = Encoder().eval(), images(8)
    sites = layer_sites(net, x)
    attention = sites["encoder.layers.0.self_attn.out_proj"]
    assert attention.stays_real
    assert "belongs to a MultiheadAttention" in attention.reason
    kept = {one.path: one.n_parameters for one in kept_in_float(net, x)}
    assert kept["encoder.layers.0.self_attn"] == 4 * (8 * 8 + 8)
    quantized = post_training_quantize(net, policy_for(net, x, 2), x)
    # PyTorch's fast path would compute with the real weights of the layers in evaluation.
    with torch.no_grad():
        fast = quantized(x)
    torch.testing.assert_close(fast, quantized(x).detach(), rtol=1e-5, atol=1e-6)
