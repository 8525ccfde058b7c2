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
    kernel = max(stop - start for start, stop in spans)
    first_start, first_stop = spans[0]
    if first_start != 0:
        return None
    before = kernel - first_stop
    strides = {1}
    if len(spans) > 1:
        # The second window may be cut as well, but never both of its ends' distances to the
        # first: its start counts where it is not 0, its end where it is not the edge.
        strides = {spans[1][1] - first_stop, spans[1][0] + before}
    for stride in sorted(strides):
        if stride < 1:
            continue
        starts = [index * stride - before for index in range(len(spans))]
        cut = tuple((max(start, 0), min(start + kernel, size)) for start in starts)
        if cut == spans:
            return kernel, stride, before, max(starts[-1] + kernel - size, 0)
    return None
