# SPDX-License-Identifier: Apache-2.0
"""Which inputs a pooled output is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RegularWindows", "Windows"]

Span = tuple[int, int]


@dataclass(frozen=True)
class RegularWindows:
    """Windows as a pooling operator states them.

    Attributes:
        kernel: Height and width.
        stride: Vertical and horizontal.
        pads: Top, left, bottom, right; what lies there is not part of a window.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]


@dataclass(frozen=True)
class Windows:
    """A pooling's windows, all of them non-empty: any stride, padding, rounding, or adaptive.

    Attributes:
        rows: First row and the one behind the last, for every row of outputs.
        columns: Likewise.
        input_size: Height and width of what is pooled.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    input_size: tuple[int, int]

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return len(self.rows), len(self.columns)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of inputs of every output, shape `output_size`."""
        heights = np.array([stop - start for start, stop in self.rows], dtype=np.int64)
        widths = np.array([stop - start for start, stop in self.columns], dtype=np.int64)
        return heights[:, None] * widths

    @property
    def is_global(self) -> bool:
        """Whether one window covers everything."""
        height, width = self.input_size
        return self.rows == ((0, height),) and self.columns == ((0, width),)

    def regular(self) -> RegularWindows | None:
        """Return kernel, stride and padding that make these windows, `None` if none do."""
        vertical = _regular(self.rows, self.input_size[0])
        horizontal = _regular(self.columns, self.input_size[1])
        if vertical is None or horizontal is None:
            return None
        (kh, sh, top, bottom), (kw, sw, left, right) = vertical, horizontal
        return RegularWindows((kh, kw), (sh, sw), (top, left, bottom, right))


def _regular(spans: tuple[Span, ...], size: int) -> tuple[int, int, int, int] | None:
    """Return (kernel, stride, padding before, padding after) of windows along one axis."""
    if all(span == (0, size) for span in spans):
        # Every window is cut at both ends, or there is only one.
        return size + len(spans) - 1, 1, len(spans) - 1, len(spans) - 1
    first_start, first_stop = spans[0]
    if first_start != 0:
        return None
    # All windows may be cut, so that the kernel is longer than each of them.
    for kernel in range(max(stop - start for start, stop in spans), 2 * size + 1):
        # The end of the first window says where it starts. If that is cut as well, a shorter
        # kernel that ends there made the same windows.
        before = kernel - first_stop
        stride = _stride(spans, size, kernel, before)
        if stride is not None:
            last_stop = (len(spans) - 1) * stride - before + kernel
            return kernel, stride, before, max(last_stop - size, 0)
    return None


def _stride(spans: tuple[Span, ...], size: int, kernel: int, before: int) -> int | None:
    """Return the stride that makes these windows, and no more than these."""
    # Any window that is not cut at both ends tells it; a single one may stay alone.
    candidates = {
        (start + before if start else stop - kernel + before) // index
        for index, (start, stop) in enumerate(spans)
        if index and (start or stop < size)
    } or {size}
    for stride in sorted(candidates):
        starts = [index * stride - before for index in range(len(spans))]
        cut = tuple((max(start, 0), min(start + kernel, size)) for start in starts)
        # A further window would still be inside.
        is_short = starts[-1] + stride + kernel <= size
        if stride > 0 and cut == spans and not is_short:
            return stride
    return None
