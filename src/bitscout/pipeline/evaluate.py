# SPDX-License-Identifier: Apache-2.0
"""From an architecture and its policies to trained quantized networks and their accuracy.

One architecture is trained in floating point once; every policy then quantizes and fine-tunes its
own copy of that network (BOMP-NAS III, steps 2 to 5). A given network comes with weights, which
its other widths inherit, and may skip the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from bitscout.core import QuantPolicy, child_seed
from bitscout.errors import TrainingError
from bitscout.networks import build_network, recalibrate_batch_norm
from bitscout.quantization import QuantConfig, post_training_quantize
from bitscout.space import Architecture, ModelArchitecture
from bitscout.training import ImageData, OnEpoch, Recipe, calibration_batch, evaluate, train

__all__ = ["EvaluationPlan", "OnStage", "Trained", "evaluate_policies"]

OnStage = Callable[[str, int, int, float], None]
"""Called with (stage, epochs done, epochs of the stage, loss)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How every candidate is trained and quantized.

    Attributes:
        recipe: Training in floating point and fine-tuning.
        quantization: Observers, bias correction, learned steps.
        calibration_images: Training images shown to the observers.
        device: Where to compute.
    """

    recipe: Recipe
    quantization: QuantConfig
    calibration_images: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One quantized network.

    Attributes:
        policy: Its bit-widths.
        module: The fake-quantized network, in evaluation mode.
        val_accuracy: Fraction of the validation split classified correctly.
        float_accuracy: The same before quantization.
        seconds: Wall time by stage; ``train`` is shared by all policies of one call.
    """

    policy: QuantPolicy
    module: nn.Module
    val_accuracy: float
    float_accuracy: float
    seconds: dict[str, float]


def evaluate_policies(
    architecture: Architecture,
    policies: Sequence[QuantPolicy],
    data: ImageData,
    plan: EvaluationPlan,
    *,
    seed: int,
    on_stage: OnStage,
) -> list[Trained]:
    """Train one architecture, then quantize and fine-tune it once for every policy.

    Deterministic for `seed` on one machine with one number of threads; a policy's result does not
    depend on the other policies of the call.

    Args:
        architecture: The network without its bit-widths.
        policies: One or more.
        data: The test split is not used and may be withheld.
        plan: Recipe, quantizers and device.
        seed: Root of the streams of this evaluation.
        on_stage: Called after every epoch.

    Raises:
        TrainingError: If a training diverges or memory runs out.
        PolicyError: If a policy does not name exactly the layers of the network.
    """
    recipe, device = plan.recipe, plan.device
    with _memory_errors_explained():
        start = perf_counter()
        network = build_network(architecture, generator_seed=child_seed(seed, "init"))
        calibration = calibration_batch(
            data, plan.calibration_images, seed=child_seed(seed, "calibration")
        )
        if isinstance(architecture, ModelArchitecture) and architecture.is_narrower:
            # The inherited statistics are those of sums that have lost a part. A network that is
            # only wider computes what it did, and its statistics are right.
            recalibrate_batch_norm(network.to(device), calibration)
        if recipe.epochs:
            train(
                network,
                data,
                recipe.float_phase(),
                seed=child_seed(seed, "train"),
                device=device,
                on_epoch=_report("train", on_stage),
            )
        float_accuracy = evaluate(network, data, "val", device=device)
        trained = perf_counter()
        results = []
        for policy in policies:
            begin = perf_counter()
            module = post_training_quantize(network, policy, calibration, plan.quantization)
            quantized = perf_counter()
            if recipe.qaft_epochs:
                train(
                    module,
                    data,
                    recipe.qaft_phase(),
                    seed=child_seed(seed, "qaft"),
                    device=device,
                    on_epoch=_report("fine-tune", on_stage),
                )
            accuracy = evaluate(module, data, "val", device=device)
            results.append(
                Trained(
                    policy=policy,
                    module=module,
                    val_accuracy=accuracy,
                    float_accuracy=float_accuracy,
                    seconds={
                        "train": trained - start,
                        "quantize": quantized - begin,
                        "fine-tune": perf_counter() - quantized,
                    },
                )
            )
    return results


def _report(stage: str, on_stage: OnStage) -> OnEpoch:
    def on_epoch(epoch: int, n_epochs: int, loss: float, seconds: float) -> None:
        on_stage(stage, epoch, n_epochs, loss)

    return on_epoch


@contextlib.contextmanager
def _memory_errors_explained() -> Iterator[None]:
    """Turn running out of memory, a `RuntimeError` in PyTorch, into a `TrainingError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise
        msg = "The device ran out of memory. Lower training.batch_size, or narrow the space."
        raise TrainingError(msg) from error
