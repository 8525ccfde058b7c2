# SPDX-License-Identifier: Apache-2.0
"""Affine (uniform) quantization primitives and their surrogate gradients.

Notation, used by every function in this module:

    x            real-valued tensor, any shape
    q            integer code, stored in a floating dtype, ``quant_min <= q <= quant_max``
    scale        real step size, > 0, broadcastable to ``x``
    zero_point   integer code of the real value 0, broadcastable to ``x``

The codes are ``q = clamp(round(x / scale) + zero_point)`` and stand for the real values
``x_hat = (q - zero_point) * scale``, Eq. (1) of [Jacob2018]_. ``round`` is half-to-even.

Networks use ``zero_point = 0`` throughout: weights are signed and symmetric, activations unsigned
where nothing negative arrives and signed and symmetric elsewhere. `fixed_step` and `learned_step`
are the two quantizers they are built of; `fake_quantize` is the general, plain form of the first.

References:
    .. [Jacob2018] B. Jacob et al. Quantization and Training of Neural Networks for Efficient
       Integer-Arithmetic-Only Inference. CVPR 2018. https://arxiv.org/abs/1712.05877
    .. [Esser2020] S. K. Esser et al. Learned Step Size Quantization. ICLR 2020.
       https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitscout.errors import ConfigError

__all__ = [
    "INT32_MAX",
    "fake_quantize",
    "fixed_step",
    "integer_range",
    "learned_step",
    "round_to_codes",
    "straight_through_bounds",
]

MAX_BIT_WIDTH = 16  # Codes travel in float32, which is exact for integers up to 2**24.
INT32_MAX = 2**31 - 1


def integer_range(
    bit_width: int, *, signed: bool = True, narrow_range: bool = False
) -> tuple[int, int]:
    """Return the inclusive integer code range of a quantizer.

    Args:
        bit_width: Number of bits, in ``[2, 16]``.
        signed: Use two's complement codes rather than ``[0, 2**bit_width - 1]``.
        narrow_range: Drop the most negative code so that the range is symmetric. Required by
            accelerators that multiply without a correction term for ``-2**(bit_width - 1)``.

    Returns:
        ``(quant_min, quant_max)``.

    Raises:
        ConfigError: If ``bit_width`` is outside ``[2, 16]``, or ``narrow_range`` is requested for
            unsigned codes.

    Example:
        >>> integer_range(4)
        (-8, 7)
        >>> integer_range(4, narrow_range=True)
        (-7, 7)
        >>> integer_range(8, signed=False)
        (0, 255)
    """
    if not 2 <= bit_width <= MAX_BIT_WIDTH:
        msg = f"`bit_width` must be in [2, {MAX_BIT_WIDTH}], got {bit_width}."
        raise ConfigError(msg)
    if narrow_range and not signed:
        msg = "`narrow_range` needs signed codes: an unsigned range has no extra negative code."
        raise ConfigError(msg)
    if not signed:
        return 0, 2**bit_width - 1
    quant_max = 2 ** (bit_width - 1) - 1
    return -quant_max - (not narrow_range), quant_max


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, *, quant_min: int, quant_max: int
) -> Tensor:
    """Quantize then dequantize ``x``, passing gradients straight through inside the range.

    The backward pass is the clipped straight-through estimator [Bengio2013]_: the gradient with
    respect to ``x`` is 1 where the code was not clamped and 0 where it was. ``scale`` and
    ``zero_point`` get no gradient here; use `learned_step` to learn the step size. Infinities
    saturate to the end of the range and NaN stays NaN, both with gradient 0.

    Args:
        x: Tensor of shape ``(*)``.
        scale: Positive step size, broadcastable to ``x``, in the unit of ``x``: a scalar for a
            per-tensor quantizer, shape ``(C, 1, 1, 1)`` for a per-channel one.
        zero_point: Integer-valued, broadcastable to ``x``.
        quant_min: Smallest code, inclusive.
        quant_max: Largest code, inclusive.

    Returns:
        Tensor of shape ``(*)``, same dtype and device as ``x``, taking at most
        ``quant_max - quant_min + 1`` distinct values per ``(scale, zero_point)`` pair.

    Example:
        >>> x = torch.tensor([-1.0, 0.04, 0.26, 9.0])
        >>> fake_quantize(x, torch.tensor(0.1), torch.tensor(0.0), quant_min=-8, quant_max=7)
        tensor([-0.8000,  0.0000,  0.3000,  0.7000])

    References:
        .. [Bengio2013] Y. Bengio, N. Leonard, A. Courville. Estimating or Propagating Gradients
           Through Stochastic Neurons. https://arxiv.org/abs/1308.3432
    """
    code = torch.round(x / scale) + zero_point
    clamped = code.clamp(quant_min, quant_max)
    x_hat = (clamped - zero_point) * scale
    # `x - x.detach()` is 0 with gradient 1. NOTE: `where`, not `* mask`: inf * 0 would be NaN.
    straight_through = torch.where(code == clamped, x - x.detach(), 0.0)
    return x_hat.detach() + straight_through


def round_to_codes(x: Tensor, scale: Tensor | float, quant_min: int, quant_max: int) -> Tensor:
    """Return the codes of ``x`` (zero point 0) as floats, in one allocation and three passes.

    In-place passes beat PyTorch's fused kernel on a CPU: a training step takes 0.77 to 1.07 times
    a real one with these and 1.54 to 1.69 with ``fake_quantize_per_tensor_affine``
    (benchmarks/quant_step.py).
    """
    return torch.div(x, scale).round_().clamp_(quant_min, quant_max)


def straight_through_bounds(scale: float, quant_min: int, quant_max: int) -> tuple[float, float]:
    """Return the open interval of ``x`` whose codes are not clamped.

    ``round(x / scale)`` stays in range for ``x`` up to half a step beyond the last code. At
    exactly half a step a half-to-even round leaves the range, because the last codes
    ``2**b - 1`` and ``-(2**(b-1) - 1)`` are odd; only code 0 of an unsigned range is even, and
    there the boundary point itself gets gradient 0 instead of 1.
    """
    return (quant_min - 0.5) * scale, (quant_max + 0.5) * scale


class _FixedStep(torch.autograd.Function):
    """Zero-point-free `fake_quantize` saving nothing but its input."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's own signature
        x: Tensor,
        scale: Tensor | float,
        quant_min: int,
        quant_max: int,
        bounds: tuple[float, float] | None,
    ) -> Tensor:
        ctx.bounds = bounds
        if bounds is not None:
            ctx.save_for_backward(x)
        return round_to_codes(x, scale, quant_min, quant_max).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
        if ctx.bounds is not None:
            (x,) = ctx.saved_tensors
            grad = torch.ops.aten.hardtanh_backward(grad, x, *ctx.bounds)
        return grad, None, None, None, None


def fixed_step(
    x: Tensor,
    scale: Tensor | float,
    *,
    quant_min: int,
    quant_max: int,
    bounds: tuple[float, float] | None = (-math.inf, math.inf),
) -> Tensor:
    """Fake-quantize with zero point 0 at a step size that gets no gradient.

    The same values as `fake_quantize`, bit for bit, at a fraction of its memory and time.

    Args:
        x: Tensor of shape ``(*)``. NaN stays NaN, infinities saturate.
        scale: Positive step size, broadcastable to ``x``.
        quant_min: Smallest code, inclusive.
        quant_max: Largest code, inclusive.
        bounds: Open interval of ``x`` through which the gradient passes unchanged, see
            `straight_through_bounds`; it is 0 outside. `None` passes it everywhere, which is
            exact for weights whose scale follows their largest magnitude.

    Returns:
        Tensor like ``x``. Differentiable once.
    """
    result: Tensor = _FixedStep.apply(x, scale, quant_min, quant_max, bounds)  # type: ignore[no-untyped-call]
    return result


class _LearnedStep(torch.autograd.Function):
    """Eqs. (1)-(3) of [Esser2020]_."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's own signature
        x: Tensor,
        scale: Tensor,
        quant_min: int,
        quant_max: int,
        gradient_scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.range = quant_min, quant_max
        ctx.gradient_scale = gradient_scale
        return round_to_codes(x, scale, quant_min, quant_max).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # noqa: ANN401
        x, scale = ctx.saved_tensors
        quant_min, quant_max = ctx.range
        ratio = x / scale
        code = ratio.round()
        inside = (code >= quant_min) & (code <= quant_max)
        # d x_hat / d scale is round(v/s) - v/s inside the range and the last code outside.
        slope = code.clamp_(quant_min, quant_max).sub_(torch.where(inside, ratio, 0.0))
        grad_scale = slope.mul_(grad).sum_to_size(scale.shape).mul(ctx.gradient_scale)
        return torch.where(inside, grad, 0.0), grad_scale, None, None, None


def learned_step(x: Tensor, scale: Tensor, *, quant_min: int, quant_max: int) -> Tensor:
    """Fake-quantize with zero point 0 at a step size that is learned, LSQ [Esser2020]_.

    The gradient of the step is Eq. (3) times ``1 / sqrt(N * quant_max)``, where ``N`` counts the
    elements that share one step: the elements of a channel for a per-channel step. (The public
    code counts the whole tensor even then; the paper's argument, a step update in proportion to
    the weight updates, asks for the elements that share it.) For activations ``N`` counts one
    sample only, so that the step size does not depend on the batch size.

    Args:
        x: Tensor of shape ``(N, *)`` with a scalar `scale`, or weights of shape ``(C, *)``.
        scale: Step size, > 0, a scalar for activations, shape ``(C, 1, ...)`` for weights.
        quant_min: Smallest code, inclusive.
        quant_max: Largest code, inclusive.

    Returns:
        Tensor like ``x``. Differentiable once, with respect to ``x`` (clipped straight-through)
        and to `scale`.
    """
    shared = math.prod(x.shape[1:])
    gradient_scale = 1.0 / math.sqrt(max(shared, 1) * quant_max)
    result: Tensor = _LearnedStep.apply(x, scale, quant_min, quant_max, gradient_scale)  # type: ignore[no-untyped-call]
    return result
