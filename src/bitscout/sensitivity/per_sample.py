# SPDX-License-Identifier: Apache-2.0
"""Squared norms of the gradients of single images, layer by layer.

Notation, for one layer, one image and one draw:

    U    patches the weights meet, ``(groups, K, P)``: K weights of a filter, P positions
    G    gradient at the layer's output, ``(groups, O, P)``: O filters of a group

The gradient of the weights is ``G U^T``, and only its squared norm is wanted: either directly, or
as ``sum((U^T U) * (G^T G))`` where there are fewer positions than weights. Both are exact.

Layers are watched from outside, so that a network may have any Python in its ``forward``: what
each reads and the gradient at what it writes are enough. This is compared with automatic
differentiation on the first images; where a network uses weights past their layers, or mixes
images in the batch dimension, automatic differentiation of one image at a time does it all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.errors import UnsupportedError
from bitscout.sensitivity.subject import Subject

__all__ = ["Norms", "autograd_norms", "is_watchable", "watched_norms"]

MAX_ELEMENTS: Final = 2**25  # Of a temporary tensor: 128 MiB.
# Agreement with automatic differentiation: rounding is some 1e-5, a wrong formula of order 1.
AGREEMENT: Final = 1e-2

Factors = Callable[[Tensor], Tensor]
_Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Norms:
    """Squared gradient norms of one layer.

    Attributes:
        weights: Of the layer's weights, shape ``(draws, N)``, float64.
        inputs: Of what the layer reads, shape ``(draws, N)``; `None` if unknown.
        n_inputs: Values it reads for one image.
    """

    weights: Tensor
    inputs: Tensor | None = None
    n_inputs: int = 0


@dataclass
class _Use:
    """One call of one layer."""

    x: Tensor
    version: int
    output_grads: list[Tensor] = field(default_factory=list)
    input_norms: list[Tensor] = field(default_factory=list)


def watched_norms(subject: Subject, images: Tensor, factors: Factors) -> dict[str, Norms]:
    """Return the norms for the output gradients that `factors` gives, from one forward pass.

    Args:
        subject: The network.
        images: Shape ``(N, *)``.
        factors: From outputs ``(N, C)`` to gradients at them, ``(draws, N, C)``.

    Returns:
        The norms of every layer; zeros for one that does not run.
    """
    with torch.enable_grad(), _watching(subject.layers, len(images)) as uses:
        outputs = subject.outputs(images)
        vectors = factors(outputs.detach())
        for index, factor in enumerate(vectors):
            is_last = index + 1 == len(vectors)
            if outputs.requires_grad:
                torch.autograd.backward(outputs, factor, retain_graph=not is_last)
    return {
        name: _norms(layer, uses[name], len(vectors), len(images))
        for name, layer in subject.layers.items()
    }


def autograd_norms(subject: Subject, images: Tensor, factors: Factors) -> dict[str, Norms]:
    """Return the same norms by automatic differentiation, one image at a time.

    Raises:
        UnsupportedError: If the network cannot be differentiated.
    """
    weights = [layer.weight for layer in subject.layers.values()]
    with torch.no_grad():
        vectors = factors(subject.outputs(images))
    norms = torch.zeros(len(weights), *vectors.shape[:2], dtype=torch.float64)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for n in range(len(images)):
            outputs = subject.outputs(images[n : n + 1])
            for s, factor in enumerate(vectors[:, n : n + 1]):
                grads = torch.autograd.grad(
                    outputs, weights, factor, retain_graph=True, allow_unused=True
                )
                for index, grad in enumerate(grads):
                    if grad is not None:
                        norms[index, s, n] = grad.double().square().sum().cpu()
    except RuntimeError as error:
        msg = f"The network cannot be differentiated: {error}"
        raise UnsupportedError(msg) from error
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    return {name: Norms(norm) for name, norm in zip(subject.layers, norms, strict=True)}


def is_watchable(subject: Subject, images: Tensor, factors: Factors) -> bool:
    """Return whether `watched_norms` equals `autograd_norms` on these images."""
    with torch.no_grad():
        vectors = factors(subject.outputs(images))
    try:
        watched = watched_norms(subject, images, lambda _: vectors)
    except (_UnwatchableError, RuntimeError):
        return False
    for name, expected in autograd_norms(subject, images, lambda _: vectors).items():
        difference = (watched[name].weights - expected.weights).abs().max()
        if not difference <= AGREEMENT * expected.weights.max():
            return False
    return True


class _UnwatchableError(Exception):
    """A layer is used in a way that cannot be followed from outside."""


@contextmanager
def _watching(layers: dict[str, _Layer], n_images: int) -> Iterator[dict[str, list[_Use]]]:
    uses: dict[str, list[_Use]] = {name: [] for name in layers}
    handles = []

    def before(name: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or len(inputs[0]) % n_images:
            raise _UnwatchableError(name)
        x = inputs[0]
        use = _Use(x.detach(), x._version)
        uses[name].append(use)
        # An alias of its own, so that its gradient is that of this reader alone.
        alias = x.view_as(x) if x.requires_grad else x.detach().requires_grad_(True)
        alias.register_hook(  # type: ignore[no-untyped-call]
            lambda grad: use.input_norms.append(_squared(grad, n_images))
        )
        return (alias,)

    def after(name: str, output: Tensor) -> None:
        use = uses[name][-1]
        # NOTE: on the tensor, not the module: an in-place activation behind it is no obstacle.
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda grad: use.output_grads.append(grad.detach())
        )

    for name, layer in layers.items():
        handles.append(
            layer.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs))
        )
        handles.append(
            layer.register_forward_hook(lambda _, __, output, name=name: after(name, output))
        )
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _squared(grad: Tensor, n_images: int) -> Tensor:
    return grad.detach().reshape(n_images, -1).double().square().sum(dim=1).cpu()


def _norms(layer: _Layer, uses: list[_Use], draws: int, n_images: int) -> Norms:
    used = [use for use in uses if use.output_grads]
    n_inputs = sum(use.x.numel() for use in uses) // n_images
    total = torch.zeros(draws, n_images, dtype=torch.float64)
    if not used:
        return Norms(total, total, n_inputs)
    if any(len(use.output_grads) != draws or use.x._version != use.version for use in used):
        raise _UnwatchableError
    inputs = torch.stack([torch.stack(use.input_norms) for use in used]).sum(dim=0)
    size = _images_at_once(layer, used, draws, n_images)
    for start in range(0, n_images, size):
        part = slice(start, min(start + size, n_images))
        pairs = [_patches_and_grads(layer, use, part, n_images) for use in used]
        # Uses of the same weights add up: they are further positions.
        patches = torch.cat([patches for patches, _ in pairs], dim=-1)
        grads = torch.cat([grads for _, grads in pairs], dim=-1)
        total[:, part] = _squared_products(patches, grads).double().cpu()
    return Norms(total, inputs, n_inputs)


def _images_at_once(layer: _Layer, uses: list[_Use], draws: int, n_images: int) -> int:
    """Return how many images keep every temporary tensor within bounds."""
    filters, filter_size = layer.weight.shape[0], prod(layer.weight.shape[1:])
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    positions = sum(use.output_grads[0].numel() for use in uses) // (n_images * filters)
    product = min(draws * filters * filter_size, (1 + draws) * groups * positions**2)
    largest = max(product, groups * filter_size * positions, draws * filters * positions)
    return max(1, MAX_ELEMENTS // max(largest, 1))


def _patches_and_grads(
    layer: _Layer, use: _Use, part: slice, n_images: int
) -> tuple[Tensor, Tensor]:
    """Return ``U`` as ``(n, groups, K, P)`` and ``G`` as ``(draws, n, groups, O, P)``."""
    x = use.x.reshape(n_images, -1, *use.x.shape[1:])[part]
    grads = torch.stack(
        [grad.reshape(n_images, -1, *grad.shape[1:])[part] for grad in use.output_grads]
    )
    n = len(x)
    if isinstance(layer, nn.Linear):
        patches = x.reshape(n, 1, -1, layer.in_features).transpose(2, 3)
        return patches, grads.reshape(len(grads), n, 1, -1, layer.out_features).transpose(3, 4)
    repeats = x.shape[1]
    columns = _columns(layer, x.flatten(0, 1))
    columns = columns.reshape(n, repeats, layer.groups, -1, columns.shape[-1])
    filters = layer.out_channels // layer.groups
    grads = grads.reshape(len(grads), n, repeats, layer.groups, filters, -1)
    return columns.movedim(1, 3).flatten(3), grads.movedim(2, 4).flatten(4)


def _columns(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the patches of a convolution, shape ``(N, C * kh * kw, P)``."""
    padding = layer._reversed_padding_repeated_twice
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, padding, mode=mode)
    if layer.kernel_size == (1, 1):
        return x[:, :, :: layer.stride[0], :: layer.stride[1]].flatten(2)
    return F.unfold(x, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)


def _squared_products(patches: Tensor, grads: Tensor) -> Tensor:
    """Return ``||G U^T||^2`` for each draw and image, shape ``(draws, n)``."""
    draws, n, groups, filters, positions = grads.shape
    filter_size = patches.shape[2]
    direct = draws * filters * filter_size * positions
    gram = positions**2 * (filter_size + draws * filters)
    if direct <= gram:
        stacked = grads.movedim(0, 2).reshape(n, groups, draws * filters, positions)
        products = stacked @ patches.transpose(2, 3)
        return products.reshape(n, groups, draws, -1).square().sum(dim=(1, 3)).T
    patch_gram = patches.transpose(2, 3) @ patches
    grad_gram = grads.transpose(3, 4) @ grads
    return (grad_gram * patch_gram).sum(dim=(2, 3, 4))
