# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: every key, its default and its range.

A configuration is a YAML file, a preset (the same format), or keyword arguments. Unknown keys and
values of the wrong type are refused with the nearest known key, what was expected and what came.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bitscout.core import canonical_json
from bitscout.hardware import HardwareModel, load_hardware
from bitscout.pipeline.config_search import BudgetConfig, ObjectiveConfig, SearcherConfig
from bitscout.pipeline.config_section import NonNegativeInt, PositiveInt, Section
from bitscout.pipeline.config_space import DatasetConfig, SpaceConfig
from bitscout.pipeline.config_training import (
    CertificateConfig,
    ExecutorConfig,
    FinalConfig,
    QuantizationConfig,
    TrainingConfig,
)

__all__ = [
    "SCHEMA_VERSION",
    "BudgetConfig",
    "CertificateConfig",
    "DatasetConfig",
    "ExecutorConfig",
    "FinalConfig",
    "ObjectiveConfig",
    "QuantizationConfig",
    "RunConfig",
    "SearcherConfig",
    "SpaceConfig",
    "TrainingConfig",
    "config_digest",
]

SCHEMA_VERSION: Literal[1] = 1

Hardware = str | dict[str, Any]

# Metrics of every candidate; the others need a hardware model.
COMPUTED_METRICS = ("val_accuracy", "size_bytes", "weight_bytes", "macs", "bops")
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
        space: What may be chosen.
        searcher: Who chooses.
        objective: What is better.
        hardware: What it runs on: a name with options, as ``bitscout cost --hardware`` takes it, a
            mapping with ``name`` and the options, or a list of these.
        budget: What a candidate may cost.
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
    space: SpaceConfig = SpaceConfig()
    searcher: SearcherConfig = SearcherConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    hardware: Hardware | list[Hardware] | None = None
    budget: BudgetConfig = BudgetConfig()
    training: TrainingConfig = TrainingConfig()
    final: FinalConfig = FinalConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    executor: ExecutorConfig = ExecutorConfig()
    certificate: CertificateConfig = CertificateConfig()

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
