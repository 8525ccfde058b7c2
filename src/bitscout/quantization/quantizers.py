# SPDX-License-Identifier: Apache-2.0
"""Quantizers: the steps of one tensor, as modules with state.

A quantizer is created empty (every step 0), filled once by `calibrate`, and then either fixed (its
step is a buffer) or learned (its step is a parameter). An empty one refuses to run.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitscout.errors import ConfigError, DataError
from bitscout.quantization.exact_steps import (
    nearest_steps,
    snap_act_step,
    snap_weight_steps,
    steps_at_least,
)
from bitscout.quantization.numerics import (
    fixed_step,
    integer_range,
    learned_step,
    straight_through_bounds,
)
from bitscout.quantization.observers import (
    MIN_SCALE,
    ActivationObserver,
    WeightObserver,
    positive_scale,
)

__all__ = ["ActivationQuantizer", "WeightQuantizer"]


def _register_step(module: nn.Module, shape: tuple[int, ...], *, is_learned: bool) -> None:
    if is_learned:
        module.register_parameter("scale", nn.Parameter(torch.zeros(shape)))
    else:
        module.register_buffer("scale", torch.zeros(shape))


class WeightQuantizer(nn.Module):
    """Symmetric narrow-range quantizer with one step per output channel.

    Args:
        n_channels: Output channels, the first dimension of the weight.
        bit_width: In ``[2, 8]``.
        observer: Chooses the steps.
        is_learned: Whether the steps are parameters.
        mantissa_bits: Bits behind the leading one that a step may have, see
            `bitscout.quantization.exact_steps`; `None` for any step.

    Attributes:
        scale: Shape ``(n_channels,)``; 0 before calibration. A learned step may be driven through
            zero by the optimizer; its magnitude, at least ``2**-60``, is what counts: `steps`.
    """

    scale: Tensor

    def __init__(
        self,
        n_channels: int,
        bit_width: int,
        observer: WeightObserver,
        *,
        is_learned: bool,
        mantissa_bits: int | None = None,
    ) -> None:
        super().__init__()
        _register_step(self, (n_channels,), is_learned=is_learned)
        self.mantissa_bits = mantissa_bits
        self.bit_width = bit_width
        self.observer = observer.for_width(bit_width)
        self.is_learned = is_learned
        self.quant_min, self.quant_max = integer_range(bit_width, narrow_range=True)

    @torch.no_grad()
    def observe(self, weight: Tensor, moments: Tensor | None) -> None:
        """Set the steps for `weight`, shape ``(n_channels, *)``.

        A channel of zeros gets the largest step of the others, so that its bias keeps a grid of
        the usual fineness.
        """
        rows = weight.flatten(1)
        scales = self.observer.scales(rows, self.quant_max, moments)
        is_zero = rows.abs().amax(dim=1) < MIN_SCALE * self.quant_max
        if is_zero.any() and not is_zero.all():
            scales = torch.where(is_zero, scales[~is_zero].max(), scales)
        scales = positive_scale(scales, self.quant_max)
        if self.mantissa_bits is not None:
            scales = snap_weight_steps(rows, scales, self.quant_max, self.mantissa_bits, moments)
        self.scale.copy_(scales)

    @torch.no_grad()
    def raise_to(self, least: Tensor) -> bool:
        """Raise steps below `least`, shape ``(n_channels,)``, to it; return whether any was."""
        is_raised = bool((self.scale < least).any())
        if is_raised and self.observer.is_per_tensor:
            least = steps_at_least(least.max().expand_as(least), 0)
        if is_raised and self.mantissa_bits is not None:
            least = steps_at_least(least, self.mantissa_bits)
        self.scale.copy_(torch.maximum(self.scale, least))
        return is_raised

    def steps(self) -> Tensor:
        """Return the positive steps, shape ``(n_channels,)``, differentiable if learned."""
        if not self.is_learned:
            return self.scale
        steps = self.scale.abs().clamp_min(MIN_SCALE)
        return steps if self.mantissa_bits is None else nearest_steps(steps, self.mantissa_bits)

    def codes(self, weight: Tensor) -> Tensor:
        """Return the integer codes of `weight` as int8, same shape."""
        steps = _per_channel(self.steps().detach(), weight)
        codes = (weight.detach() / steps).round().clamp(self.quant_min, self.quant_max)
        return codes.to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the fake-quantized weight.

        Gradients: LSQ if learned. With fixed steps the gradient passes to all weights, clipped
        ones too: a clipped weight would otherwise never move again, and its step cannot follow.
        """
        steps = _per_channel(self.steps(), weight)
        if self.is_learned:
            return learned_step(weight, steps, quant_min=self.quant_min, quant_max=self.quant_max)
        return fixed_step(
            weight, steps, quant_min=self.quant_min, quant_max=self.quant_max, bounds=None
        )

    def extra_repr(self) -> str:
        """Return the bit-width and how the step is kept."""
        return f"bit_width={self.bit_width}, is_learned={self.is_learned}"


class ActivationQuantizer(nn.Module):
    """Quantizer of one activation tensor, with one step.

    Unsigned if nothing negative came in calibration, else signed, symmetric and narrow.

    Args:
        bit_width: In ``[2, 8]``.
        observer: Chooses the step.
        is_learned: Whether the step is a parameter.
        is_exact: Whether the step is a power of two, see `bitscout.quantization.exact_steps`.

    Attributes:
        scale: Scalar tensor; 0 before calibration.
        quant_min: Smallest code, an int32 scalar tensor.
        clip: Interval the input is clamped to first: ``(0, inf)`` or ``(0, 6)`` where a ReLU or
            ReLU6 was merged into this quantizer, else ``(-inf, inf)``.
    """

    scale: Tensor
    quant_min: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bit_width: int,
        observer: ActivationObserver,
        *,
        is_learned: bool,
        is_exact: bool = False,
    ) -> None:
        super().__init__()
        _register_step(self, (), is_learned=is_learned)
        self.is_exact = is_exact
        self.register_buffer("quant_min", torch.zeros((), dtype=torch.int32))
        zero_point = torch.zeros((), dtype=torch.int32)
        self.register_buffer("zero_point", zero_point, persistent=False)
        self.bit_width = bit_width
        self.observer = observer
        self.is_learned = is_learned
        self.clip = (-math.inf, math.inf)
        self._refresh()
        self.register_load_state_dict_post_hook(_refresh_after_load)  # type: ignore[no-untyped-call]

    @property
    def is_signed(self) -> bool:
        """Whether codes can be negative."""
        return self.code_range[0] < 0

    def _refresh(self) -> None:
        """Mirror the state in plain numbers: a kernel takes those without a device sync."""
        low = int(self.quant_min)
        self.code_range = integer_range(self.bit_width, signed=low < 0, narrow_range=low < 0)
        self.step = float(self.scale.detach())
        if not self.is_learned:
            # A learned step moves without notice; its forward clamps the values instead.
            self.code_range = self._clipped(self.code_range, self.step)
        low_bound, high_bound = straight_through_bounds(self.step, *self.code_range)
        self.bounds = max(low_bound, self.clip[0]), min(high_bound, self.clip[1])

    def _clipped(self, code_range: tuple[int, int], step: float) -> tuple[int, int]:
        """Cut the codes at the merged activation: a step rounded up may reach beyond a ReLU6."""
        low, high = code_range
        if step > 0 and math.isfinite(self.clip[1]):
            high = min(high, int(torch.tensor(self.clip[1]).div(step).round()))
        return low, high

    def grid(self) -> tuple[float, int, int]:
        """Return step, smallest and largest code of what `forward` gives, for export.

        Raises:
            ConfigError: If the quantizer was never calibrated.
        """
        self.check_calibrated()
        step = float(self.current_step().detach())
        return step, *self._clipped(self.code_range, step)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Set signedness and step for the values `x`.

        Raises:
            DataError: If a value is NaN or infinite.
        """
        x = self.clamp(x)
        low, high = (float(end) for end in torch.aminmax(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            msg = (
                f"Calibration met activations from {low} to {high}; expected finite ones. Look "
                f"at the calibration images, or for a diverged training."
            )
            raise DataError(msg)
        is_signed = low < 0
        code_range = integer_range(self.bit_width, signed=is_signed, narrow_range=is_signed)
        self.quant_min.fill_(code_range[0])
        scale = self.observer.scale(x, *code_range)
        self.scale.fill_(snap_act_step(x, float(scale), *code_range) if self.is_exact else scale)
        self._refresh()

    def clamp(self, x: Tensor) -> Tensor:
        """Apply the merged activation, if there is one, with its gradient: 0 at both bounds."""
        return x if self.clip == (-math.inf, math.inf) else functional.hardtanh(x, *self.clip)

    def merge(self, clip: tuple[float, float]) -> None:
        """Take over a ReLU or ReLU6 that stood in front of this quantizer."""
        self.clip = max(self.clip[0], clip[0]), min(self.clip[1], clip[1])
        self._refresh()

    def current_step(self) -> Tensor:
        """Return the positive step, a scalar tensor, differentiable if learned."""
        if not self.is_learned:
            return self.scale
        step = self.scale.abs().clamp_min(MIN_SCALE)
        return nearest_steps(step, 0) if self.is_exact else step

    def check_calibrated(self) -> None:
        """Check that `calibrate` ran.

        Raises:
            ConfigError: If the step was never set.
        """
        if self.step == 0:
            msg = "This network is prepared but not calibrated: call `calibrate` first."
            raise ConfigError(msg)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fake-quantized input, gradient clipped straight-through.

        Raises:
            ConfigError: If the quantizer was never calibrated.
        """
        self.check_calibrated()
        low, high = self.code_range
        if self.is_learned:
            return learned_step(self.clamp(x), self.current_step(), quant_min=low, quant_max=high)
        if x.is_cuda:
            # One kernel there; memory-bound passes are what counts (reasoned, not measured).
            return torch.fake_quantize_per_tensor_affine(
                self.clamp(x), self.scale, self.zero_point, low, high
            )
        return fixed_step(x, self.step, quant_min=low, quant_max=high, bounds=self.bounds)

    def extra_repr(self) -> str:
        """Return the bit-width, the sign and the merged activation."""
        sign = "signed" if self.is_signed else "unsigned"
        return f"bit_width={self.bit_width}, {sign}, clip={self.clip}"


def _refresh_after_load(module: nn.Module, incompatible_keys: Any) -> None:  # noqa: ANN401
    del incompatible_keys
    if isinstance(module, ActivationQuantizer):
        module._refresh()


def _per_channel(steps: Tensor, weight: Tensor) -> Tensor:
    return steps.reshape(-1, *[1] * (weight.dim() - 1))
