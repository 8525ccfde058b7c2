# SPDX-License-Identifier: Apache-2.0
"""A way around a fault of PyTorch's convolutions on processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from torch import Tensor, nn

from bitscout.quantization import QuantConv2d

__all__ = ["unit_strides"]

SIMD_WIDTH: Final = 8  # float32 values of an AVX2 register.


@contextmanager
def unit_strides(model: nn.Module) -> Iterator[None]:
    """Let 1x1 convolutions of few channels with a stride skip pixels beforehand, for a while.

    The same sums in the same order. NOTE: with fewer than eight input channels in the format
    ``channels_last``, the backward pass of oneDNN for such a convolution writes past its memory
    (PyTorch 2.13, AVX2: 6 channels to 12 with stride 2 end the process), and other widths of a
    given network are such numbers.

    Args:
        model: Any network; as before at the end.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if not isinstance(module, nn.Conv2d | QuantConv2d):
                continue
            stride, padding = _pair(module.stride), module.padding
            is_point = tuple(module.weight.shape[2:]) == (1, 1) and padding in (0, (0, 0), "valid")
            if not is_point or stride == (1, 1) or module.weight.shape[1] >= SIMD_WIDTH:
                continue
            stack.callback(setattr, module, "stride", module.stride)
            handle = module.register_forward_pre_hook(_Skip(*stride))
            stack.callback(handle.remove)
            module.stride = (1, 1)
        yield


class _Skip:
    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        return x[..., :: self._rows, :: self._columns], *rest


def _pair(stride: Any) -> tuple[int, int]:  # noqa: ANN401  # as PyTorch keeps it
    return (stride, stride) if isinstance(stride, int) else (int(stride[0]), int(stride[1]))
