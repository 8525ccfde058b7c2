# SPDX-License-Identifier: Apache-2.0
"""From a configuration to the objects a run works with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.samplers import BaseSampler
from torch import nn

from bitscout.core import Budget, Objective, PenalizedScore, QuantPolicy, child_seed
from bitscout.errors import ConfigError
from bitscout.pipeline.candidate_costs import CandidateCosts
from bitscout.pipeline.config import FinalConfig, ModelSpaceConfig, RunConfig, TrainingConfig
from bitscout.pipeline.evaluate import EvaluationPlan
from bitscout.pipeline.guidance import Guidance
from bitscout.pipeline.hooks import describer, space_hooks
from bitscout.pipeline.measuring import onnx_writer
from bitscout.pipeline.spaces import build_space
from bitscout.quantization import (
    ActivationObserver,
    LayerOutputObserver,
    MaxAbsObserver,
    MinMaxObserver,
    MseActivationObserver,
    MseObserver,
    PercentileObserver,
    PowerOfTwoObserver,
    PowerOfTwoPerTensorObserver,
    QuantConfig,
    WeightObserver,
)
from bitscout.samplers import (
    EditDistanceSurrogate,
    FeasibleSampler,
    GaussianProcessSampler,
    GuidedSampler,
    KMeansTPESampler,
    PaperSurrogate,
    RandomSearchSampler,
    ScaledSurrogate,
    Surrogate,
    optuna_sampler,
)
from bitscout.space import Architecture, ModelSpace, SearchSpace
from bitscout.training import Augmenter, ImageData, Recipe, load_dataset

__all__ = [
    "Components",
    "build_components",
    "build_plan",
    "build_quantization",
    "build_sampler",
    "choose_device",
    "describe_data",
    "load_data",
]

WEIGHT_OBSERVERS: Mapping[str, Callable[[], WeightObserver]] = {
    "max-abs": MaxAbsObserver,
    "mse": MseObserver,
    "layer-output": LayerOutputObserver,
    "power-of-two": PowerOfTwoObserver,
    "power-of-two-per-tensor": PowerOfTwoPerTensorObserver,
}
ACT_OBSERVERS: Mapping[str, Callable[[], ActivationObserver]] = {
    "min-max": MinMaxObserver,
    "percentile": PercentileObserver,
    "mse": MseActivationObserver,
}

KMEANS_TPE: Mapping[str, Callable[..., KMeansTPESampler]] = {
    "joint": KMeansTPESampler,
    "literal": KMeansTPESampler.literal,
    "improved": KMeansTPESampler.improved,
}


@dataclass(frozen=True)
class Components:
    """The objects of one run.

    Attributes:
        config: Where they come from.
        data: The whole data set, on the device; only final networks may see its test split.
        space: What may be chosen.
        objective: What is better.
        budget: What a candidate may cost.
        costs: What candidates cost on the hardware of the run.
        device: Where to compute.
        guidance: What sensitivities say, once the given network of a run is ready.
    """

    config: RunConfig
    data: ImageData
    space: SearchSpace
    objective: Objective
    budget: Budget
    costs: CandidateCosts
    device: torch.device
    guidance: Guidance | None = None

    @property
    def is_penalized(self) -> bool:
        """Whether candidates over the budget are trained all the same, and their score is less."""
        return isinstance(self.objective, PenalizedScore)


def build_components(
    config: RunConfig,
    *,
    space: SearchSpace | None = None,
    module: nn.Module | None = None,
    data: ImageData | None = None,
    has_weights: bool = False,
) -> Components:
    """Load the data and build everything else.

    Args:
        config: The configuration.
        space: Used instead of the one `config` describes, where that says ``custom``.
        module: The given network, where `config` does not say how to make it.
        data: Likewise.
        has_weights: Whether the run has the given network's weights already, so that its
            checkpoint is not read.

    Raises:
        ConfigError: If ``custom`` is named without an object, or the device is not there.
        DataError: If the data cannot be loaded.
    """
    device = choose_device(config.device)
    data = load_data(config) if data is None else data
    if config.training.shift is not None:
        Augmenter(data, flip=False, shift=config.training.shift)  # Refuses what cannot be done.
    if space is None:
        space = build_space(
            config, data.input_shape, data.n_classes, module=module, has_weights=has_weights
        )
    if isinstance(space, ModelSpace):
        space.check_supported()
    return Components(
        config=config,
        data=data.to(device),
        space=space,
        objective=config.build_objective(),
        budget=config.budget.build(),
        costs=build_costs(config, space, data.input_shape),
        device=device,
    )


def build_costs(
    config: RunConfig, space: SearchSpace, input_shape: tuple[int, int, int]
) -> CandidateCosts:
    """Return what the networks of `space` cost on the hardware of the configuration."""

    def onnx(architecture: Architecture, policy: QuantPolicy) -> Callable[[], Path]:
        return onnx_writer(architecture, policy, input_shape)

    return CandidateCosts(space, config.build_hardware(), onnx)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; ``auto`` is CUDA where there is a GPU.

    Raises:
        ConfigError: If CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        msg = "`device` is cuda, but PyTorch finds no GPU here. Use --device cpu or auto."
        raise ConfigError(msg)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_data(config: RunConfig) -> ImageData:
    """Return the data set of the configuration, on the CPU.

    Raises:
        ConfigError: If it was handed over in Python and is not here now.
        DataError: If it is missing, damaged, or not of the announced form.
    """
    dataset = config.dataset
    if dataset.name == "custom":
        msg = (
            "`dataset.name` is custom: the data was handed over in Python. Hand it over again: "
            "bitscout.search(..., data=..., resume=True)."
        )
        raise ConfigError(msg)
    return load_dataset(
        dataset.name,
        dataset.path,
        validation=dataset.validation,
        seed=child_seed(config.seed, "split"),
        limit=dataset.limit,
        resize=dataset.resize,
    )


def build_plan(components: Components, training: TrainingConfig | FinalConfig) -> EvaluationPlan:
    """Return how candidates (``config.training``) or final networks (``config.final``) train.

    Batch size, learning rate and augmentation are those of the search in both.
    """
    config = components.config
    common = config.training
    recipe = Recipe(
        epochs=training.epochs,
        qaft_epochs=training.qaft_epochs,
        batch_size=common.batch_size,
        optimizer=common.optimizer,
        lr=common.lr,
        qaft_lr_fraction=common.qaft_lr_fraction,
        revive_norms=_or_given(common.revive_norms, config),
        weight_decay=common.weight_decay,
        flip=common.flip,
        shift=common.shift,
    )
    return EvaluationPlan(
        recipe=recipe,
        quantization=build_quantization(config),
        calibration_images=config.quantization.calibration_images,
        device=components.device,
    )


def build_quantization(config: RunConfig) -> QuantConfig:
    """Return the quantizers these keys describe; keys left null keep `QuantConfig`'s default."""
    section = config.quantization
    chosen = QuantConfig(bias_correction=section.bias_correction, exact_steps=section.exact_steps)
    if section.act_observer != "auto":
        chosen = replace(chosen, act_observer=ACT_OBSERVERS[section.act_observer]())
    if section.weight_observer != "auto":
        chosen = replace(chosen, weight_observer=WEIGHT_OBSERVERS[section.weight_observer]())
    if section.profile == "hls4ml":
        chosen = replace(chosen, weight_observer=PowerOfTwoPerTensorObserver())
    learns = _or_given(section.learn_weight_steps, config)
    chosen = replace(chosen, learn_weight_steps=learns)
    if section.learn_act_steps is not None:
        chosen = replace(chosen, learn_act_steps=section.learn_act_steps)
    return chosen


def _or_given(value: bool | None, config: RunConfig) -> bool:
    """Return `value`, by default whether a given network is quantized with steps of any size.

    Networks trained for each candidate gain nothing from it at the bits they have: ADR 4 and 14.
    """
    if value is not None:
        return value
    return isinstance(config.space, ModelSpaceConfig) and config.quantization.profile is None


def build_sampler(components: Components) -> BaseSampler:
    """Return the searcher. Its proposals depend on (seed, trial, history) alone."""
    section = components.config.searcher
    seed = child_seed(components.config.seed, "sampler")
    hooks = space_hooks(components.costs, components.objective, components.budget)
    if section.name == "random":
        return RandomSearchSampler(seed=seed, hooks=hooks)
    if section.name == "kmeans-tpe":
        return KMEANS_TPE[section.variant](
            n_startup_trials=section.n_startup_trials, seed=seed, hooks=hooks
        )
    if section.name == "guided":
        guidance = components.guidance
        assert guidance is not None, "the given network is measured before its search"
        starts = np.array(guidance.starts(components.budget), dtype=np.int64)
        widths = [c.name for c in components.space.choices if c.kind == "architecture"]
        return GuidedSampler(
            guidance.expected_loss, starts, unknown=widths, seed=seed, hooks=hooks
        )
    if section.name != "bomp":
        sampler = optuna_sampler(section.name, seed)
        return sampler if hooks.violation is None else FeasibleSampler(sampler, hooks, seed=seed)
    surrogate: Surrogate
    if section.surrogate == "scaled":
        surrogate = ScaledSurrogate()
    else:
        # The paper models the whole score, not the accuracy alone.
        hooks = replace(hooks, known_term=None)
        if section.surrogate == "paper":
            surrogate = PaperSurrogate()
        else:
            surrogate = EditDistanceSurrogate(describer(components.space))
    return GaussianProcessSampler(
        surrogate,
        n_startup_trials=section.n_startup_trials,
        beta=section.beta,
        seed=seed,
        hooks=hooks,
    )


def describe_data(data: ImageData) -> dict[str, Any]:
    """Return the document ``dataset.json``: what loading a network back needs, and a fingerprint.

    The fingerprint is a SHA-256 over the images and labels of all three splits.
    """
    digest = hashlib.sha256()
    sizes = {}
    for name in ("train", "val", "test"):
        split = data.split(name)
        digest.update(np.ascontiguousarray(split.images.cpu().numpy()).tobytes())
        digest.update(split.labels.cpu().numpy().tobytes())
        sizes[f"n_{name}"] = len(split)
    return {
        "name": data.name,
        "input_shape": list(data.input_shape),
        "n_classes": data.n_classes,
        "class_names": list(data.class_names) if data.class_names else None,
        **sizes,
        "mean": list(data.mean),
        "std": list(data.std),
        "fingerprint": digest.hexdigest()[:16],
    }
