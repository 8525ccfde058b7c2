# SPDX-License-Identifier: Apache-2.0
"""The words of the project as plain immutable data: standard library and NumPy only."""

from bitscout.core.budget import Budget
from bitscout.core.candidate import Candidate, Value, Values, canonical_json
from bitscout.core.kmeans import Clusters, kmeans_1d, lloyd_1d
from bitscout.core.layer import BIAS_BITS, Layer, LayerGraph, LayerKind, Node, Op
from bitscout.core.layer_arrays import LayerArrays
from bitscout.core.metrics import METRIC_DIRECTIONS, Metrics
from bitscout.core.objective import (
    AccuracyScore,
    BompScore,
    FrontObjective,
    Objective,
    PenalizedScore,
)
from bitscout.core.pareto import hypervolume, pareto_mask
from bitscout.core.policy import LayerBits, QuantPolicy
from bitscout.core.seeding import child_rng, child_seed

__all__ = [
    "BIAS_BITS",
    "METRIC_DIRECTIONS",
    "AccuracyScore",
    "BompScore",
    "Budget",
    "Candidate",
    "Clusters",
    "FrontObjective",
    "Layer",
    "LayerArrays",
    "LayerBits",
    "LayerGraph",
    "LayerKind",
    "Metrics",
    "Node",
    "Objective",
    "Op",
    "PenalizedScore",
    "QuantPolicy",
    "Value",
    "Values",
    "canonical_json",
    "child_rng",
    "child_seed",
    "hypervolume",
    "kmeans_1d",
    "lloyd_1d",
    "pareto_mask",
]
