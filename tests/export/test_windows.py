"""Windows against the definition of pooling and PyTorch's own pools."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from bitscout.export.windows import RegularWindows, Windows


def spans_of(size, kernel, stride, before, count):
    starts = [index * stride - before for index in range(count)]
    return tuple((max(start, 0), min(start + kernel, size)) for start in starts)


def pooled_count(size, kernel, stride, padding, ceil_mode):
    """As PyTorch documents it: a window may not start in the padding behind the input."""
    room = size + 2 * padding - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def adaptive_spans(size, count):
    return tuple((i * size // count, -(-(i + 1) * size // count)) for i in range(count))


@st.composite
def axes(draw):
    """Size, kernel, stride, padding and the spans along one axis."""
    size, kernel = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    stride, padding = draw(st.integers(1, 6)), draw(st.integers(0, kernel // 2))
    ceil_mode = draw(st.booleans())
    assume(size + 2 * padding >= kernel)
    count = pooled_count(size, kernel, stride, padding, ceil_mode)
    return size, kernel, stride, padding, ceil_mode, spans_of(size, kernel, stride, padding, count)


@given(axes(), axes())
def test_regular_windows_are_found_again(vertical, horizontal):
    windows = Windows(vertical[-1], horizontal[-1], (vertical[0], horizontal[0]))
    regular = windows.regular()
    assert regular is not None
    again = remade(regular, windows.input_size)
    assert again == windows


def remade(regular, input_size):
    """By the formula of every pooling operator: no window reaches behind the padding."""
    spans = []
    for axis in (0, 1):
        size, kernel, stride = input_size[axis], regular.kernel[axis], regular.stride[axis]
        before, after = regular.pads[axis], regular.pads[axis + 2]
        # What ONNX Runtime and others insist on.
        assert 0 <= before < kernel
        assert 0 <= after < kernel
        count = (size + before + after - kernel) // stride + 1
        spans.append(spans_of(size, kernel, stride, before, count))
    return Windows(*spans, input_size)


@given(st.integers(1, 24), st.integers(1, 12))
def test_adaptive_windows_are_regular_only_if_a_regular_pool_makes_them(size, count):
    assume(count <= size)
    spans = adaptive_spans(size, count)
    windows = Windows(spans, spans, (size, size))
    regular = windows.regular()
    if size % count == 0:
        assert regular is not None
    if regular is not None:
        assert remade(regular, (size, size)) == windows


def test_adaptive_windows_that_no_kernel_makes_are_none():
    # 5 to 3 is (0, 2), (1, 4), (3, 5): a kernel of 3 with padding.
    assert Windows(adaptive_spans(5, 3), ((0, 5),), (5, 5)).regular() == RegularWindows(
        (3, 5), (2, 1), (1, 0, 1, 0)
    )
    assert Windows(adaptive_spans(7, 5), ((0, 7),), (7, 7)).regular() is None
    assert Windows(((0, 7),), adaptive_spans(7, 5), (7, 7)).regular() is None


def test_windows_that_leave_the_first_input_out_are_not_regular():
    assert Windows(((1, 3), (3, 5)), ((0, 6),), (6, 6)).regular() is None


def test_windows_that_stop_early_are_not_regular():
    assert Windows(((0, 2), (2, 4)), ((0, 8),), (8, 8)).regular() is None


def test_a_single_window_that_leaves_inputs_out_stays_alone():
    windows = Windows(((0, 2),), ((0, 3),), (4, 9))
    assert remade(windows.regular(), (4, 9)) == windows


SIZES = [(2, 2), (3, 5), (7, 4), (9, 9)]
POOLS = [(size, *pool) for size in SIZES for pool in [(2, 2, 0), (3, 1, 1), (3, 2, 1)]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [*POOLS, ((1, 1), 3, 1, 1), ((1, 1), 3, 2, 1)]
)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_over_the_windows_is_torch_pooling(size, kernel, stride, padding, ceil_mode):
    values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    spans = [
        spans_of(s, kernel, stride, padding, pooled_count(s, kernel, stride, padding, ceil_mode))
        for s in size
    ]
    windows = Windows(*spans, size)
    largest = F.max_pool2d(values, kernel, stride, padding, ceil_mode=ceil_mode)
    mean = F.avg_pool2d(
        values, kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=False
    )
    assert windows.output_size == tuple(largest.shape[2:])
    assert_pools(windows, values.numpy(), largest.numpy(), mean.numpy())


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (1, 3)])
@pytest.mark.parametrize("output", [(1, 1), (1, 3), (5, 7)])
def test_adaptive_pooling_over_the_windows_is_torch_pooling(size, output):
    output = tuple(np.minimum(size, output).tolist())
    values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    windows = Windows(*map(adaptive_spans, size, output), size)
    largest = F.adaptive_max_pool2d(values, output)
    mean = F.adaptive_avg_pool2d(values, output)
    assert_pools(windows, values.numpy(), largest.numpy(), mean.numpy())
    assert windows.is_global == (output == (1, 1))


def assert_pools(windows, values, largest, mean):
    counts = windows.counts
    for i, (top, bottom) in enumerate(windows.rows):
        for j, (left, right) in enumerate(windows.columns):
            window = values[:, :, top:bottom, left:right]
            assert counts[i, j] == window[0, 0].size
            np.testing.assert_array_equal(window.max((2, 3)), largest[:, :, i, j])
            total = window.sum((2, 3)) / counts[i, j]
            np.testing.assert_allclose(total, mean[:, :, i, j], rtol=1e-10, atol=1e-14)
