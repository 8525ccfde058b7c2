# SPDX-License-Identifier: Apache-2.0
"""Building blocks: convolutions with TensorFlow's SAME padding, inverted residuals.

Notation: ``H`` and ``W`` are height and width, ``k`` a kernel, ``s`` a stride. SAME padding gives
``ceil(H / s)`` outputs from ``max((ceil(H / s) - 1) * s + k - H, 0)`` added pixels, half of them,
rounded down, before the image and the rest after. PyTorch's ``padding=k // 2`` differs for even
``k``, and for odd ``k`` with a stride above 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from bitscout.errors import ConfigError
from bitscout.quantization import Add
from bitscout.space import UnitSpec

__all__ = ["ConvBnAct", "InvertedResidual", "same_padding"]

Size = tuple[int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the pixels to add before and after one dimension.

    Args:
        size: Pixels, >= 1.
        kernel: >= 1.
        stride: >= 1.

    Example:
        >>> same_padding(32, kernel=4, stride=1), same_padding(32, kernel=3, stride=2)
        ((1, 2), (0, 1))
    """
    n_outputs = -(-size // stride)
    total = max((n_outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvBnAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless it is linear, ReLU6.

    Children: ``pad`` (only where SAME padding is lopsided; the convolution pads itself
    otherwise), ``conv``, ``norm``, ``act`` (unless linear). The ReLU6 is not in place: that was
    measured to be no faster, and hooks may hold its input.

    Args:
        in_channels: Channels read.
        out_channels: Channels given.
        kernel: Height and width of the kernel.
        stride: Stride in both dimensions.
        groups: Channel groups.
        input_size: Height and width the padding is made for; needed where the stride is above 1,
            the padding does not depend on it elsewhere.
        is_linear: Leave out the ReLU6.

    Raises:
        ConfigError: If the stride is above 1 and no `input_size` is given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        input_size: Size | None = None,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        if input_size is None and stride > 1:
            msg = f"SAME padding for stride {stride} depends on the image: give `input_size`."
            raise ConfigError(msg)
        height, width = input_size or (1, 1)
        top, bottom = same_padding(height, kernel, stride)
        left, right = same_padding(width, kernel, stride)
        is_lopsided = top != bottom or left != right
        if is_lopsided:
            self.pad = nn.ZeroPad2d((left, right, top, bottom))
        padding = (0, 0) if is_lopsided else (top, left)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        if not is_linear:
            self.act = nn.ReLU6()


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; add the input where shapes allow [Sandler2018]_.

    Args:
        unit: Its shape.

    References:
        .. [Sandler2018] M. Sandler et al. MobileNetV2: Inverted Residuals and Linear Bottlenecks.
           CVPR 2018. https://arxiv.org/abs/1801.04381
    """

    def __init__(self, unit: UnitSpec) -> None:
        super().__init__()
        hidden = unit.hidden_channels
        self.expand: nn.Module = (
            ConvBnAct(unit.in_channels, hidden) if unit.has_expand else nn.Identity()
        )
        self.depthwise = ConvBnAct(
            hidden,
            hidden,
            unit.kernel,
            stride=unit.stride,
            groups=hidden,
            input_size=unit.input_size,
        )
        self.project = ConvBnAct(hidden, unit.out_channels, is_linear=True)
        self.add = Add() if unit.is_residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Return shape ``(n, out_channels, H / stride, W / stride)``, rounded up.

        Args:
            x: Shape ``(n, in_channels, H, W)``.
        """
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y if self.add is None else self.add(x, y)
