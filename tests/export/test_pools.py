"""Windows and divisors against PyTorch's own pools."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bitscout.errors import UnsupportedError
from bitscout.export.expressions import Image
from bitscout.export.pools import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
    mean,
)

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def pooled(windows, image, reduce):
    """Reduce an ``(H, W)`` image over windows, by hand."""
    rows = [
        [reduce(image[slice(*row), slice(*column)]) for column in windows.columns]
        for row in windows.rows
    ]
    return np.array(rows)


@st.composite
def geometry(draw):
    size = draw(SIZES)
    kernel = tuple(draw(st.integers(1, n)) for n in size)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride = draw(st.sampled_from([None, 1, 2, (3, 1)]))
    return size, (kernel, stride, padding), draw(st.booleans())


def image_of(size, seed):
    return torch.randint(-50, 50, (1, 1, *size), generator=torch.Generator().manual_seed(seed))


@given(geometry(), st.booleans(), st.sampled_from([None, 3]), st.integers(0, 99))
def test_average_windows_and_divisors_are_those_of_pytorch(shape, counts_pads, divisor, seed):
    size, args, ceil = shape
    image = image_of(size, seed).double()
    wanted = F.avg_pool2d(image, *args, ceil, counts_pads, divisor)
    result = avg_pool2d(
        tuple(wanted.shape[1:]), Image((1, *size)), *args, ceil, counts_pads, divisor
    )
    came = pooled(result.windows, image[0, 0].numpy(), np.sum) / result.divisor
    np.testing.assert_allclose(came, wanted[0, 0].numpy(), rtol=1e-12, atol=1e-12)


@given(geometry(), st.integers(0, 99))
def test_max_windows_are_those_of_pytorch(shape, seed):
    size, args, ceil = shape
    image = image_of(size, seed).double()
    wanted = F.max_pool2d(image, *args, ceil_mode=ceil)
    result = max_pool2d(tuple(wanted.shape[1:]), Image((1, *size)), *args, ceil_mode=ceil)
    np.testing.assert_array_equal(
        pooled(result.windows, image[0, 0].numpy(), np.max), wanted[0, 0]
    )


@given(SIZES, SIZES, st.integers(0, 99))
def test_adaptive_windows_are_those_of_pytorch(size, out, seed):
    image = image_of(size, seed).double()
    averages = adaptive_avg_pool2d((1, *out), Image((1, *size)), out)
    came = pooled(averages.windows, image[0, 0].numpy(), np.sum) / averages.divisor
    wanted = F.adaptive_avg_pool2d(image, out)[0, 0].numpy()
    np.testing.assert_allclose(came, wanted, rtol=1e-12, atol=1e-12)
    largest = adaptive_max_pool2d((1, *out), Image((1, *size)), out)
    wanted = F.adaptive_max_pool2d(image, out)[0, 0].numpy()
    np.testing.assert_array_equal(pooled(largest.windows, image[0, 0].numpy(), np.max), wanted)


@pytest.mark.parametrize("dim", [(2, 3), (-1, -2), (3, -2)])
def test_a_mean_over_height_and_width_has_one_window(dim):
    result = mean((4,), Image((4, 3, 5)), dim)
    assert result.windows.is_global
    assert result.divisor == 15


@pytest.mark.parametrize("dim", [None, 1, (1, 2), (2,)])
def test_other_means_are_refused(dim):
    with pytest.raises(UnsupportedError, match=r"Use dim=\(2, 3\)"):
        mean((4,), Image((4, 3, 5)), dim)


def test_equal_divisors_are_one_number():
    plain = avg_pool2d((1, 2, 2), Image((1, 4, 4)), 2)
    cut = avg_pool2d((1, 2, 2), Image((1, 3, 3)), 2, ceil_mode=True)
    assert plain.divisor.shape == ()
    assert cut.divisor.shape == (2, 2)


def test_pools_that_return_indices_are_refused():
    with pytest.raises(UnsupportedError, match="Use a plain max pool"):
        adaptive_max_pool2d((1, 1, 1), Image((1, 4, 4)), 1, return_indices=True)
