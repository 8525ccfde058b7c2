# SPDX-License-Identifier: Apache-2.0
"""How the surrogates find their parameters."""

from math import sqrt

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import lognorm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from bitscout.samplers import Descriptors, EditDistanceSurrogate, edit_distances
from bitscout.samplers.edit_surrogate import _most_likely_length_and_noise
from bitscout.samplers.gaussian_process import scaled_nll
from bitscout.samplers.kernels import matern52
from bitscout.samplers.surrogates import Points, most_likely_length
from bitscout.samplers.vector_surrogates import PaperSurrogate, ScaledSurrogate, map_objective


def points(X):
    return Points(X, X)


def sample(n, n_dimensions, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, n_dimensions))
    y = np.sin(5 * X[:, 0]) + 0.1 * rng.normal(size=n)
    return X, (y - y.mean()) / y.std()


def test_the_prior_of_the_length_scale_has_the_printed_mode_and_median_at_49_dimensions():
    prior = lognorm(s=sqrt(3), scale=np.exp(sqrt(2) + np.log(49) / 2))
    grid = np.linspace(0.5, 3.0, 25_001)
    mode = grid[np.argmax(prior.pdf(grid))]
    assert (f"{mode:.2f}", f"{prior.median():.1f}") == ("1.43", "28.8")
    theta, _ = start_and_objective(49)
    assert np.exp(theta[0]) == pytest.approx(mode, abs=1e-3)


def start_and_objective(n_dimensions, groups=None):
    X, y = sample(20, n_dimensions)
    groups = np.zeros(n_dimensions, dtype=int) if groups is None else np.array(groups)
    start, objective = map_objective(X, y, groups)
    return start, objective


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 1, 0], [0, 1, 2]])
def test_the_fitted_objective_is_the_likelihood_times_the_priors(groups):
    X, y = sample(20, 3)
    _, objective = map_objective(X, y, np.array(groups))

    def density(theta):
        nll = scaled_nll(theta, X, y, np.array(groups))[0]
        lengths = lognorm(s=sqrt(3), scale=np.exp(sqrt(2) + np.log(3) / 2))
        noise = lognorm(s=1.0, scale=np.exp(-4))
        return nll - lengths.logpdf(np.exp(theta[:-1])).sum() - noise.logpdf(np.exp(theta[-1]))

    rng = np.random.default_rng(1)
    first, second = (np.append(rng.normal(size=max(groups) + 1), -3.0) for _ in range(2))
    # Up to a constant.
    difference = objective(first)[0] - objective(second)[0]
    assert difference == pytest.approx(density(first) - density(second), rel=1e-9)
    error = check_grad(lambda t: objective(t)[0], lambda t: objective(t)[1], first)
    assert error < 1e-4 * np.linalg.norm(objective(first)[1])


def test_the_relevant_dimension_gets_the_shortest_length_scale():
    X, y = sample(60, 6)
    model = ScaledSurrogate("ard").fit(points(X), y)
    assert model.length_scales.argmin() == 0
    assert (model.length_scales[1:] > 2 * model.length_scales[0]).all()
    assert 1e-4 <= model.noise < 0.1


def test_groups_share_their_length_scale():
    X, y = sample(40, 4)
    scales = ScaledSurrogate((0, 1, 0, 1)).fit(points(X), y).length_scales
    assert scales[0] == scales[2] != scales[1] == scales[3]
    assert len(set(ScaledSurrogate("isotropic").fit(points(X), y).length_scales)) == 1


def test_the_length_of_largest_likelihood_is_scikit_learns():
    X, y = sample(40, 2)
    kernel = Matern(1.0, (1e-5, 1e5), nu=2.5)
    theirs = GaussianProcessRegressor(
        kernel, alpha=1e-4, n_restarts_optimizer=5, random_state=0
    ).fit(X, y)
    ours = PaperSurrogate(length_scale="ml2").fit(points(X), y)
    # The bounded search stops within 6 steps of a bracket of two thirds of a decade.
    assert ours.length_scales[0] == pytest.approx(theirs.kernel_.length_scale, rel=0.02)


def test_the_best_length_is_found_among_several_basins():
    def bumpy(t):
        return 0.05 * (t - 2.0) ** 2 - np.exp(-((t - 5.0) ** 2) / 0.5) * 2.0

    assert most_likely_length(bumpy, 1e-3, 1e4) == pytest.approx(np.exp(5.0), rel=0.1)


def test_the_ends_of_the_range_are_not_left():
    assert most_likely_length(lambda t: t, 0.5, 50.0) == pytest.approx(0.5)
    assert most_likely_length(lambda t: -t, 0.5, 50.0) == pytest.approx(50.0)


def describe(indices):
    return Descriptors.from_sequences([[(0, 8 * (int(j) + 1)) for j in row] for row in indices])


def test_edit_surrogate_predicts_by_its_covariance():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (20, 4)).astype(float)
    new = rng.integers(0, 5, (7, 4)).astype(float)
    y = (rows.sum(axis=1) - 8.0) / 3.0
    model = EditDistanceSurrogate(describe).fit(points(rows), y)
    length, noise = model.parameters
    d = edit_distances(describe(rows), describe(rows))
    d_new = edit_distances(describe(new), describe(rows))
    assert 0.1 <= length / np.median(d[np.triu_indices(20, 1)]) <= 10.0
    assert noise >= 1e-4
    K, k = matern52(d / length), matern52(d_new / length)
    A = K + (noise + max(0.0, -np.linalg.eigvalsh(K).min()) + 1e-6) * np.eye(20)
    mean, sd = model.predict(points(new))
    np.testing.assert_allclose(mean, k @ np.linalg.solve(A, y), rtol=0, atol=1e-8)
    variance = 1 - np.einsum("ij,ji->i", k, np.linalg.solve(A, k.T))
    np.testing.assert_allclose(sd, np.sqrt(variance.clip(0)), rtol=0, atol=1e-6)


def test_edit_covariance_with_negative_eigenvalues_is_repaired():
    # The complete bipartite graph K(2, 3) does not embed into Euclidean space.
    side = np.array([0, 0, 1, 1, 1])
    d = (1.0 + (side[:, None] == side)) * (1 - np.eye(5))
    assert np.linalg.eigvalsh(matern52(d / 10)).min() < 0
    length, noise = _most_likely_length_and_noise(d, np.array([1.0, -1.0, 0.5, 0.0, -0.5]))
    assert length > 0 and noise >= 1e-4


def test_edit_surrogate_of_equal_networks_has_a_length():
    rows = np.zeros((3, 2))
    model = EditDistanceSurrogate(describe).fit(points(rows), np.zeros(3))
    mean, sd = model.predict(points(rows))
    assert (mean == 0).all() and (sd < 0.1).all()


@pytest.mark.parametrize("make", ["paper", "edit"])
def test_conditioning_on_more_equals_fitting_all_with_the_same_parameters(make):
    rng = np.random.default_rng(2)
    rows, new = rng.integers(0, 5, (2, 9, 3)).astype(float)
    y = rng.normal(size=18)
    surrogate = PaperSurrogate(2.0) if make == "paper" else EditDistanceSurrogate(describe)
    part = surrogate.fit(points(rows), y[:9])
    whole = part.condition(points(new), y[9:])
    if make == "paper":
        again = surrogate.fit(points(np.concatenate((rows, new))), y)
    else:
        networks = describe(np.concatenate((rows, new)))
        again = type(part).of(
            describe, (networks,), edit_distances(networks, networks), y, part.parameters
        )
    at = points(rng.integers(0, 5, (6, 3)).astype(float))
    # The deviation is a square root: an error of 1e-12 in the variance is 1e-6 at 0.
    np.testing.assert_allclose(whole.predict(at)[0], again.predict(at)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(whole.predict(at)[1], again.predict(at)[1], rtol=0, atol=1e-5)
