# SPDX-License-Identifier: Apache-2.0
"""Which layers of a network can spare bits: traces, clusters, and an exact allocation."""

from bitscout.sensitivity.estimators import EmpiricalFisher, Estimator, GaussNewton, Hutchinson
from bitscout.sensitivity.loss import CrossEntropy, Loss, SquaredError
from bitscout.sensitivity.measure import ESTIMATORS, measure_sensitivity, sensitivity_signature
from bitscout.sensitivity.result import LayerSensitivity, Sensitivity

__all__ = [
    "ESTIMATORS",
    "CrossEntropy",
    "EmpiricalFisher",
    "Estimator",
    "GaussNewton",
    "Hutchinson",
    "LayerSensitivity",
    "Loss",
    "Sensitivity",
    "SquaredError",
    "measure_sensitivity",
    "sensitivity_signature",
]
