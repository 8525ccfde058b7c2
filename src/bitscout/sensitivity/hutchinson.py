# SPDX-License-Identifier: Apache-2.0
"""Hutchinson's estimate of the trace of the Hessian, one layer at a time.

Notation, for the weights of one layer and one chunk of the images:

    H    Hessian of the chunk's mean loss, so that the mean over chunks is that of all images
    v    vector of random signs; ``E[v^T H v] = tr H``, exact for a diagonal ``H``

The trace is linear, so that every chunk may have vectors of its own: the error of many chunks is
that of many vectors. Probing all layers with one vector would give all traces at once, but with
the noise of the blocks between layers on top, up to 400 times the variance of a layer's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitscout.core import child_seed
from bitscout.errors import TrainingError, UnsupportedError
from bitscout.sensitivity.subject import Subject, full_precision
from bitscout.training import torch_generator

__all__ = ["Probes", "probe_layer"]


@dataclass(frozen=True)
class Probes:
    """What the probes of one layer came to.

    Attributes:
        trace: Mean over chunks and probes.
        standard_error: From the spread of the chunks, for the distribution of the images.
        probe_error: From the spread of the probes within each chunk.
        n_probes: Probes of each chunk.
    """

    trace: float
    standard_error: float
    probe_error: float
    n_probes: int


def probe_layer(  # one a setting
    subject: Subject,
    name: str,
    *,
    tolerance: float,
    min_probes: int,
    max_probes: int,
    chunk_size: int,
    seed: int,
) -> Probes:
    """Estimate the trace of one layer.

    Rounds of `min_probes` for every chunk, until the probe error is at most `tolerance` times the
    trace's magnitude or there were `max_probes`. The graph of a chunk is built once a round.

    Raises:
        TrainingError: If a product is not finite.
        UnsupportedError: If the network cannot be differentiated twice.
    """
    generator = torch_generator(child_seed(seed, "hessian", name))
    sizes = np.array([len(labels) for _, labels in subject.chunks(chunk_size)], dtype=float)
    shares = sizes / sizes.sum()
    found = np.empty((len(sizes), 0))
    while True:
        count = min(min_probes, max_probes - found.shape[1])
        new = [
            _products(subject, name, images, labels, count, generator)
            for images, labels in subject.chunks(chunk_size)
        ]
        found = np.concatenate([found, np.array(new)], axis=1)
        probes = _summary(found, shares)
        if not math.isfinite(probes.trace):
            msg = (
                f"Layer {name!r}: a product with the Hessian is {probes.trace}. Look for a "
                f"diverged training, or use the estimator gauss_newton."
            )
            raise TrainingError(msg)
        is_known = probes.probe_error <= tolerance * abs(probes.trace)
        if is_known or found.shape[1] >= max_probes:
            return probes


def _summary(found: np.ndarray, shares: np.ndarray) -> Probes:
    n_chunks, n_probes = found.shape
    means = found.mean(axis=1)
    trace = float(shares @ means)
    variances = found.var(axis=1, ddof=1) / n_probes if n_probes > 1 else means**2
    probe_error = math.sqrt(float(shares**2 @ variances))
    error = probe_error
    if n_chunks > 1:
        # The spread of the chunk means holds the probes' noise and the images'.
        spread = float(shares @ (means - trace) ** 2) * n_chunks / (n_chunks - 1)
        error = max(error, math.sqrt(spread * float((shares**2).sum())))
    return Probes(trace, error, probe_error, n_probes)


def _products(
    subject: Subject,
    name: str,
    images: Tensor,
    labels: Tensor,
    count: int,
    generator: torch.Generator,
) -> list[float]:
    """Return ``v^T H v`` for `count` vectors on one chunk."""
    weight = subject.layers[name].weight
    weight.requires_grad_(True)  # Of this layer only: nothing before it is differentiated.
    try:
        with full_precision(), torch.enable_grad():
            loss = subject.loss.values(subject.outputs(images), labels).mean()
            return [
                _product(grad, weight, generator)
                for grad in [_gradient(loss, weight)]
                for _ in range(count)
            ]
    except RuntimeError as error:
        msg = (
            f"Layer {name!r}: the network cannot be differentiated twice: {error}. Use the "
            f"estimator gauss_newton, which differentiates once."
        )
        raise UnsupportedError(msg) from error
    finally:
        weight.requires_grad_(False)


def _gradient(loss: Tensor, weight: Tensor) -> Tensor | None:
    if not loss.requires_grad:
        return None
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss, weight, create_graph=True, allow_unused=True
    )
    return found[0]


def _product(grad: Tensor | None, weight: Tensor, generator: torch.Generator) -> float:
    signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
    if grad is None or not grad.requires_grad:
        return 0.0  # The loss is linear in this layer, or does not see it.
    v = signs.to(weight)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        grad, weight, v, retain_graph=True, allow_unused=True
    )
    return 0.0 if found[0] is None else float((found[0] * v).double().sum())
