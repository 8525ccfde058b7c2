# SPDX-License-Identifier: Apache-2.0
"""The process around expected losses, against plain linear algebra on its written definition."""

import numpy as np
import pytest

from bitscout.errors import ConfigError
from bitscout.samplers import Points, PriorSurrogate
from bitscout.samplers.prior_process import LENGTH, Effects, Parameters, PriorModel

LOSSES = [np.array([9.0, 3.0, 1.0]), None, np.array([4.0, 2.0, 1.5])]


def points(rng, n):
    rows = rng.integers(0, 3, size=(n, 3)).astype(float)
    return Points(rows, (rows + 0.5) / 3)


def effect(d, j, gamma):
    """e_d(j), written out."""
    tables = {d: LOSSES[d] - LOSSES[d].min() for d in (0, 2)}
    powers = {d: table**gamma for d, table in tables.items()}
    rms = np.sqrt(np.mean(np.concatenate(list(powers.values())) ** 2))
    return powers[d][int(j)] / rms


def prior_mean(row, theta):
    return theta.a * sum(effect(d, row[d], theta.gamma) for d in (0, 2))


def prior_covariance(x, u, z, w, theta):
    """Cov of two points with rows x, z and unit coordinates u, w, summand by summand."""
    total = theta.v * theta.phi * np.exp(-np.abs(u - w).sum() / LENGTH)
    for d in (0, 2):
        both = effect(d, x[d], theta.gamma) * effect(d, z[d], theta.gamma)
        total += (theta.a * theta.tau) ** 2 * both * (1.0 + (x[d] == z[d])) / 2.0
    s, t = u[1] - 0.5, w[1] - 0.5
    parabola = 12 * s * t + 45 * (s * s - 1 / 12) * (t * t - 1 / 12)
    return total + (theta.a * theta.tau) ** 2 * parabola


def table():
    return np.array([[8.0, 2.0, 0.0], [0.0, 0.0, 0.0], [2.5, 0.5, 0.0]])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_predictions_equal_generalized_least_squares_on_the_definition(gamma):
    rng = np.random.default_rng(0)
    seen, new = points(rng, 9), points(rng, 4)
    y, theta = rng.normal(size=9), Parameters(gamma, 0.7, 0.6, 0.3, 0.5)
    model = PriorModel.of(Effects.of(table(), gamma), theta, seen, y)

    def cov(A, B):
        return np.array(
            [
                [prior_covariance(x, u, z, w, theta) for z, w in zip(B.rows, B.unit, strict=True)]
                for x, u in zip(A.rows, A.unit, strict=True)
            ]
        )

    K = cov(seen, seen) + theta.v * (1 - theta.phi) * np.eye(9)
    # A flat prior on the constant is a very wide one.
    K += 1e6
    k, own = cov(new, seen) + 1e6, np.diag(cov(new, new)) + 1e6
    residual = y - [prior_mean(row, theta) for row in seen.rows]
    mean = [prior_mean(row, theta) for row in new.rows] + k @ np.linalg.solve(K, residual)
    sd = np.sqrt(own - np.einsum("ij,ji->i", k, np.linalg.solve(K, k.T)))
    # 1e6 against 1, with 16 digits: about ten are lost in the variance.
    predicted = model.predict(new)
    np.testing.assert_allclose(predicted[0], mean, atol=1e-5)
    np.testing.assert_allclose(predicted[1], sd, atol=1e-4)


def test_conditioning_is_fitting_to_all_with_the_same_parameters():
    rng = np.random.default_rng(1)
    first, second, new = points(rng, 6), points(rng, 3), points(rng, 5)
    y, theta = rng.normal(size=9), Parameters(1.0, 0.5, 0.8, 0.4, 0.2)
    effects = Effects.of(table(), 1.0)
    joined = Points(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    told = PriorModel.of(effects, theta, first, y[:6]).condition(second, y[6:])
    whole = PriorModel.of(effects, theta, joined, y)
    np.testing.assert_allclose(told.predict(new), whole.predict(new), rtol=1e-12)


def likelihood(model):
    """-log p(y) up to a constant, with the constant b integrated out by projection."""
    n, theta = len(model.y), model.parameters
    cov = model.L @ model.L.T
    mean = theta.a * model.effects.features(model.points).mu
    basis = np.linalg.svd(np.ones((1, n)))[2][1:].T
    P, r = basis.T @ cov @ basis, basis.T @ (model.y - mean)
    # The projection of the whitened data has the determinant of the whole, less that of ones.
    return 0.5 * (r @ np.linalg.solve(P, r) + np.linalg.slogdet(P)[1])


def test_the_fit_is_no_less_likely_than_any_other_parameters_on_the_grid():
    rng = np.random.default_rng(2)
    seen = points(rng, 25)
    theta = Parameters(1.0, 0.5, 0.2, 1.0, 0.02)
    effects = Effects.of(table(), 1.0)
    y = effects.features(seen).mu + 0.1 * rng.normal(size=25)
    y = (y - y.mean()) / y.std()
    model = PriorSurrogate(LOSSES).fit(seen, y)
    best = likelihood(model)
    assert model.parameters.a > 0.2
    for a in (0.01, 0.1):
        other = Parameters(1.0, theta.tau, theta.phi, a, model.parameters.v)
        assert best < likelihood(PriorModel.of(effects, other, seen, model.y))


def test_a_network_is_expected_to_be_worse_where_losses_are_larger():
    rng = np.random.default_rng(3)
    seen = points(rng, 4)
    y = np.array([1.0, 0.2, -0.4, -0.8])
    model = PriorSurrogate(LOSSES).fit(seen, y)
    rows = np.array([[0.0, 1.0, 0.0], [2.0, 1.0, 2.0]])
    mean, _ = model.predict(Points(rows, (rows + 0.5) / 3))
    assert mean[0] > mean[1]


def test_one_or_equal_observations_are_no_trouble():
    rng = np.random.default_rng(4)
    for n in (1, 2, 5):
        seen = points(rng, n)
        mean, sd = PriorSurrogate(LOSSES).fit(seen, np.zeros(n)).predict(points(rng, 6))
        assert np.isfinite(mean).all()
        assert (sd > 0).any()


def test_bad_observations_are_compressed_in_their_order():
    rng = np.random.default_rng(5)
    seen, y = points(rng, 8), np.array([0.0, 0.1, 0.2, 0.1, 0.3, 0.2, 5.0, 50.0])
    kept = PriorSurrogate(LOSSES).fit(seen, y).y
    np.testing.assert_allclose(kept[:6], y[:6])
    assert kept[5] < kept[6] < kept[7] < 5.0


def test_losses_of_other_choices_are_refused():
    with pytest.raises(ConfigError, match="2 choices, but the space has 3"):
        PriorSurrogate(LOSSES[:2]).fit(points(np.random.default_rng(0), 2), np.zeros(2))
    with pytest.raises(ConfigError, match="finite"):
        PriorSurrogate([np.array([1.0, np.inf])])
