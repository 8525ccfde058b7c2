# SPDX-License-Identifier: Apache-2.0
"""How sensitive each layer of a given network is, from a name to the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bitscout.core import child_seed
from bitscout.errors import ConfigError
from bitscout.networks import GivenNetwork
from bitscout.pipeline.components import choose_device, load_data
from bitscout.pipeline.config import ModelSpaceConfig, RunConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.given import load_given
from bitscout.pipeline.load import apply_setting, load_config, make_config, preset_names
from bitscout.pipeline.spaces import model_space
from bitscout.sensitivity import (
    ESTIMATORS,
    LossTable,
    MeasuredDrop,
    RankAgreement,
    Sensitivity,
    candidate_bits,
    cluster_labels,
    measure_sensitivity,
    measured_drops,
    quantization_errors,
    rank_agreement,
    tie_scores,
)
from bitscout.space import ModelSpace
from bitscout.training import ImageData, labelled_batch, load_weights

__all__ = ["LayerRow", "SensitivityReport", "sensitivity"]

MEASURED_IMAGES: Final = 1000  # Of the validation split: a standard error of 1.5 points at most.
CALIBRATION_IMAGES: Final = 256
RANDOM_WEIGHTS: Final = (
    "The weights are random: nothing was loaded, so these are not the sensitivities of a trained "
    "network. Give a checkpoint, or the directory of a run."
)


@dataclass(frozen=True)
class LayerRow:
    """One layer in the report.

    Attributes:
        name: The layer.
        tie: Label of the layers it shares its bits with; its own name where it is alone.
        cluster: Of the tie; 0 is the most sensitive.
        bits: Bit-widths that pruning by clusters would leave, ascending.
        trace: Of the curvature in its weights.
        standard_error: Of the trace.
        n_weights: Number of weights.
        trace_per_weight: Their quotient, the papers' sensitivity.
        input_trace: Of the curvature in what it reads; `None` if unknown.
        accuracy_drop: By quantizing it alone; `None` where that was not measured.
        loss_increase: Likewise.
    """

    name: str
    tie: str
    cluster: int
    bits: tuple[int, ...]
    trace: float
    standard_error: float
    n_weights: int
    trace_per_weight: float
    input_trace: float | None
    accuracy_drop: float | None = None
    loss_increase: float | None = None


@dataclass(frozen=True)
class SensitivityReport:
    """The sensitivities of a network, and what follows from them.

    Attributes:
        network: Which network.
        dataset: What it was measured on.
        estimator: How.
        n_images: On how many training images.
        seconds: Time it took, when it was measured.
        layers: In the order of execution.
        drop_bits: Bits of the weights for the measured drops; `None` where there are none.
        agreement: Rank correlations with what was measured, ``accuracy_drop`` and, known better,
            ``loss_increase``: of ``trace_per_weight``, and of ``expected_loss``, half of it times
            the squared quantization error.
        notes: What a reader should know.
    """

    network: str
    dataset: str
    estimator: str
    n_images: int
    seconds: float
    layers: tuple[LayerRow, ...]
    drop_bits: int | None
    agreement: dict[str, dict[str, RankAgreement]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout sensitivity --json``."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    label: str
    config: RunConfig
    data: ImageData
    given: GivenNetwork
    space: ModelSpace
    cache: Path | None
    notes: tuple[str, ...]


def sensitivity(  # noqa: PLR0913  # one for each option
    source: str,
    *,
    checkpoint: str | None = None,
    dataset: str | None = None,
    settings: Sequence[str] = (),
    estimator: str | None = None,
    images: int | None = None,
    drop_bits: int | None = None,
    cache: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> SensitivityReport:
    """Return how curved the loss is in each layer's weights, and what follows from it.

    Args:
        source: A preset or a configuration with a given network, a run, a built-in network or an
            import path, ``pkg.mod:make_net``.
        checkpoint: Of a network: its weights.
        dataset: Of a network: what it was trained on, ``NAME`` or ``NAME:PATH``.
        settings: ``key.path=value`` of the configuration.
        estimator: ``gauss-newton``, ``hessian`` or ``fisher``; by default the configuration's.
        images: Training images to measure on; by default the configuration's.
        drop_bits: Also quantize the weights of one layer at a time to these bits, and compare.
        cache: A file that keeps results; a run has its own.
        progress: Called with a stage, the steps done and the steps there are.

    Raises:
        ConfigError: If there is no such network or estimator, or it does not fit the data.
        DataError: If data or weights cannot be read.
        UnsupportedError: If the network cannot be traced or differentiated.
        TrainingError: If its loss is not finite.
    """
    found = _source(source, checkpoint, dataset, settings)
    section = found.config.sensitivity
    name = (estimator or section.estimator).replace("-", "_")
    if name not in ESTIMATORS:
        known = ", ".join(sorted(key.replace("_", "-") for key in ESTIMATORS))
        msg = f"`estimator` (--estimator) must be one of {known}, got {estimator!r}."
        raise ConfigError(msg)
    n_images = section.images if images is None else images
    if n_images < 1:
        msg = f"`images` (--images) must be at least 1, got {n_images}."
        raise ConfigError(msg)
    seed = child_seed(found.config.seed, "sensitivity")  # The search measures on the same images.
    batch, labels = labelled_batch(found.data, n_images, seed=seed)
    measured = measure_sensitivity(
        found.given.module,
        batch,
        labels,
        estimator=ESTIMATORS[name](),
        cache=found.cache if cache is None else Path(cache),
        progress=_stage(progress, f"measuring {name.replace('_', '-')}"),
    )
    drops = _drops(found, drop_bits, progress)
    agreement, notes = _agreement(found, measured, drops)
    return SensitivityReport(
        network=found.label,
        dataset=found.data.name,
        estimator=name.replace("_", "-"),
        n_images=measured.n_images,
        seconds=measured.seconds,
        layers=_rows(found, measured, drops),
        drop_bits=drop_bits,
        agreement=agreement,
        notes=(*found.notes, *measured.notes, *notes),
    )


def _stage(
    progress: Callable[[str, int, int], None] | None, name: str
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)


def _source(
    source: str, checkpoint: str | None, dataset: str | None, settings: Sequence[str]
) -> _Source:
    run = RunDirectory(Path(source)) if Path(source).is_dir() else None
    is_network = run is None and source not in preset_names() and Path(source).suffix not in YAML
    if not is_network and (checkpoint or dataset):
        msg = (
            f"--checkpoint and --dataset belong to a network; {source} says so itself: use "
            "--set space.checkpoint=FILE or --set dataset.path=PATH."
        )
        raise ConfigError(msg)
    if is_network:
        config = _config_of_network(source, checkpoint, dataset, settings)
    else:
        config = load_config(source if run is None else run.path / "config.yaml", settings)
    section = config.space
    if not isinstance(section, ModelSpaceConfig):
        msg = (
            f"{source} searches the space {section.name!r}, whose networks have no weights before "
            "they are trained. Sensitivities are those of a given network (space.name: model)."
        )
        raise ConfigError(msg)
    data = load_data(config).to(choose_device(config.device))
    has_weights = run is not None and run.model_weights.is_file()
    if has_weights:
        section = section.model_copy(update={"checkpoint": None})
    given = load_given(section, data.input_shape, data.n_classes, seed=config.seed)
    if run is not None and has_weights:
        load_weights(given.module, run.model_weights)
    given.module.to(data.device)
    space = model_space(section, given.description, given)
    space.check_supported()
    is_random = section.checkpoint is None and not has_weights
    return _Source(
        label=source,
        config=config,
        data=data,
        given=given,
        space=space,
        cache=run.sensitivity if run is not None and has_weights else None,
        notes=(RANDOM_WEIGHTS,) if is_random else (),
    )


YAML: Final = (".yaml", ".yml")


def _config_of_network(
    model: str, checkpoint: str | None, dataset: str | None, settings: Sequence[str]
) -> RunConfig:
    document: dict[str, Any] = {
        "space": {"name": "model", "model": model, "checkpoint": checkpoint},
        "objective": {"score": "bomp"},  # Needs no budget, and is not looked at.
    }
    if dataset is not None:
        name, _, path = dataset.partition(":")
        document["dataset"] = {"name": name, "path": path or None}
    for setting in settings:
        apply_setting(document, setting)
    return make_config(document, source=model)


def _drops(
    found: _Source, bits: int | None, progress: Callable[[str, int, int], None] | None
) -> tuple[MeasuredDrop, ...]:
    if bits is None:
        return ()
    calibration, _ = labelled_batch(
        found.data, CALIBRATION_IMAGES, seed=child_seed(found.config.seed, "calibrate")
    )
    split = found.data.val
    return measured_drops(
        found.given.module,
        calibration,
        found.data.normalizer()(split.images[:MEASURED_IMAGES]),
        split.labels[:MEASURED_IMAGES],
        bits=bits,
        progress=_stage(progress, f"quantizing one layer to {bits} bits"),
    )


def _agreement(
    found: _Source, measured: Sensitivity, drops: tuple[MeasuredDrop, ...]
) -> tuple[dict[str, dict[str, RankAgreement]], tuple[str, ...]]:
    """Return rank correlations with the drops, and why there are none."""
    if not drops:
        return {}, ()
    calibration, _ = labelled_batch(
        found.data, CALIBRATION_IMAGES, seed=child_seed(found.config.seed, "calibrate")
    )
    bits = drops[0].bits
    errors = quantization_errors(found.given.module, calibration, [bits])
    expected = LossTable.of(measured, errors).weights[:, 0]
    by_name = dict(zip(errors.names, expected.tolist(), strict=True))
    scores = {
        "trace_per_weight": [measured[drop.name].mean for drop in drops],
        "expected_loss": [by_name[drop.name] for drop in drops],
    }
    costs = {
        "accuracy_drop": [drop.accuracy_drop for drop in drops],
        "loss_increase": [drop.loss_increase for drop in drops],
    }
    found_agreement, notes = {}, []
    for cost, paid in costs.items():
        try:
            found_agreement[cost] = {
                score: rank_agreement(values, paid) for score, values in scores.items()
            }
        except ConfigError as error:  # Too few layers, or none of them mattered.
            notes.append(
                f"No rank correlation with the measured {cost.replace('_', ' ')}: {error}"
            )
    return found_agreement, tuple(notes)


def _rows(
    found: _Source, measured: Sensitivity, drops: tuple[MeasuredDrop, ...]
) -> tuple[LayerRow, ...]:
    section, ties = found.config.sensitivity, found.space.bit_layers
    scores = tie_scores(measured, ties)
    labels = cluster_labels(
        list(scores.values()), n_clusters=section.clusters, scale=section.scale
    )
    clusters = dict(zip(scores, labels.tolist(), strict=True))
    bits = candidate_bits(
        measured,
        found.space.bits,
        ties=ties,
        n_clusters=section.clusters,
        scale=section.scale,
    )
    tie_of = {name: label for label, names in ties.items() for name in names}
    measured_of = {drop.name: drop for drop in drops}
    rows = []
    for name in (name for names in ties.values() for name in names):
        layer, tie, drop = measured[name], tie_of[name], measured_of.get(name)
        rows.append(
            LayerRow(
                name=name,
                tie=tie,
                cluster=clusters[tie],
                bits=bits[tie],
                trace=layer.trace,
                standard_error=layer.standard_error,
                n_weights=layer.n_weights,
                trace_per_weight=layer.mean,
                input_trace=layer.input_trace,
                accuracy_drop=None if drop is None else drop.accuracy_drop,
                loss_increase=None if drop is None else drop.loss_increase,
            )
        )
    return tuple(rows)
