# SPDX-License-Identifier: Apache-2.0
"""Quantized modules: what `prepare` puts in the place of convolutions, linears, adds and pools.

Every module quantizes what it reads (the consumer owns the quantizer), so that it computes on
integer codes alone and can be lowered to integers exactly. With ``q`` for codes, a layer is

    y = s_x s_w[c] (sum q_x q_w + q_b[c]),    q_b = round(b / (s_x s_w[c])), an int32,

an `QuantAdd` is ``s_a q_a + s_b q_b`` and an average pool the mean of ``s_x q_x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bitscout.core import LayerBits
from bitscout.errors import TrainingError
from bitscout.quantization.config import QuantConfig
from bitscout.quantization.exact_steps import largest_bias_code, mantissa_bits
from bitscout.quantization.numerics import INT32_MAX, integer_range, round_to_codes
from bitscout.quantization.quantizers import ActivationQuantizer, WeightQuantizer

__all__ = [
    "Pass",
    "QuantAdd",
    "QuantAvgPool",
    "QuantConv2d",
    "QuantLinear",
    "QuantModule",
    "QuantizedLayer",
]

# A calibrated bias takes at most a quarter of the int32 range, the rest is for the accumulator.
MAX_BIAS_CODE = 2**29
# More than ten times the longest row of the networks searched here (576 weights).
N_PATCHES = 2**13


class Pass(Protocol):
    """What replaces the forward of every quantized module while it is calibrated."""

    def run(self, module: QuantModule, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the output of `module`."""


class QuantModule(nn.Module, ABC):
    """Base of the quantized modules.

    Attributes:
        name: Path in the network, for messages.
        uses: How often it runs in one forward pass.
        current_pass: Set by `calibrate` for its own duration.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.uses = 1
        self.current_pass: Pass | None = None

    @abstractmethod
    def real(self, *inputs: Tensor) -> Tensor:
        """Return the output without any quantization."""

    @abstractmethod
    def quantized(self, *inputs: Tensor) -> Tensor:
        """Return the fake-quantized output."""

    @abstractmethod
    def input_quantizers(self) -> tuple[ActivationQuantizer, ...]:
        """Return the quantizer of every input, in order."""

    @torch.no_grad()
    def observe(self, *inputs: Tensor) -> None:
        """Set all steps from one batch of inputs."""
        self.observe_uses([inputs])

    def observe_uses(self, uses: Sequence[tuple[Tensor, ...]]) -> None:
        """Set all steps from the inputs of every use, one batch each."""
        for quantizer, *batches in zip(self.input_quantizers(), *uses, strict=True):
            is_single = len(batches) == 1
            quantizer.observe(
                batches[0] if is_single else torch.cat([x.flatten() for x in batches])
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the fake-quantized output, in float32 also under autocast.

        NOTE: half precision cannot hold step times code, so autocast would move values off the
        grid that the integers stand for.
        """
        if torch._C._len_torch_function_stack():
            # What a quantized module does inside is no business of those that watch functions.
            with torch._C.DisableTorchFunction():
                return self._run(inputs)
        return self._run(inputs)

    def _run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.current_pass is not None:
            return self.current_pass.run(self, inputs)
        device = inputs[0].device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.quantized(*(x.float() for x in inputs))
        return self.quantized(*inputs)


class QuantizedLayer(QuantModule):
    """Base of the layers with weights.

    Attributes:
        weight: Real weight, shape ``(C_out, *)``.
        bias: Real bias, shape ``(C_out,)``, or `None`.
        max_bias_code: Largest magnitude of a bias's code; larger ones are cut there.
        mask: 1 where the weight may be other than 0, same shape, or `None` where it may be
            everywhere.
        was_normalized: Whether a batch norm was folded into it.
        norm: Batch norm that stands for the bias in a training, see
            `bitscout.quantization.revive_norms`; otherwise `None`.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    mask: Tensor | None
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None

    def __init__(
        self, name: str, source: nn.Conv2d | nn.Linear, bits: LayerBits, config: QuantConfig
    ) -> None:
        super().__init__(name)
        # Copies: another layer may share them.
        self.weight = nn.Parameter(source.weight.detach().clone())
        bias = source.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("mask", None)
        self.was_normalized = False
        self.norm = None
        self.input_quantizer = activation_quantizer(bits.act_bits, config)
        is_exact = config.exact_steps
        largest = (
            self.weight[0].numel(),
            integer_range(bits.weight_bits)[1],
            2**bits.act_bits - 1,
        )
        # With exact steps a bias that grew in training is cut where float32 would round sums.
        self.max_bias_code = largest_bias_code(*largest) if is_exact else INT32_MAX
        self.weight_quantizer = WeightQuantizer(
            self.weight.shape[0],
            bits.weight_bits,
            config.weight_observer,
            is_learned=config.learn_weight_steps,
            mantissa_bits=mantissa_bits(*largest) if is_exact else None,
        )
        self.to(self.weight.device)

    @abstractmethod
    def moments(self, x_hat: Tensor) -> Tensor:
        """Return the second moments of the input patches, shape ``(groups, K, K)``."""

    @abstractmethod
    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the quantized weight applied to the quantized input, plus `bias`."""

    def quantized(self, *inputs: Tensor) -> Tensor:
        """Return the product of the quantized weight with the quantized input."""
        if self.norm is not None:
            normalized: Tensor = self.norm(self.product(inputs[0], None))
            return normalized
        return self.product(inputs[0], self.quantized_bias())

    def input_quantizers(self) -> tuple[ActivationQuantizer, ...]:
        """Return the one quantizer."""
        return (self.input_quantizer,)

    def keep_zeros(self, mask: Tensor) -> None:
        """Keep the weights at 0 where `mask`, of their shape, is false."""
        self.mask = mask.to(self.weight.dtype)

    def masked_weight(self) -> Tensor:
        """Return the real weight, 0 where it has to be."""
        return self.weight if self.mask is None else self.weight * self.mask

    @torch.no_grad()
    def observe_uses(self, uses: Sequence[tuple[Tensor, ...]]) -> None:
        """Set the steps of input and weight.

        Raises:
            TrainingError: If a weight or bias is not finite.
            DataError: If an input is not finite.
        """
        for what, values in (("weight", self.weight), ("bias", self.bias)):
            if values is not None and not values.isfinite().all():
                msg = (
                    f"Layer {self.name!r}: its {what} holds NaN or infinite values, so no step "
                    f"fits. Look for a diverged training."
                )
                raise TrainingError(msg)
        super().observe_uses(uses)
        moments = None
        if self.weight_quantizer.observer.needs_inputs:
            moments = self.moments(self.input_quantizer(uses[0][0]))
            for (x,) in uses[1:]:
                moments += self.moments(self.input_quantizer(x))
        self.weight_quantizer.observe(self.masked_weight(), moments)
        self.fit_bias()

    @torch.no_grad()
    def fit_bias(self) -> bool:
        """Raise the weight steps of channels whose bias would leave its range.

        Happens where folding a batch norm left next to nothing of the weights.

        Returns:
            Whether a step was raised.
        """
        if self.bias is None:
            return False
        # Half of it, so that it can grow in training.
        largest = min(self.max_bias_code // 2, MAX_BIAS_CODE)
        grid = largest * self.input_quantizer.current_step()
        return self.weight_quantizer.raise_to(self.bias.abs() / grid)

    def bias_steps(self) -> Tensor:
        """Return ``s_x s_w[c]`` as float64, shape ``(C_out,)``, without gradient."""
        s_x = self.input_quantizer.current_step().detach().double()
        return s_x * self.weight_quantizer.steps().detach().double()

    def bias_codes(self) -> Tensor | None:
        """Return the int32 codes of the bias as int64, or `None` without one."""
        if self.bias is None:
            return None
        return _bias_codes(self.bias.detach(), self.bias_steps(), self.max_bias_code).long()

    def weight_codes(self) -> Tensor:
        """Return the codes of the weight as int8."""
        return self.weight_quantizer.codes(self.masked_weight())

    def quantized_bias(self) -> Tensor | None:
        """Return the bias on its int32 grid, gradient passed through."""
        if self.bias is None:
            return None
        result: Tensor = _OnBiasGrid.apply(  # type: ignore[no-untyped-call]
            self.bias, self.bias_steps(), self.max_bias_code
        )
        return result


class QuantConv2d(QuantizedLayer):
    """Fake-quantized `torch.nn.Conv2d`, any stride, padding, dilation and groups."""

    def __init__(self, name: str, source: nn.Conv2d, bits: LayerBits, config: QuantConfig) -> None:
        super().__init__(name, source, bits, config)
        self.stride = cast("tuple[int, int]", source.stride)
        self.dilation = cast("tuple[int, int]", source.dilation)
        self.kernel_size = cast("tuple[int, int]", source.kernel_size)
        self.groups = source.groups
        self.padding_mode = source.padding_mode
        self.padding, self.explicit_padding = _split_padding(source)

    def _pad(self, x: Tensor) -> Tensor:
        if not any(self.explicit_padding):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self.explicit_padding, mode=mode)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def real(self, *inputs: Tensor) -> Tensor:
        """Return the convolution of the real weight."""
        x = self.input_quantizer.clamp(inputs[0])
        return self._convolve(self._pad(x), self.masked_weight(), self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of the quantized weight with the quantized input."""
        x = self._pad(x)
        weight = self.weight_quantizer(self.masked_weight())
        quantizer = self.input_quantizer
        if quantizer.is_learned or x.is_cuda or x.dim() != 4:
            return self._convolve(quantizer(x), weight, bias)
        quantizer.check_calibrated()
        result: Tensor = _ConvolveCodes.apply(x, weight, bias, self)  # type: ignore[no-untyped-call]
        return result

    def moments(self, x_hat: Tensor) -> Tensor:
        """Return the second moments over some 2**13 patches, shape ``(groups, K, K)``."""
        x_hat = self._pad(x_hat[None] if x_hat.dim() == 3 else x_hat)
        geometry = (self.kernel_size, self.dilation, self.padding, self.stride)
        n_positions = F.unfold(x_hat[:1], *geometry).shape[2]
        stride = max(1, len(x_hat) * n_positions // N_PATCHES)
        columns = F.unfold(x_hat[::stride], *geometry)
        patches = columns.transpose(1, 2).flatten(0, 1)
        return _moments(patches.reshape(len(patches), self.groups, -1).transpose(0, 1))

    def extra_repr(self) -> str:
        """Return the geometry."""
        out_channels, in_channels = self.weight.shape[:2]
        return (
            f"{in_channels * self.groups}, {out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, groups={self.groups}"
        )


class QuantLinear(QuantizedLayer):
    """Fake-quantized `torch.nn.Linear`."""

    def __init__(self, name: str, source: nn.Linear, bits: LayerBits, config: QuantConfig) -> None:
        super().__init__(name, source, bits, config)

    def real(self, *inputs: Tensor) -> Tensor:
        """Return the product with the real weight."""
        x = self.input_quantizer.clamp(inputs[0])
        return F.linear(x, self.masked_weight(), self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product of the quantized weight with the quantized input."""
        weight = self.weight_quantizer(self.masked_weight())
        return F.linear(self.input_quantizer(x), weight, bias)

    def moments(self, x_hat: Tensor) -> Tensor:
        """Return the second moments of the input, shape ``(1, K, K)``."""
        return _moments(x_hat.flatten(0, -2)[None])

    def extra_repr(self) -> str:
        """Return the geometry."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class QuantAdd(QuantModule):
    """Fake-quantized `Add`: both operands are quantized, each with its own step."""

    def __init__(self, name: str, config: QuantConfig) -> None:
        super().__init__(name)
        self.a_quantizer = activation_quantizer(config.add_bits, config)
        self.b_quantizer = activation_quantizer(config.add_bits, config)

    def input_quantizers(self) -> tuple[ActivationQuantizer, ...]:
        """Return the quantizers of both operands."""
        return self.a_quantizer, self.b_quantizer

    def real(self, *inputs: Tensor) -> Tensor:
        """Return the real sum."""
        a, b = inputs
        return self.a_quantizer.clamp(a) + self.b_quantizer.clamp(b)

    def quantized(self, *inputs: Tensor) -> Tensor:
        """Return the sum of the quantized operands."""
        a, b = inputs
        # In place: the result of a quantizer belongs to nobody else and no backward reads it.
        result: Tensor = self.a_quantizer(a)
        return result.add_(self.b_quantizer(b))


class QuantAvgPool(QuantModule):
    """Average pool of a quantized input.

    Args:
        name: Path in the network.
        pool: The pool that was there, `torch.nn.AvgPool2d` or `torch.nn.AdaptiveAvgPool2d`.
        config: Bits and observer.
    """

    def __init__(
        self, name: str, pool: nn.AvgPool2d | nn.AdaptiveAvgPool2d, config: QuantConfig
    ) -> None:
        super().__init__(name)
        self.pool = pool
        self.input_quantizer = activation_quantizer(config.pool_bits, config)

    def input_quantizers(self) -> tuple[ActivationQuantizer, ...]:
        """Return the one quantizer."""
        return (self.input_quantizer,)

    def real(self, *inputs: Tensor) -> Tensor:
        """Return the real average."""
        return cast("Tensor", self.pool(self.input_quantizer.clamp(inputs[0])))

    def quantized(self, *inputs: Tensor) -> Tensor:
        """Return the average of the quantized input."""
        return cast("Tensor", self.pool(self.input_quantizer(inputs[0])))


class _OnBiasGrid(torch.autograd.Function):
    """Round the bias to its int32 grid; the gradient passes through."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, steps: Tensor, max_code: int) -> Tensor:  # noqa: ANN401
        del ctx
        return _bias_codes(bias, steps, max_code).mul_(steps).to(bias.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        del ctx
        return grad, None, None


class _ConvolveCodes(torch.autograd.Function):
    """Quantize the input and convolve, for fixed activation steps on a CPU.

    The convolution runs on the integer codes and on the weight times the step, which saves one
    pass over the activation; the backward pass of the convolution takes the weight without the
    step, which saves another, and rescales the (small) weight gradient. The pass that applies the
    straight-through mask also applies the derivative of a merged ReLU.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's own signature
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: QuantConv2d,
    ) -> Tensor:
        quantizer = layer.input_quantizer
        step = quantizer.step
        codes = round_to_codes(x, step, *quantizer.code_range)
        needs_x = ctx.needs_input_grad[0]
        ctx.save_for_backward(x if needs_x else None, codes, weight)
        ctx.step, ctx.bounds = step, quantizer.bounds
        ctx.bias_shape = None if bias is None else list(bias.shape)
        ctx.geometry = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        return layer._convolve(codes, weight * step, bias)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  # torch's own signature
        grad: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, codes, weight = ctx.saved_tensors
        mask = list(ctx.needs_input_grad[:3])
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad, codes, weight, ctx.bias_shape, *ctx.geometry, mask
        )
        if grad_x is not None:
            grad_x = torch.ops.aten.hardtanh_backward(grad_x, x, *ctx.bounds)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(ctx.step)
        return grad_x, grad_weight, grad_bias, None


def activation_quantizer(bit_width: int, config: QuantConfig) -> ActivationQuantizer:
    """Return an empty quantizer of `bit_width` bits."""
    return ActivationQuantizer(
        bit_width,
        config.act_observer,
        is_learned=config.learn_act_steps,
        is_exact=config.exact_steps,
    )


def _bias_codes(bias: Tensor, steps: Tensor, max_code: int) -> Tensor:
    return (bias / steps).round_().clamp_(-max_code, max_code)


def _moments(patches: Tensor) -> Tensor:
    """Return ``E[p p^T]`` for patches ``(groups, n, K)``."""
    return patches.transpose(1, 2) @ patches / patches.shape[1]


def _split_padding(conv: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the padding a convolution can do itself and the one to do before it.

    The second is in the order of `torch.nn.functional.pad`: left, right, top, bottom.
    """
    if conv.padding == "valid":
        return (0, 0), (0, 0, 0, 0)
    if conv.padding == "same":
        pairs = zip(conv.dilation, conv.kernel_size, strict=True)
        totals = [d * (k - 1) for d, k in pairs]
        before = [total // 2 for total in totals]
        after = [total - half for total, half in zip(totals, before, strict=True)]
    else:
        before = after = list(cast("tuple[int, int]", conv.padding))
    if before == after and conv.padding_mode == "zeros":
        return (before[0], before[1]), (0, 0, 0, 0)
    return (0, 0), (before[1], after[1], before[0], after[0])
