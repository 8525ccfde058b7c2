# SPDX-License-Identifier: Apache-2.0
"""Residual addition as a module, so that quantization can find it and replace it."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Add"]


class Add(nn.Module):
    """Add two tensors of the same shape.

    A network that writes ``a + b`` in its ``forward`` hides the operation from `prepare`; one that
    calls an `Add` has both operands quantized to integer codes. Use one instance per addition.

    Example:
        >>> import torch
        >>> Add()(torch.tensor([1.0]), torch.tensor([2.0]))
        tensor([3.])
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return ``a + b``."""
        return a + b
