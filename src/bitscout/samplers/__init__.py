# SPDX-License-Identifier: Apache-2.0
"""Searchers, each an Optuna `BaseSampler` that works in anyone's study."""

from bitscout.samplers.design_space import FeasibilitySearch, search_feasible
from bitscout.samplers.dual_ascent import DualAscent
from bitscout.samplers.edit_distance import Descriptors, edit_distances
from bitscout.samplers.edit_surrogate import EditDistanceSurrogate
from bitscout.samplers.exchange import ExchangeProposal
from bitscout.samplers.feasible import FeasibleSampler
from bitscout.samplers.gp_sampler import GaussianProcessSampler
from bitscout.samplers.guided_sampler import GuidedSampler
from bitscout.samplers.hooks import SpaceHooks
from bitscout.samplers.hyperopt_suggest import kmeans_tpe_suggest
from bitscout.samplers.kmeans_tpe import KMeansTPESampler
from bitscout.samplers.mixture_parzen import MixtureParzen, ParzenBySpace
from bitscout.samplers.observation_split import ClusterSplit, QuantileSplit
from bitscout.samplers.per_trial import OPTUNA_SAMPLERS, PerTrialSampler, optuna_sampler
from bitscout.samplers.prior_surrogate import PriorSurrogate
from bitscout.samplers.product_parzen import ProductParzen
from bitscout.samplers.proposal import GradientProposal, PoolProposal, Proposal
from bitscout.samplers.random_sampler import RandomSearchSampler
from bitscout.samplers.ratio_selection import IndependentSelection, JointSelection
from bitscout.samplers.surrogates import Points, Screening, Surrogate
from bitscout.samplers.vector_surrogates import PaperSurrogate, ScaledSurrogate

__all__ = [
    "OPTUNA_SAMPLERS",
    "ClusterSplit",
    "Descriptors",
    "DualAscent",
    "EditDistanceSurrogate",
    "ExchangeProposal",
    "FeasibilitySearch",
    "FeasibleSampler",
    "GaussianProcessSampler",
    "GradientProposal",
    "GuidedSampler",
    "IndependentSelection",
    "JointSelection",
    "KMeansTPESampler",
    "MixtureParzen",
    "PaperSurrogate",
    "ParzenBySpace",
    "PerTrialSampler",
    "Points",
    "PoolProposal",
    "PriorSurrogate",
    "ProductParzen",
    "Proposal",
    "QuantileSplit",
    "RandomSearchSampler",
    "ScaledSurrogate",
    "Screening",
    "SpaceHooks",
    "Surrogate",
    "edit_distances",
    "kmeans_tpe_suggest",
    "optuna_sampler",
    "search_feasible",
]
