# SPDX-License-Identifier: Apache-2.0
"""Losses, as far as a trace of their curvature needs to know them.

Notation:

    z    outputs of the network for one image, shape ``(C,)``
    A    Hessian of the loss of one image with respect to ``z``
    v    random vectors with ``E[v v^T] = A``

The Gauss-Newton matrix of one image is ``J^T A J`` with ``J = dz/dw``, so that its trace is
``E ||J^T v||^2``: the squared norm of a gradient, for which one backward pass is enough.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CrossEntropy", "Loss", "SquaredError"]


class Loss(ABC):
    """A loss that is a mean over images.

    Attributes:
        name: What results call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape ``(N,)``, differentiable.

        Args:
            outputs: ``z``, shape ``(N, C)``.
            labels: One for each image.
        """

    @abstractmethod
    def factors(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        """Return vectors ``v`` whose mean outer product is ``A``, in expectation.

        Args:
            outputs: ``z``, shape ``(N, C)``.
            draws: Vectors for each image. With ``C`` or more there are ``C`` of them, not drawn,
                and their mean outer product is ``A`` itself.
            generator: Of the draws, on the CPU.

        Returns:
            Shape ``(min(draws, C), N, C)``, detached.
        """


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-log softmax(z)[label]``, whose ``A = diag(p) - p p^T`` does not depend on the label.

    A draw is the gradient for a label drawn from the model, ``p - e_y``. The labels of one image
    are drawn systematically (equally spaced quantiles from one random start): each has the
    model's distribution, and together they cover it better than independent ones.
    """

    name: ClassVar[str] = "cross_entropy"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the negative log-likelihood of each label."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def factors(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        """Return ``p - e_y`` for drawn labels, or ``sqrt(C p_c) (p - e_c)`` for every class."""
        p = outputs.detach().softmax(dim=1)
        n_images, n_classes = p.shape
        if draws >= n_classes:
            eye = torch.eye(n_classes, dtype=p.dtype, device=p.device)
            return (p[None] - eye[:, None]) * (n_classes * p.T[:, :, None]).sqrt()
        start = torch.rand((n_images, 1), generator=generator).to(p)
        quantiles = (torch.arange(draws, dtype=p.dtype, device=p.device) + start) / draws
        labels = torch.searchsorted(p.cumsum(dim=1), quantiles).clamp_(max=n_classes - 1)
        return p[None] - F.one_hot(labels.T, n_classes).to(p.dtype)


@dataclass(frozen=True)
class SquaredError(Loss):
    """``sum_c (z_c - label_c)^2``, whose ``A`` is twice the identity."""

    name: ClassVar[str] = "squared_error"

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the squared distance of each output, labels of shape ``(N, C)``."""
        return (outputs - labels).square().sum(dim=1)

    def factors(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        """Return ``sqrt(2)`` times random signs, or ``sqrt(2 C) e_c`` for every output."""
        n_images, n_outputs = outputs.shape
        if draws >= n_outputs:
            eye = torch.eye(n_outputs, dtype=outputs.dtype, device=outputs.device)
            return eye[:, None].expand(-1, n_images, -1) * sqrt(2 * n_outputs)
        signs = torch.randint(0, 2, (draws, n_images, n_outputs), generator=generator)
        return (signs * 2 - 1).to(outputs) * sqrt(2)
