# SPDX-License-Identifier: Apache-2.0
"""One power of two for all weights of a layer: what a shifter, and hls4ml, can rescale by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitscout.quantization.observers import WeightObserver, positive_scale

__all__ = ["PowerOfTwoPerTensorObserver"]


@dataclass(frozen=True)
class PowerOfTwoPerTensorObserver(WeightObserver):
    """Minimise the squared error of a layer's weights over the powers of two."""

    is_per_tensor: ClassVar[bool] = True
    # The least of them clips at a 32nd to a 64th of the largest weight: most of what is left.
    n_steps: ClassVar[int] = 6

    def scales(self, weight: Tensor, quant_max: int, moments: Tensor | None = None) -> Tensor:
        """Return one power of two for every row: from that which clips nothing, the best of six.

        Ties go to the larger step.
        """
        del moments
        covering = positive_scale(weight.abs().amax() / quant_max, quant_max)
        mantissa, exponent = torch.frexp(covering)
        # Of a power of two the mantissa is a half: it covers itself.
        exponent = exponent - (mantissa == 0.5).to(exponent.dtype)
        one = torch.ones_like(covering)
        steps = [torch.ldexp(one, exponent - index) for index in range(self.n_steps)]
        errors = torch.stack([_squared_error(weight, step, quant_max) for step in steps])
        best = steps[int(errors.argmin())]
        return positive_scale(best, quant_max).expand(len(weight)).clone()


def _squared_error(weight: Tensor, step: Tensor, quant_max: int) -> Tensor:
    codes = (weight / step).round_().clamp_(-quant_max, quant_max)
    return codes.mul_(step).sub_(weight).square_().sum()
