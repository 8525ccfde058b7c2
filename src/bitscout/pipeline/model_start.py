# SPDX-License-Identifier: Apache-2.0
"""What happens to a given network before its search: training, sensitivities, pruned choices.

The weights and the sensitivities are files in the folder ``model`` of the run and are not made
again on resume; the rest follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from torch import Tensor, nn

from bitscout.core import child_seed
from bitscout.networks import GivenNetwork
from bitscout.pipeline.components import Components, build_costs, build_quantization
from bitscout.pipeline.config import ModelSpaceConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.events import Listener, ModelFinished, ModelStarted, StageProgress
from bitscout.pipeline.given import export_problem
from bitscout.pipeline.guidance import Guidance
from bitscout.sensitivity import (
    ESTIMATORS,
    LossTable,
    Sensitivity,
    candidate_bits,
    measure_sensitivity,
    quantization_errors,
)
from bitscout.space import ModelSpace
from bitscout.training import Recipe, evaluate, labelled_batch, load_weights, save_weights, train

__all__ = ["start_model"]

PRETRAIN_EPOCHS: Final = 20
ALL_BITS: Final = range(2, 9)


def start_model(components: Components, run: RunDirectory, listener: Listener) -> Components:
    """Return the components of a run whose given network is trained and measured.

    Other spaces are returned as they are.

    Raises:
        TrainingError: If the pre-training diverges.
        RunError: If a file cannot be written.
    """
    space = components.space
    if not isinstance(space, ModelSpace) or not isinstance(space.builder, GivenNetwork):
        return components
    given = space.builder
    run.model.mkdir(exist_ok=True)
    _train_or_load(given.module, components, run, listener)
    accuracy = evaluate(given.module, components.data, "val", device=components.device)
    listener(ModelStarted("measuring the sensitivity of each layer"))
    section = components.config.sensitivity
    seed = child_seed(components.config.seed, "sensitivity")
    images, labels = labelled_batch(components.data, section.images, seed=seed)
    sensitivity = measure_sensitivity(
        given.module,
        images,
        labels,
        estimator=ESTIMATORS[section.estimator.replace("-", "_")](),
        cache=run.sensitivity,
    )
    sensitivity = _with_inputs(sensitivity, given.module, images, labels)
    losses = _losses(space, given.module, sensitivity, images, components)
    subsets = _subsets(space, sensitivity, components)
    run.write_json(
        run.model_space,
        {
            "description": given.description.to_json(),
            "subsets": {label: list(bits) for label, bits in subsets.items()},
            "float_accuracy": accuracy,
        },
    )
    accuracy_note = f"{given.description.name}: {100 * accuracy:.1f} % validation, floating point."
    notes = [accuracy_note, *given.description.notes, *sensitivity.notes]
    if components.config.certificate.enabled:
        problem = export_problem(given, components.data.input_shape)
        notes += [] if problem is None else [problem]
    listener(ModelFinished(tuple(notes)))
    space = replace(space, subsets=subsets)
    costs = build_costs(components.config, space, components.data.input_shape)
    return replace(components, space=space, costs=costs, guidance=Guidance(costs, losses))


def _train_or_load(
    module: nn.Module, components: Components, run: RunDirectory, listener: Listener
) -> None:
    """Give the network the weights that candidates inherit, and keep them with the run."""
    if run.model_weights.is_file():
        load_weights(module, run.model_weights)
        return
    config = components.config
    section, common = config.pretrain, config.training
    assert isinstance(config.space, ModelSpaceConfig), "the space is a given network's"
    epochs = section.epochs
    if epochs is None:
        epochs = 0 if config.space.checkpoint is not None else PRETRAIN_EPOCHS
    if epochs:
        name = config.space.model or type(module).__name__
        listener(ModelStarted(f"pre-training {name}"))
        recipe = Recipe(
            epochs=epochs,
            batch_size=section.batch_size or common.batch_size,
            lr=section.lr,
            flip=common.flip,
            shift=common.shift,
        )
        train(
            module,
            components.data.without_test(),
            recipe.float_phase(),
            seed=child_seed(config.seed, "pretrain"),
            device=components.device,
            on_epoch=lambda epoch, n, loss, _: listener(StageProgress("train", epoch, n, loss)),
        )
    module.eval()
    save_weights(module, run.model_weights)


def _with_inputs(
    sensitivity: Sensitivity, module: nn.Module, images: Tensor, labels: Tensor
) -> Sensitivity:
    """Return `sensitivity` with how much the loss minds errors in what each layer reads.

    The paper's Hessian is one of weights; for inputs Gauss-Newton takes its place. Without it the
    bits of activations would seem to cost nothing.
    """
    if all(layer.input_trace is not None for layer in sensitivity.layers):
        return sensitivity
    other = measure_sensitivity(module, images, labels)
    layers = tuple(
        replace(layer, input_trace=known.input_trace, n_inputs=known.n_inputs)
        for layer in sensitivity.layers
        for known in (other[layer.name],)
    )
    return replace(sensitivity, layers=layers)


def _losses(
    space: ModelSpace,
    module: nn.Module,
    sensitivity: Sensitivity,
    images: Tensor,
    components: Components,
) -> LossTable:
    """Return the expected losses of the layers, in the order of the description."""
    quantizers = build_quantization(components.config)
    table = LossTable.of(
        sensitivity, quantization_errors(module, images, ALL_BITS, config=quantizers)
    )
    places = {name: place for place, name in enumerate(table.names)}
    names = [given.layer.name for given in space.description.layers]
    # Norms that are layers of their own are no choice: whatever they lose, all points lose.
    nothing = np.zeros(len(table.bits))
    return replace(
        table,
        names=tuple(names),
        weights=np.array([table.weights[places[n]] if n in places else nothing for n in names]),
        inputs=np.array([table.inputs[places[n]] if n in places else nothing for n in names]),
    )


def _subsets(
    space: ModelSpace, sensitivity: Sensitivity, components: Components
) -> Mapping[str, tuple[int, ...]]:
    """Return the bits that Hessian pruning leaves of each tie; empty where it is not asked for."""
    section = components.config.sensitivity
    if not section.prune:
        return {}
    return candidate_bits(
        sensitivity,
        space.bits,
        ties=space.bit_layers,
        n_clusters=section.clusters,
        scale=section.scale,
    )
