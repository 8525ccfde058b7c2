# SPDX-License-Identifier: Apache-2.0
"""The fake-quantized network in PyTorch against the integer reference."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from bitscout.export.agreement import (
    LayerAgreement,
    layer_agreement,
    real_outputs,
    to_integers,
    total_agreement,
)
from bitscout.export.checks.result import (
    CheckInputs,
    TargetResult,
    compare_integers,
    compare_reals,
)
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.lowering import Lowered

__all__ = ["check_fake_quant"]

TARGET = "PyTorch"
# Some millions of activations in any network; every tensor is made twice.
MAX_LAYER_IMAGES = 64


def check_fake_quant(
    module: nn.Module, lowered: Lowered, inputs: CheckInputs
) -> list[TargetResult]:
    """Compare the network that was trained with its integers, end to end and layer by layer.

    End to end, on all images: integers must be equal where float32 provably computes the graph
    without rounding; else, where they are not, real outputs are compared. Layer by layer, on up
    to 64 images, every module is fed with the graph's own codes.

    Args:
        module: The network that was lowered.
        lowered: What `lower_with_reads` made of it.
        inputs: Images and the reference's outputs.
    """
    return [_end_to_end(module, lowered, inputs), _layer_by_layer(module, lowered, inputs)]


def _end_to_end(module: nn.Module, lowered: Lowered, inputs: CheckInputs) -> TargetResult:
    graph, setting = lowered.graph, "fake-quant, float32"
    reals = real_outputs(module, graph, inputs.images)
    rounded = rounded_in_float32(graph)
    details = {"rounding_operations": len(rounded)}
    integers = to_integers(graph, reals)
    result = compare_integers(
        TARGET, setting, inputs.outputs, integers, details, scores=graph.scores
    )
    if result.state == "passed" or not rounded:
        return result
    return compare_reals(TARGET, setting, graph.scores(inputs.outputs), reals, details)


def _layer_by_layer(module: nn.Module, lowered: Lowered, inputs: CheckInputs) -> TargetResult:
    images = inputs.images[:MAX_LAYER_IMAGES]
    layers = layer_agreement(module, lowered, images)
    total = total_agreement(layers)
    is_equal = not rounded_in_float32(lowered.graph)
    worst = max(layers, key=lambda layer: (not layer.is_good, layer.max_steps, layer.mismatches))
    result = TargetResult(
        name=TARGET,
        setting="fake-quant, layer by layer",
        state="passed",
        outputs=total.values,
        mismatches=total.mismatches,
        max_lsb=total.max_steps,
        details={
            "images": len(images),
            "tensors": len(layers),
            "mismatch_rate": total.mismatch_rate,
            "worst_tensor": worst.name if worst.mismatches else "",
        },
    )
    if total.mismatches == 0 or (not is_equal and worst.is_good and total.is_good):
        return result
    return replace(result, state="failed", reason=_complaint(worst, total))


def _complaint(worst: LayerAgreement, total: LayerAgreement) -> str:
    return (
        f"{total.mismatches} of {total.values} activations differ; in {worst.name!r} "
        f"{worst.mismatches} of {worst.values}, by up to {worst.max_steps} steps"
    )
