# SPDX-License-Identifier: Apache-2.0
"""Which layers of a network can spare bits: traces, clusters, and an exact allocation."""

from bitscout.sensitivity.agreement import (
    MeasuredDrop,
    RankAgreement,
    measured_drops,
    rank_agreement,
)
from bitscout.sensitivity.allocation import allocate, ladder
from bitscout.sensitivity.clusters import (
    bit_windows,
    candidate_bits,
    cluster_labels,
    tie_scores,
)
from bitscout.sensitivity.estimators import EmpiricalFisher, Estimator, GaussNewton, Hutchinson
from bitscout.sensitivity.loss import CrossEntropy, Loss, SquaredError
from bitscout.sensitivity.measure import ESTIMATORS, measure_sensitivity, sensitivity_signature
from bitscout.sensitivity.quantization_errors import (
    LossTable,
    QuantizationErrors,
    quantization_errors,
)
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
    "LossTable",
    "MeasuredDrop",
    "QuantizationErrors",
    "RankAgreement",
    "Sensitivity",
    "SquaredError",
    "allocate",
    "bit_windows",
    "candidate_bits",
    "cluster_labels",
    "ladder",
    "measure_sensitivity",
    "measured_drops",
    "quantization_errors",
    "rank_agreement",
    "sensitivity_signature",
    "tie_scores",
]
