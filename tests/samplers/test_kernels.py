# SPDX-License-Identifier: Apache-2.0
"""The covariance against printed values, scikit-learn and finite differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import Matern

from bitscout.samplers.kernels import matern52, matern52_slope, squared_distances

TINY = np.finfo(float).eps


def test_matern_takes_the_printed_values():
    printed = {0.0: "1.000000", 0.5: "0.828649", 1.0: "0.523994", 2.0: "0.138660"}
    for r, value in printed.items():
        assert f"{matern52(np.array([r]))[0]:.6f}" == value


@pytest.mark.parametrize("length", [0.1, 1.0, 30.0])
def test_matern_of_distances_agrees_with_scikit_learn(length):
    A, B = np.random.default_rng(0).random((2, 20, 7))
    ours = matern52(np.sqrt(squared_distances(A, B)) / length)
    np.testing.assert_allclose(ours, Matern(length, nu=2.5)(A, B), rtol=1e-10, atol=1e-12)


@given(st.floats(1e-3, 20.0))
def test_slope_is_the_derivative_in_the_squared_distance(r):
    step = 1e-6 * r * r
    s = np.array([r * r - step, r * r + step])
    numeric = np.diff(matern52(np.sqrt(s)))[0] / (2 * step)
    # Central difference: truncation step^2, cancellation eps / step.
    bound = 1e-6 * abs(matern52_slope(np.array([r]))[0]) + 4 * TINY / step
    assert abs(matern52_slope(np.array([r]))[0] - numeric) <= bound


def test_slope_is_finite_at_zero():
    assert matern52_slope(np.array([0.0]))[0] == pytest.approx(-5 / 6, rel=1e-15)


def test_distance_of_a_point_to_itself_is_exactly_zero():
    A = np.random.default_rng(1).random((5, 49))
    assert (np.diag(squared_distances(A, A)) == 0).all()
    assert (squared_distances(A, A.copy()) >= 0).all()
