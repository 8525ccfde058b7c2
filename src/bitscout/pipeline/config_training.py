# SPDX-License-Identifier: Apache-2.0
"""Sections of a configuration: how networks are trained, quantized and verified."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bitscout.pipeline.config_section import NonNegativeInt, PositiveFloat, PositiveInt, Section

__all__ = [
    "CertificateConfig",
    "ExecutorConfig",
    "FinalConfig",
    "PretrainConfig",
    "QuantizationConfig",
    "SensitivityConfig",
    "TrainingConfig",
]


class TrainingConfig(Section):
    """How a candidate is trained during the search.

    Attributes:
        epochs: Epochs in floating point; 0, for given networks alone, starts from the weights they
            have.
        qaft_epochs: Epochs of quantization-aware fine-tuning; 0 judges after calibration alone.
        batch_size: Images a step.
        optimizer: ``sgd``, or ``adam`` with one cycle and weight decay added to the gradient.
        lr: Peak learning rate; null takes 0.2 * batch_size / 128, with Adam 0.01.
        qaft_lr_fraction: Peak rate of the fine-tuning as a share of `lr`; null takes a tenth, with
            revived norms a quarter, with those and Adam all of it.
        revive_norms: Fine-tune with batch norms that live, and fold them at the end; null does so
            for given networks, and has them folded and frozen for others.
        weight_decay: Of convolution and linear weights; null takes 5e-4, with Adam 1e-4.
        flip: Mirror training images; null leaves it to the data set (digits: no).
        shift: Shift training images by up to this many pixels; null is an eighth of the edge.
    """

    epochs: NonNegativeInt = 20
    qaft_epochs: NonNegativeInt = 1
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat | None = None
    qaft_lr_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    revive_norms: bool | None = None
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    flip: bool | None = None
    shift: NonNegativeInt | None = None


class PretrainConfig(Section):
    """How a given network is trained before the search.

    Attributes:
        epochs: Epochs in floating point; null trains 20 where there is no checkpoint, else none.
        batch_size: Images a step; null takes that of `training`.
        lr: Peak learning rate; null takes 0.2 * batch_size / 128.
    """

    epochs: NonNegativeInt | None = None
    batch_size: PositiveInt | None = None
    lr: PositiveFloat | None = None


class SensitivityConfig(Section):
    """How much a given network's loss minds errors in each layer's weights.

    Attributes:
        estimator: ``gauss-newton``, ``hessian`` (Hutchinson, as the paper; much slower) or
            ``fisher``.
        images: Training images to estimate it on.
        prune: Leave each layer only the bit-widths of its cluster, as the paper.
        clusters: Clusters of layers for that.
        scale: Cluster the ``log`` of the traces, or ``raw``, as the paper.
    """

    estimator: Literal["gauss-newton", "hessian", "fisher"] = "gauss-newton"
    images: PositiveInt = 512
    prune: bool = False
    clusters: PositiveInt = 4
    scale: Literal["log", "raw"] = "log"


class FinalConfig(Section):
    """How the networks of the front and the baselines are trained at the end.

    Attributes:
        epochs: Epochs in floating point; 0, for given networks alone, starts from the weights they
            have.
        qaft_epochs: Epochs of quantization-aware fine-tuning.
        max_networks: Train at most this many networks of the front: the best, then those that
            add most hypervolume; null trains all.
    """

    epochs: NonNegativeInt = 200
    qaft_epochs: NonNegativeInt = 5
    max_networks: PositiveInt | None = None


class CertificateConfig(Section):
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


class QuantizationConfig(Section):
    """How tensors become integers; null takes the measured default.

    Attributes:
        weight_observer: Rule for the weights' steps: ``auto`` (the measured choice for each
            bit-width), ``max-abs``, ``mse``, ``layer-output``, ``power-of-two``, or
            ``power-of-two-per-tensor``, one step for each layer.
        act_observer: Rule for the activations' steps: ``auto`` (likewise), ``min-max``,
            ``percentile`` or ``mse``.
        bias_correction: Match the mean output of every layer on the calibration images.
        learn_weight_steps: Learn the weights' steps during fine-tuning (LSQ); null does so for
            given networks, but for `profile`, and not for others.
        learn_act_steps: Learn the activations' steps during fine-tuning (LSQ).
        exact_steps: Take steps that float32 computes with exactly (powers of two for activations,
            a few bits for weights), so that PyTorch gives the very integers that are exported.
            Learned steps are rounded to such.
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


class ExecutorConfig(Section):
    """Where candidates are evaluated.

    Attributes:
        name: ``local``: in this process, one after the other.
    """

    name: Literal["local"] = "local"
