# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: every key, its default and its range.

A configuration is a YAML file, a preset (the same format), or keyword arguments. Unknown keys and
values of the wrong type are refused with the nearest known key, what was expected and what came.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from bitscout.core import Objective, canonical_json
from bitscout.hardware import HardwareModel, load_hardware
from bitscout.pipeline.config_search import BudgetConfig, ObjectiveConfig, SearcherConfig
from bitscout.pipeline.config_section import NonNegativeInt, PositiveInt, Section
from bitscout.pipeline.config_space import (
    DatasetConfig,
    ModelSpaceConfig,
    SpaceConfig,
    space_tag,
)
from bitscout.pipeline.config_training import (
    CertificateConfig,
    ExecutorConfig,
    FinalConfig,
    PretrainConfig,
    QuantizationConfig,
    SensitivityConfig,
    TrainingConfig,
)

__all__ = [
    "SCHEMA_VERSION",
    "BudgetConfig",
    "CertificateConfig",
    "DatasetConfig",
    "ExecutorConfig",
    "FinalConfig",
    "ModelSpaceConfig",
    "ObjectiveConfig",
    "PretrainConfig",
    "QuantizationConfig",
    "RunConfig",
    "SearcherConfig",
    "SensitivityConfig",
    "SpaceConfig",
    "TrainingConfig",
    "config_digest",
]

SCHEMA_VERSION: Literal[1] = 1

Hardware = str | dict[str, Any]
AnySpace = Annotated[
    Annotated[SpaceConfig, Tag("bomp")] | Annotated[ModelSpaceConfig, Tag("model")],
    Discriminator(space_tag),
]

# Metrics of every candidate; the others need a hardware model.
COMPUTED_METRICS = ("val_accuracy", "size_bytes", "weight_bytes", "macs", "bops")
# What differs for a given network where nothing is said: it comes with weights, or is trained once
# before the search, so that candidates only fine-tune.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "searcher": {"name": "guided", "n_trials": 40},
    "objective": {"score": "accuracy"},
    "training": {"epochs": 0, "qaft_epochs": 4},
    "final": {"epochs": 0, "qaft_epochs": 30, "max_networks": 3},
}
# Needed for these alone, and then by itself: a microcontroller's memory takes no choice of target.
DEFAULT_MODEL, DEFAULT_MODEL_METRICS = "mcu", ("peak_memory_bytes", "flash_bytes")


class RunConfig(Section):
    """A whole run.

    Attributes:
        schema_version: Version of this format.
        name: Name of the run and of its default directory.
        seed: Root of every random stream.
        device: ``auto`` takes CUDA where there is a GPU.
        threads: Processor threads of one training; null leaves it to PyTorch. The history depends
            on it in its last digits.
        dataset: What to learn.
        space: What may be chosen: the keys of `SpaceConfig`, or those of `ModelSpaceConfig` where
            ``name`` is ``model``.
        searcher: Who chooses.
        objective: What is better.
        hardware: What it runs on: a name with options, as ``bitscout cost --hardware`` takes it, a
            mapping with ``name`` and the options, or a list of these.
        budget: What a candidate may cost.
        pretrain: How a given network is trained before the search.
        sensitivity: How much a given network minds errors in each layer.
        training: How candidates are trained.
        final: How final networks and baselines are trained.
        quantization: How tensors become integers.
        executor: Where candidates are evaluated.
        certificate: How the final networks' files are verified.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    seed: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = None
    dataset: DatasetConfig = DatasetConfig()
    space: AnySpace = SpaceConfig()
    searcher: SearcherConfig = SearcherConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    hardware: Hardware | list[Hardware] | None = None
    budget: BudgetConfig = BudgetConfig()
    pretrain: PretrainConfig = PretrainConfig()
    sensitivity: SensitivityConfig = SensitivityConfig()
    training: TrainingConfig = TrainingConfig()
    final: FinalConfig = FinalConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    executor: ExecutorConfig = ExecutorConfig()
    certificate: CertificateConfig = CertificateConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_space(cls, data: object) -> object:
        """Fill in what is usual for a given network; what is said stays."""
        if not isinstance(data, dict) or space_tag(data.get("space")) != "model":
            return data
        filled = dict(data)
        for name, defaults in MODEL_DEFAULTS.items():
            section = filled.get(name, {})
            if isinstance(section, dict):
                filled[name] = {**defaults, **section}
        return filled

    @field_validator("hardware", mode="before")
    @classmethod
    def _hardware_is_written(cls, hardware: object) -> object:
        for spec in hardware if isinstance(hardware, list) else [hardware]:
            if spec is not None and not isinstance(spec, str | dict):
                msg = (
                    "must be a name with its options, a mapping with `name`, or a list of these; "
                    "a model of your own is announced as an entry point and then has a name"
                )
                raise ValueError(msg)
        return hardware

    @field_validator("hardware")
    @classmethod
    def _known_hardware(
        cls, hardware: Hardware | list[Hardware] | None
    ) -> Hardware | list[Hardware] | None:
        if hardware == []:
            msg = "an empty list names no hardware: leave the key out"
            raise ValueError(msg)
        models = [load_hardware(spec) for spec in _as_list(hardware)]  # Its message is complete.
        twice = [model.spec for i, model in enumerate(models) if model in models[:i]]
        if twice:
            msg = f"{twice[0]!r} is named twice: name it once"
            raise ValueError(msg)
        return hardware

    @model_validator(mode="after")
    def _hardware_knows_what_is_asked(self) -> RunConfig:
        known = {
            *COMPUTED_METRICS,
            *(name for m in self.build_hardware() for name in m.quantities),
        }
        asked = {
            f"budget.{name}": metric for name, (metric, _) in self.budget.build().limits().items()
        }
        asked |= {f"objective.front: {metric}": metric for metric in self.objective.front or ()}
        for key, metric in asked.items():
            if metric not in known:
                msg = (
                    f"`{key}` needs hardware that knows {metric}; name one, for instance "
                    "hardware: bitfusion (`bitscout list hardware` lists them)"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _sections_fit_the_space(self) -> RunConfig:
        if isinstance(self.space, ModelSpaceConfig):
            is_bounded = bool(self.budget.build().bounds())
            if self.objective.score in ("accuracy", "penalized") and not is_bounded:
                msg = (
                    "Nothing says how small the network shall be: set a bound, for instance "
                    "budget.size_kb, or an objective with costs, objective.front: [accuracy, "
                    "size_bytes]"
                )
                raise ValueError(msg)
            return self
        for name, default in (
            ("pretrain", PretrainConfig()),
            ("sensitivity", SensitivityConfig()),
        ):
            if getattr(self, name) != default:
                msg = f"`{name}` is for given networks; space.name is {self.space.name!r}"
                raise ValueError(msg)
        given_alone = {"searcher.name": self.searcher.name == "guided"}
        for name in ("training", "final"):
            given_alone[f"{name}.epochs"] = getattr(self, name).epochs == 0
        for key, is_given_alone in given_alone.items():
            if is_given_alone:
                value = "guided" if key == "searcher.name" else 0
                msg = f"`{key}`: {value} is for given networks; space.name is {self.space.name!r}"
                raise ValueError(msg)
        if self.objective.score == "penalized" and not self.budget.build().bounds():
            msg = (
                "objective.score: penalized needs a bound to be over, for instance budget.size_kb"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _variant_has_an_owner(self) -> RunConfig:
        if self.searcher.variant != "joint" and self.searcher.name != "kmeans-tpe":
            name = self.searcher.name
            msg = f"`searcher.variant` belongs to kmeans-tpe; searcher.name is {name!r}"
            raise ValueError(msg)
        return self

    def build_objective(self) -> Objective:
        """Return what is better."""
        return self.objective.build(self.budget.build())

    def build_hardware(self) -> tuple[HardwareModel, ...]:
        """Return the hardware models, each ready to use.

        A microcontroller's memory is added where a budget or a front needs it and no model that
        is named knows it.
        """
        models = [load_hardware(spec) for spec in _as_list(self.hardware)]
        known = {name for model in models for name in model.quantities}
        asked = {*self.budget.build().metrics, *(self.objective.front or ())}
        if asked & {*DEFAULT_MODEL_METRICS} - known:
            models.append(load_hardware(DEFAULT_MODEL))
        return tuple(models)


def config_digest(config: RunConfig) -> str:
    """Return a digest of everything the history of trials depends on.

    Left out: the name, the number of trials, the final training and the certificates, which may
    change while a run is interrupted. Hardware counts with all its constants, also those of a
    target file.
    """
    document = config.model_dump(mode="json", exclude={"name", "final", "certificate"})
    del document["searcher"]["n_trials"]
    models = config.build_hardware()
    document["hardware"] = [repr(model) for model in models]
    # Of a user's model the source counts as well; releases of this package tell what changed.
    foreign = [m.signature for m in models if not type(m).__module__.startswith("bitscout.")]
    if foreign:
        document["hardware_source"] = foreign
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:16]


def _as_list(hardware: Hardware | list[Hardware] | None) -> list[Hardware]:
    if hardware is None:
        return []
    return hardware if isinstance(hardware, list) else [hardware]
