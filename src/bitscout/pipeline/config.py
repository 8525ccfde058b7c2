# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: every key, its default and its range.

A configuration is a YAML file, a preset (the same format), or keyword arguments. Unknown keys and
values of the wrong type are refused with the nearest known key, what was expected and what came.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bitscout.core import (
    METRIC_DIRECTIONS,
    BompScore,
    Budget,
    FrontObjective,
    Objective,
    canonical_json,
)
from bitscout.hardware import HardwareModel, load_hardware

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

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BitWidth = Annotated[int, Field(ge=2, le=8)]
Hardware = str | dict[str, Any]

# Metrics of every candidate; the others need a hardware model.
COMPUTED_METRICS = ("val_accuracy", "size_bytes", "weight_bytes", "macs", "bops")
# Needed for these alone, and then by itself: a microcontroller's memory takes no choice of target.
DEFAULT_MODEL, DEFAULT_MODEL_METRICS = "mcu", ("peak_memory_bytes", "flash_bytes")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetConfig(_Section):
    """What to learn.

    Attributes:
        name: ``digits`` (embedded), ``npz``, ``imagefolder``, ``cifar10`` or ``cifar100``;
            ``custom`` stands for data handed over in Python.
        path: File or folder of the data; not needed for ``digits``.
        validation: Fraction of the training part that judges candidates.
        limit: Keep this many training images, a stratified seeded choice; null keeps all.
        resize: Edge in pixels to which an image folder is resized; null demands equal sizes.
    """

    name: Literal["digits", "npz", "imagefolder", "cifar10", "cifar100", "custom"] = "digits"
    path: str | None = None
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    limit: PositiveInt | None = None
    resize: PositiveInt | None = None


class SpaceConfig(_Section):
    """What may be chosen.

    Attributes:
        name: ``bomp``, Table I of BOMP-NAS; ``custom`` stands for a space handed over in Python.
        widths: Width multipliers: ``cifar10``, ``cifar100`` (the paper's two sets) or a list.
        bits: Weight bit-widths to choose from, ascending; one value fixes them.
        act_bits: Bit-width of every activation.
        channel_divisor: Channels are rounded to multiples of this: 8, or 1 for exact widths.
        kernels: Kernel sizes of the depthwise convolutions, ascending.
        expansions: Expansion factors of blocks 2 to 7, ascending.
        repetitions: Repetitions of blocks 2 to 6, ascending; 0 leaves a block out.
        filters: Filters of the last convolution, ascending.
    """

    name: Literal["bomp", "custom"] = "bomp"
    widths: Literal["cifar10", "cifar100"] | list[PositiveFloat] = "cifar10"
    bits: list[BitWidth] = [4, 5, 6, 7, 8]
    act_bits: BitWidth = 8
    channel_divisor: PositiveInt = 8
    kernels: list[int] = [2, 3, 4, 5, 6, 7]
    expansions: list[int] = [1, 2, 3, 4, 5, 6]
    repetitions: list[int] = [0, 1, 2, 3, 4, 5]
    filters: list[int] = [128, 256, 512, 1024, 1280]


class SearcherConfig(_Section):
    """Who chooses.

    Attributes:
        name: ``bomp`` (Gaussian process, UCB), ``random``, or a sampler of Optuna at its
            defaults: ``tpe``, ``gp``, ``nsga2``, ``nsga3``.
        surrogate: Model of ``bomp``: ``paper``, ``edit-distance`` or ``scaled``.
        n_trials: Candidates to evaluate, infeasible and failed ones included.
        n_startup_trials: Completed trials before ``bomp`` asks its model: the seed network and
            random ones.
        batch: Candidates proposed together; the history depends on it.
        beta: Weight of the posterior standard deviation in UCB.
    """

    name: Literal["bomp", "random", "tpe", "gp", "nsga2", "nsga3"] = "bomp"
    surrogate: Literal["paper", "edit-distance", "scaled"] = "paper"
    n_trials: PositiveInt = 100
    n_startup_trials: PositiveInt = 10
    batch: PositiveInt = 1
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.6


class ObjectiveConfig(_Section):
    """What is better: one score, or a front.

    Attributes:
        score: ``bomp``, Eq. (1) of BOMP-NAS; a `front` replaces it.
        ref_accuracy: Reference accuracy of the score, a fraction.
        ref_size: Reference of log10(bits) of the score.
        front: Two to four metrics optimized at once instead of the score, for instance
            ``[accuracy, size_bytes, energy_mj]``.
    """

    score: Literal["bomp"] | None = "bomp"
    ref_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.8
    ref_size: PositiveFloat = 8.0
    front: Annotated[list[str], Field(min_length=2, max_length=4)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _front_replaces_score(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("front") is not None:
            return {**data, "score": None}
        if isinstance(data, dict) and data.get("score", "bomp") is None:
            msg = "nothing to optimize: name a `score` or a `front`"
            raise ValueError(msg)
        return data

    @field_validator("front")
    @classmethod
    def _known_metrics(cls, front: list[str] | None) -> list[str] | None:
        if front is None:
            return None
        names = ["val_accuracy" if name == "accuracy" else name for name in front]
        for name in names:
            if name not in METRIC_DIRECTIONS or name == "test_accuracy":
                costs = [m for m in METRIC_DIRECTIONS if not m.endswith("_accuracy")]
                near = [metric for metric in costs if metric.startswith(f"{name}_")]
                hint = f", did you mean {near[0]!r}?" if near else ";"
                msg = f"unknown metric {name!r}{hint} known: {', '.join(('accuracy', *costs))}"
                raise ValueError(msg)
        if "val_accuracy" not in names:
            msg = "accuracy must be one of the metrics: the others need no search of trainings"
            raise ValueError(msg)
        if len(set(names)) != len(names):
            msg = "metrics must be different"
            raise ValueError(msg)
        return names

    def build(self) -> Objective:
        """Return the objective these keys describe."""
        if self.front is not None:
            return FrontObjective(tuple(self.front))
        return BompScore(self.ref_accuracy, self.ref_size)


class BudgetConfig(_Section):
    """What a candidate may cost, any subset; over budget it is recorded and never trained.

    Latency and energy are those of one batch on the run's `hardware`. Where several kinds of
    hardware know a quantity, each has to keep to the bound.

    Attributes:
        size_kb: Largest size in kB (1000 bytes), weights and int32 biases, whatever packing
            `hardware` says; what a device stores is `flash_kb`.
        peak_memory_kb: Largest sum of live activations in kB.
        flash_kb: Largest size of the constants on a microcontroller in kB.
        latency_ms: Longest time in ms.
        energy_mj: Largest energy in mJ.
        macs: Most multiply-accumulates for one input.
        bops: Most bit operations for one input.
    """

    size_kb: PositiveFloat | None = None
    peak_memory_kb: PositiveFloat | None = None
    flash_kb: PositiveFloat | None = None
    latency_ms: PositiveFloat | None = None
    energy_mj: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    bops: PositiveFloat | None = None

    def build(self) -> Budget:
        """Return the budget these keys describe."""
        return Budget(**self.model_dump())


class TrainingConfig(_Section):
    """How a candidate is trained during the search.

    Attributes:
        epochs: Epochs in floating point.
        qaft_epochs: Epochs of quantization-aware fine-tuning; 0 judges after calibration alone.
        batch_size: Images a step.
        lr: Peak learning rate; null takes 0.2 * batch_size / 128.
        flip: Mirror training images; null leaves it to the data set (digits: no).
        shift: Shift training images by up to this many pixels; null is an eighth of the edge.
    """

    epochs: PositiveInt = 20
    qaft_epochs: NonNegativeInt = 1
    batch_size: PositiveInt = 128
    lr: PositiveFloat | None = None
    flip: bool | None = None
    shift: NonNegativeInt | None = None


class FinalConfig(_Section):
    """How the networks of the front and the baselines are trained at the end.

    Attributes:
        epochs: Epochs in floating point.
        qaft_epochs: Epochs of quantization-aware fine-tuning.
        max_networks: Train at most this many networks of the front: the best, then those that
            add most hypervolume; null trains all.
    """

    epochs: PositiveInt = 200
    qaft_epochs: NonNegativeInt = 5
    max_networks: PositiveInt | None = None


class CertificateConfig(_Section):
    """The proof that the exported files compute what was searched.

    Attributes:
        enabled: Export and verify every final network as the last step of a search.
        images: Test images every target computes; slow ones take fewer.
        targets: What to compare with, besides PyTorch and the packed checkpoint: any of
            ``onnxruntime``, ``qonnx``, ``c`` and ``cortex-m``. One that is not installed is
            listed as not run.
    """

    enabled: bool = True
    images: PositiveInt = 1000
    targets: list[Literal["onnxruntime", "qonnx", "c", "cortex-m"]] = [
        "onnxruntime",
        "qonnx",
        "c",
        "cortex-m",
    ]


class QuantizationConfig(_Section):
    """How tensors become integers; null takes the measured default.

    Attributes:
        weight_observer: Rule for the weights' steps: ``auto`` (the measured choice for each
            bit-width), ``max-abs``, ``mse``, ``layer-output``, ``power-of-two``, or
            ``power-of-two-per-tensor``, one step for each layer.
        act_observer: Rule for the activations' steps: ``auto`` (likewise), ``min-max``,
            ``percentile`` or ``mse``.
        bias_correction: Match the mean output of every layer on the calibration images.
        learn_weight_steps: Learn the weights' steps during fine-tuning (LSQ).
        learn_act_steps: Learn the activations' steps during fine-tuning (LSQ).
        exact_steps: Take steps that float32 computes with exactly (powers of two for activations,
            a few bits for weights), so that PyTorch gives the very integers that are exported.
            Learned steps are not of that kind.
        calibration_images: Training images shown to the observers.
        profile: ``hls4ml`` makes networks that ``bitscout export --profile hls4ml`` can write:
            all steps powers of two, and one for each layer's weights.
    """

    weight_observer: Literal[
        "auto", "max-abs", "mse", "layer-output", "power-of-two", "power-of-two-per-tensor"
    ] = "auto"
    act_observer: Literal["auto", "min-max", "percentile", "mse"] = "auto"
    bias_correction: bool = True
    learn_weight_steps: bool | None = None
    learn_act_steps: bool | None = None
    exact_steps: bool = True
    calibration_images: PositiveInt = 512
    profile: Literal["hls4ml"] | None = None

    @model_validator(mode="after")
    def _profile_fits(self) -> QuantizationConfig:
        if self.profile is None:
            return self
        if self.weight_observer not in ("auto", "power-of-two-per-tensor"):
            msg = (
                f"profile {self.profile!r} needs one power of two for each layer's weights, "
                f"but weight_observer is {self.weight_observer!r}: leave it out"
            )
            raise ValueError(msg)
        if self.learn_weight_steps or self.learn_act_steps:
            msg = (
                f"profile {self.profile!r} needs steps that are powers of two, and learned ones "
                f"are not: leave learn_weight_steps and learn_act_steps out"
            )
            raise ValueError(msg)
        if not self.exact_steps:
            msg = (
                f"profile {self.profile!r} needs activation steps that are powers of two: leave "
                f"exact_steps out"
            )
            raise ValueError(msg)
        return self


class ExecutorConfig(_Section):
    """Where candidates are evaluated.

    Attributes:
        name: ``local``: in this process, one after the other.
    """

    name: Literal["local"] = "local"


class RunConfig(_Section):
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
