"""Quantizing and lowering a network in a test, and what it computes on either side."""

from __future__ import annotations

import numpy as np
import torch

from bitscout.core import LayerBits, QuantPolicy
from bitscout.export.agreement import to_integers
from bitscout.export.lowering import lower_with_reads
from bitscout.export.reference import Reference
from bitscout.quantization import QuantConfig, layer_names, post_training_quantize


def images_like(shape, n=24, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def random_policy(net, seed, low=2, high=8):
    rng = np.random.default_rng(seed)
    bits = rng.integers(low, high + 1, (len(layer_names(net)), 2)).tolist()
    return QuantPolicy({n: LayerBits(*b) for n, b in zip(layer_names(net), bits, strict=True)})


def quantized(net, x, seed=0, *, policy=None, **config):
    policy = policy or random_policy(net, seed)
    return post_training_quantize(net, policy, x, QuantConfig(**config)).eval()


def integers(module, x):
    """The reference's integers, the network's on the same grid, and the lowering.

    Codes of the image are made in the module's own precision.
    """
    lowered = lower_with_reads(module, x)
    graph = lowered.graph
    with torch.no_grad():
        reals = module(x).numpy()
    codes = {
        op.name: (x / float(op.grid.scale))
        .round()
        .clamp(op.grid.quant_min, op.grid.quant_max)
        .numpy()
        .astype(np.int64)
        for op in graph.inputs
    }
    return Reference(graph).run_codes(codes), to_integers(graph, reals), lowered


def assert_equal_integers(module, x):
    """In the module's own precision: not one integer differs."""
    wanted, came, lowered = integers(module, x)
    np.testing.assert_array_equal(wanted, came)
    return lowered
