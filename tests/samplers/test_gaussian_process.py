# SPDX-License-Identifier: Apache-2.0
"""Regression against printed answers, scikit-learn and finite differences."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from bitscout.samplers.gaussian_process import (
    Posterior,
    Standardizer,
    negative_log_likelihood,
    scaled_nll,
)
from bitscout.samplers.kernels import matern52
from bitscout.samplers.surrogates import Points
from bitscout.samplers.vector_surrogates import PaperSurrogate, VectorModel


def points(X):
    return Points(X, X)


def known_answer(at):
    """Return mean and deviation at `at` for the three observations of the specification."""
    X, y = np.array([[0.1], [0.5], [0.9]]), np.array([1.0, 2.0, 1.5])
    standardizer = Standardizer.of(y)
    model = PaperSurrogate().fit(points(X), standardizer.standardize(y))
    mean, sd = model.predict(points(np.array([[at]])))
    return standardizer.restore(mean)[0], standardizer.scale * sd[0]


@pytest.mark.parametrize(
    ("at", "mean", "sd"),
    [
        (0.3, "1.623202", "0.023000"),
        (0.5, "1.998485", "0.004078"),
        (0.0, "0.709006", "0.029303"),
    ],
)
def test_posterior_takes_the_known_answers(at, mean, sd):
    actual = known_answer(at)
    assert (f"{actual[0]:.6f}", f"{actual[1]:.6f}") == (mean, sd)


def test_upper_bound_takes_the_known_answer():
    mean, sd = known_answer(0.3)
    assert f"{mean + 2.6 * sd:.6f}" == "1.683001"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_posterior_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    X, y, X_new = rng.random((30, 5)), rng.normal(size=30), rng.random((50, 5))
    y = Standardizer.of(y).standardize(y)
    theirs = GaussianProcessRegressor(Matern(0.7, nu=2.5), alpha=1e-4, optimizer=None).fit(X, y)
    mean, sd = PaperSurrogate(length_scale=0.7).fit(points(X), y).predict(points(X_new))
    expected_mean, expected_sd = theirs.predict(X_new, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(sd, expected_sd, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_likelihood_and_gradient_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.random((25, 4)), rng.normal(size=25)
    theta = np.log([0.3, 0.7, 1.5, 4.0, 0.05])
    kernel = Matern(np.exp(theta[:4]), nu=2.5) + WhiteKernel(np.exp(theta[4]))
    theirs = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(X, y)
    value, gradient = theirs.log_marginal_likelihood(theta, eval_gradient=True)
    ours, our_gradient = scaled_nll(theta, X, y, np.arange(4))
    assert ours == pytest.approx(-value, rel=1e-9)
    np.testing.assert_allclose(our_gradient, -gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("groups", [[0, 0, 0, 0, 0], [0, 1, 0, 2, 1], [0, 1, 2, 3, 4]])
def test_gradient_of_the_likelihood_is_that_of_finite_differences(groups):
    rng = np.random.default_rng(3)
    X, y, groups = rng.random((15, 5)), rng.normal(size=15), np.array(groups)
    theta = np.append(rng.normal(size=groups.max() + 1), -3.0)

    def value(t):
        return scaled_nll(t, X, y, groups)[0]

    def gradient(t):
        return scaled_nll(t, X, y, groups)[1]

    assert check_grad(value, gradient, theta) < 1e-4 * np.linalg.norm(gradient(theta))


def test_likelihood_of_one_observation_is_the_normal_density():
    posterior = Posterior.of(np.ones((1, 1)), np.array([0.5]), 0.25)
    expected = 0.5 * 0.25 / 1.25 + 0.5 * np.log(2 * np.pi * 1.25)
    assert negative_log_likelihood(posterior, np.array([0.5])) == pytest.approx(expected)


def test_gradients_of_the_prediction_are_those_of_finite_differences():
    rng = np.random.default_rng(4)
    X, y, u = rng.random((12, 3)), rng.normal(size=12), rng.random(3)
    model = VectorModel.of(X, y, np.array([0.5, 1.0, 2.0]), 1e-3)
    _, _, mean_slope, sd_slope = model.predict_with_gradient(u)
    numeric = [
        approx_fprime(u, lambda v, part=part: model.predict_with_gradient(v)[part])
        for part in (0, 1)
    ]
    # Forward differences err by the step, 1.5e-8, times the second derivative, below 1e3 here.
    np.testing.assert_allclose([mean_slope, sd_slope], numeric, rtol=1e-4, atol=2e-5)


def test_prediction_at_one_point_is_that_of_the_batch():
    rng = np.random.default_rng(5)
    X, y, U = rng.random((12, 3)), rng.normal(size=12), rng.random((4, 3))
    model = VectorModel.of(X, y, np.array([0.5, 1.0, 2.0]), 1e-3)
    mean, sd = model.predict(points(U))
    for i, u in enumerate(U):
        assert model.predict_with_gradient(u)[:2] == pytest.approx((mean[i], sd[i]), rel=1e-9)


def test_variance_is_not_negative_where_rounding_makes_it_so():
    X = np.repeat(np.random.default_rng(6).random((1, 3)), 40, axis=0)
    posterior = Posterior.of(np.ones((40, 40)), np.ones(40), 1e-13)
    _, sd = posterior.predict(np.ones((3, 40)) * (1 + 1e-9))
    assert X.shape and np.isfinite(sd).all() and (sd == 0).all()


def test_far_from_the_data_the_prior_returns():
    mean, sd = Posterior.of(np.eye(2), np.array([3.0, -1.0]), 0.1).predict(np.zeros((1, 2)))
    assert (mean[0], sd[0]) == (0.0, 1.0)
    assert matern52(np.array([1e3]))[0] == 0.0


def test_equal_observations_have_scale_zero_and_are_restored_exactly():
    standardizer = Standardizer.of(np.full(7, 0.1) + 1e-17)
    assert standardizer.scale == 0.0
    assert (standardizer.standardize(np.array([0.1, 5.0])) == 0.0).all()
    np.testing.assert_allclose(standardizer.restore(np.array([3.0])), 0.1, rtol=1e-15)


def test_standardized_observations_have_mean_zero_and_deviation_one():
    y = np.random.default_rng(7).normal(5.0, 3.0, size=20)
    z = Standardizer.of(y).standardize(y)
    assert z.mean() == pytest.approx(0.0, abs=1e-14)
    assert z.std() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(Standardizer.of(y).restore(z), y, rtol=1e-12)
