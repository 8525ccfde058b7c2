# SPDX-License-Identifier: Apache-2.0
"""Adaptive Parzen estimators: golden values of HyperOpt, quadrature, HyperOpt itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from bitscout.samplers.parzen import fit_parzen, forgetting_weights, pseudo_counts

RANGE = {"low": -0.5, "high": 4.5}
observations = st.lists(st.floats(-0.5, 4.5), max_size=30).map(
    lambda x: np.array(x).reshape(-1, 1)
)


def fit(*x):
    return fit_parzen(np.array(x, dtype=float).reshape(-1, 1), np.ones(len(x)), **RANGE)


def pmf(mixtures, n_values=5):
    middles = np.arange(n_values)[:, None]
    return mixtures.mass(middles - 0.5, middles + 0.5)[:, 0]


def test_widths_and_probabilities_are_those_of_hyperopt():
    # hyperopt 0.3.0, adaptive_parzen_normal with the prior N(2, 5), the prior listed first here.
    found = fit(0, 0, 4, 3, 1)
    np.testing.assert_array_equal(found.means[:, 0], [2, 0, 0, 4, 3, 1])
    np.testing.assert_allclose(found.sigmas[:, 0], [5, 5 / 7, 1, 1, 1, 1], rtol=1e-12)
    np.testing.assert_allclose(found.weights, np.full(6, 1 / 6), rtol=1e-12)
    expected = [0.27803, 0.22630, 0.15990, 0.17530, 0.16047]
    np.testing.assert_allclose(pmf(found), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("x", "sigmas"), [((), [5]), ((2,), [5, 2.5]), ((0,), [5, 2.5]), ((1, 3), [5, 1.25, 1.25])]
)
def test_widths_of_few_observations(x, sigmas):
    np.testing.assert_allclose(fit(*x).sigmas[:, 0], sigmas, rtol=1e-12)


def test_no_component_is_narrower_than_a_hundredth_of_the_range():
    x = np.linspace(0, 1e-6, 300).reshape(-1, 1)
    found = fit_parzen(x, np.ones(300), low=0.0, high=1.0)
    assert found.sigmas.min() == 0.01


@settings(max_examples=40)
@given(x=observations)
def test_estimators_do_not_depend_on_the_order_of_observations(x):
    there = fit_parzen(x, np.ones(len(x)), **RANGE)
    back = fit_parzen(x[::-1], np.ones(len(x)), **RANGE)
    np.testing.assert_allclose(pmf(there), pmf(back), rtol=1e-9, atol=1e-12)


@settings(max_examples=40)
@given(x=observations)
def test_probabilities_sum_to_one_and_agree_with_the_density(x):
    found = fit_parzen(x, np.ones(len(x)), **RANGE)
    assert pmf(found).sum() == pytest.approx(1.0, rel=1e-12)
    edges = np.linspace(-0.5, 4.5, 2001)[:, None]
    middles = (edges[1:] + edges[:-1]) / 2
    by_midpoints = found.density(middles)[:, 0].reshape(5, -1).mean(axis=1)
    # Midpoint rule: h^2 |f''| / 24 with h = 0.0025 and |f''| <= 0.4 / sigma^3, sigma >= 5 / 32.
    np.testing.assert_allclose(by_midpoints, pmf(found), rtol=0, atol=2.8e-5)


@settings(max_examples=40)
@given(x=observations, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_rules_are_the_same_on_any_axis(x, scale, shift):
    moved = fit_parzen(
        x * scale + shift, np.ones(len(x)), low=-0.5 * scale + shift, high=4.5 * scale + shift
    )
    middles = np.arange(5)[:, None]
    mass = moved.mass((middles - 0.5) * scale + shift, (middles + 0.5) * scale + shift)[:, 0]
    expected = pmf(fit_parzen(x, np.ones(len(x)), **RANGE))
    # A gap that rounding opens between equal numbers is below the narrowest width.
    np.testing.assert_allclose(mass, expected, rtol=1e-6, atol=1e-9)


def test_draws_have_the_density_they_are_drawn_from():
    x = np.array([[-0.4, 0.1], [4.4, 0.1], [1.0, 4.0]])
    found = fit_parzen(x, np.array([1.0, 2.0, 0.5]), **RANGE)
    draws = found.sample(np.random.default_rng(0), 4000)
    for d in range(2):

        def cdf(points, d=d):
            upper = np.repeat(np.asarray(points)[:, None], 2, axis=1)
            return found.mass(np.full_like(upper, -0.5), upper)[:, d]

        # One in a thousand seeds would fail; seeds 0, 1 and 2 pass.
        assert kstest(draws[:, d], cdf).pvalue > 1e-3


def test_pseudo_counts_are_those_of_hyperopt():
    found = pseudo_counts(np.array([0, 2, 0, 0]), np.ones(4), np.full(5, 0.2))
    expected = [0.4444, 0.1111, 0.2222, 0.1111, 0.1111]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def test_pseudo_counts_weigh_observations_and_spread_the_prior():
    found = pseudo_counts(np.array([1]), np.array([0.5]), np.array([0.25, 0.75]), prior_weight=2)
    np.testing.assert_allclose(found, np.array([1.0, 3.5]) / 4.5, rtol=1e-12)


def test_the_newest_25_have_full_weight_and_the_oldest_a_nth():
    weights = forgetting_weights(30)
    np.testing.assert_allclose(weights[:5], np.linspace(1 / 30, 1, 5), rtol=1e-12)
    assert (weights[5:] == 1).all()
    assert (forgetting_weights(25) == 1).all()
    assert (forgetting_weights(30, None) == 1).all()


@pytest.mark.parametrize("x", [[], [3.0], [0, 4], [2, 2, 0, 4, 4, 4], np.arange(60) / 15])
def test_agrees_with_hyperopt_itself(x):
    tpe = pytest.importorskip("hyperopt.tpe", reason="the reference is HyperOpt")
    # Above 25 observations without ties, whose order HyperOpt leaves to an unstable sort.
    x = np.random.default_rng(0).permutation(np.array(x, dtype=float))
    found = fit_parzen(x[:, None], forgetting_weights(len(x)), **RANGE)
    weights, mus, sigmas = tpe.adaptive_parzen_normal(x, 1.0, 2.0, 5.0)
    expected = tpe.GMM1_lpdf(np.arange(5.0), weights, mus, sigmas, low=-0.5, high=4.5, q=1.0)
    np.testing.assert_allclose(np.log(pmf(found)), expected, rtol=1e-9, atol=1e-12)
