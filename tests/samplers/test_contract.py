# SPDX-License-Identifier: Apache-2.0
"""Optuna's own contract suite, for every sampler of the package."""

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

import bitscout.samplers
from bitscout.samplers import (
    ExchangeProposal,
    GaussianProcessSampler,
    GradientProposal,
    GuidedSampler,
    IndependentSelection,
    KMeansTPESampler,
    MixtureParzen,
    PaperSurrogate,
    PerTrialSampler,
    PoolProposal,
    RandomSearchSampler,
    ScaledSurrogate,
)

# The edit distance needs a `describe` hook, hence a fixed space: see test_gp_sampler.py.
# `slow` marks variants that differ from an unmarked one only behind the sampler's own code.
GP_SAMPLERS = {
    "paper": lambda: GaussianProcessSampler(n_startup_trials=0, seed=0),
    "ml2": lambda: GaussianProcessSampler(
        PaperSurrogate(length_scale="ml2"), n_startup_trials=0, seed=1
    ),
    "lbfgs": lambda: GaussianProcessSampler(
        n_startup_trials=0, seed=2, proposal=GradientProposal(n_restarts=3)
    ),
    "scaled": lambda: GaussianProcessSampler(ScaledSurrogate(), n_startup_trials=0),
    # Of the suite's spaces those that are not listed are left to a pool: a small one will do.
    "guided": lambda: GuidedSampler(
        seed=0, proposal=ExchangeProposal(fallback=PoolProposal(n_random=50, n_mutants=10))
    ),
}
TPE_SAMPLERS = {
    "kmeans-tpe": lambda: KMeansTPESampler(n_startup_trials=0, seed=0),
    "kmeans-tpe-literal": lambda: KMeansTPESampler.literal(n_startup_trials=0, seed=1),
    "kmeans-tpe-independent": lambda: KMeansTPESampler(
        n_startup_trials=0, selection=IndependentSelection(), seed=2
    ),
    "kmeans-tpe-mixture": lambda: KMeansTPESampler(
        n_startup_trials=0, estimator=MixtureParzen(), append_to_bad=("lost", "pending")
    ),
}
OTHER_SAMPLERS = {
    "random": lambda: RandomSearchSampler(seed=0),
    "tpe-per-trial": lambda: PerTrialSampler(lambda seed: optuna.samplers.TPESampler(seed=seed)),
}


def marked(names):
    slow = {"ml2", "lbfgs", "kmeans-tpe-literal", "kmeans-tpe-independent"}
    return [pytest.param(n, marks=[pytest.mark.slow] * (n in slow)) for n in names]


@pytest.fixture(autouse=True, scope="module")
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestBasic(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=[*marked(GP_SAMPLERS | TPE_SAMPLERS), *OTHER_SAMPLERS])
    def sampler(self, request):
        return (GP_SAMPLERS | TPE_SAMPLERS | OTHER_SAMPLERS)[request.param]


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture(params=[*marked(GP_SAMPLERS | TPE_SAMPLERS), "random"])
    def sampler(self, request):
        return (GP_SAMPLERS | TPE_SAMPLERS | OTHER_SAMPLERS)[request.param]


def test_every_sampler_of_the_package_is_in_the_suite():
    public = {
        name
        for name in bitscout.samplers.__all__
        if name.endswith("Sampler") and isinstance(getattr(bitscout.samplers, name), type)
    }
    tested = {
        type(make()).__name__ for make in (GP_SAMPLERS | TPE_SAMPLERS | OTHER_SAMPLERS).values()
    }
    # It needs a fixed space, and the suite brings its own: see test_feasible.py.
    assert public - {"FeasibleSampler"} == tested
