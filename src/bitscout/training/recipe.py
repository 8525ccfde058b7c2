# SPDX-License-Identifier: Apache-2.0
"""How networks are trained: one documented recipe, the same for every candidate and method.

A `Recipe` is what a user states. It yields two `Phase`s, which are what `train` carries out: the
float training and the quantization-aware fine-tuning (QAFT). The values are those of
algorithm specification 1.4 unless a comment gives another origin; BOMP-NAS leaves all but the
numbers of epochs open.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from bitscout.errors import ConfigError, shown
from bitscout.training.schedules import Cosine, OneCycle, Schedule, Triangular

__all__ = ["OptimizerName", "Phase", "Recipe"]

OptimizerName = Literal["sgd", "adam"]

# Peak learning rate of a batch of 128; linear in the batch size. Deviates from the specification's
# 0.1: after 20 epochs on digits, nine trainings of 10 kB networks reach 97.8 % (standard deviation
# 0.8 points) on the validation split with 0.2 and 95.5 % (1.6) with 0.1; 0.4 and 0.8 are within
# the noise of 0.2 (benchmarks/training_recipe.py), but 0.4 loses one in three trainings of the
# seed network, 53 layers deep (benchmarks/training_stability.py).
LR_PER_128 = 0.2
SGD_WEIGHT_DECAY = 5e-4
# Of the paper of k-means TPE, Section IV-C.
ADAM_LR = 0.01
ADAM_WEIGHT_DECAY = 1e-4

# What is left of that risk: none of nine trainings of the seed network fails with the bound, at
# 0.1 to 0.4 (benchmarks/training_stability.py).
FLOAT_MAX_GRAD_NORM = 2.0

# Folding takes away batch norm's indifference to the scale of the weights. Without a bound on the
# gradient, a QAFT rate twice the best one destroys a small network; with it, a tenfold range of
# rates works (measured in benchmarks/training_recipe.py).
QAFT_MAX_GRAD_NORM = 1.0

# With batch norms folded and frozen, a rate of 0.02 a batch of 128 was the best at 4 bits and
# within noise of the best at 3 (same benchmark, where it is 5 % of 0.4). With them alive it is as
# good from 0.05 to 0.15 at 2 bits, and worse at 0.02 (docs/adr/0014-low-bit-fine-tuning.md).
FROZEN_SHARE, REVIVED_SHARE = 0.1, 0.25


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training from a fresh optimizer, on cross-entropy.

    Attributes:
        name: What messages call it.
        epochs: Passes over the training split; 0 leaves the network as it is.
        batch_size: Images per step. The rest of an epoch that fills no batch is left out, another
            one in every epoch; a data set smaller than a batch is one batch.
        peak_lr: Largest learning rate.
        schedule: Share of `peak_lr` at every moment. Step ``i`` of ``n`` uses the middle of its
            interval, ``(i + 1/2) / n``, so that no step is wasted at rate 0.
        momentum: Of Nesterov's kind; with Adam the decay of the mean gradient (its beta 1).
        weight_decay: On parameters of two or more dimensions: convolution and linear weights, but
            no bias, batch norm or quantizer step. Added to the gradient, with Adam too.
        label_smoothing: Mass spread evenly over all classes.
        max_grad_norm: Scale each step's gradient down to this Euclidean norm; `None` leaves it.
        flip: Draw mirror images; `None` does so where the data set says they keep their class.
        shift: Largest random shift in pixels; `None` is an eighth of the shorter edge.
        batch_norm: Whether batch norms use and update batch statistics, or stay frozen. Of a
            quantized network, which has none left, they can be ``"revived"`` for the training and
            folded again, see `bitscout.quantization.revive_norms`.
        precision: On CUDA ``"mixed"`` computes in bfloat16 where autocast allows; its 8 bits of
            significand cannot hold an 8-bit grid of arbitrary scale, so QAFT uses ``"float32"``.
            The CPU always computes in float32.
        optimizer: ``"sgd"`` with Nesterov momentum or ``"adam"``.
    """

    name: str
    epochs: int
    batch_size: int
    peak_lr: float
    schedule: Schedule
    momentum: float
    weight_decay: float
    label_smoothing: float
    max_grad_norm: float | None
    flip: bool | None
    shift: int | None
    batch_norm: Literal["update", "frozen", "revived"]
    precision: Literal["mixed", "float32"]
    optimizer: OptimizerName = "sgd"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training of one candidate.

    Attributes:
        epochs: Of the float training; 0 for networks that come with weights.
        qaft_epochs: Of the quantization-aware fine-tuning, 0 for none.
        batch_size: Images per step, at least 2.
        lr: Peak learning rate; `None` is 0.2 per 128 images of a batch for SGD, 0.01 for Adam.
        momentum: In ``(0, 1)``, see `Phase`.
        weight_decay: At least 0; `None` is 5e-4 for SGD, 1e-4 for Adam.
        label_smoothing: In ``[0, 1)``.
        warmup: Share of the float training in which the rate rises, in ``[0, 1)``; for SGD.
        qaft_lr_fraction: Peak rate of QAFT as a share of the float peak, in ``(0, 1]``; `None`
            is 0.1, a quarter with revived norms, and all of it where those are trained by Adam.
        flip: Mirror images; `None` leaves it to the data set.
        shift: Largest shift in pixels; `None` is an eighth of the shorter edge.
        optimizer: ``"sgd"``, or ``"adam"`` with `OneCycle` and weight decay added to the gradient
            (`torch.optim.Adam`), as the paper of k-means TPE.
        revive_norms: Fine-tune with batch norms that are alive, see
            `bitscout.quantization.revive_norms`, not folded and frozen.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> Recipe(batch_size=512).float_phase().peak_lr
        0.8
    """

    epochs: int = 20
    qaft_epochs: int = 1
    batch_size: int = 128
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    label_smoothing: float = 0.1
    warmup: float = 0.2
    qaft_lr_fraction: float | None = None
    flip: bool | None = None
    shift: int | None = None
    optimizer: OptimizerName = "sgd"
    revive_norms: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_int("epochs", self.epochs, 0)
        _check_int("qaft_epochs", self.qaft_epochs, 0)
        _check_int("batch_size", self.batch_size, 2)
        if self.shift is not None:
            _check_int("shift", self.shift, 0)
        if self.lr is not None and not (isfinite(self.lr) and self.lr > 0):
            msg = f"`lr` must be finite and > 0, got {self.lr}."
            raise ConfigError(msg)
        if not 0 < self.momentum < 1:
            msg = f"`momentum` must be in (0, 1), got {self.momentum}."
            raise ConfigError(msg)
        if not 0 <= self.decay < 1:
            msg = f"`weight_decay` must be in [0, 1), got {self.weight_decay}."
            raise ConfigError(msg)
        if not 0 <= self.label_smoothing < 1:
            msg = f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}."
            raise ConfigError(msg)
        if not 0 < self.qaft_share <= 1:
            msg = f"`qaft_lr_fraction` must be in (0, 1], got {self.qaft_lr_fraction}."
            raise ConfigError(msg)
        if self.optimizer not in get_args(OptimizerName):
            msg = f"`optimizer` must be 'sgd' or 'adam', got {shown(self.optimizer)}."
            raise ConfigError(msg)
        Triangular(self.warmup)

    @property
    def peak_lr(self) -> float:
        """Largest learning rate of the float training."""
        if self.lr is not None:
            return self.lr
        return ADAM_LR if self.optimizer == "adam" else LR_PER_128 * self.batch_size / 128

    @property
    def decay(self) -> float:
        """Weight decay of both phases."""
        if self.weight_decay is not None:
            return self.weight_decay
        return ADAM_WEIGHT_DECAY if self.optimizer == "adam" else SGD_WEIGHT_DECAY

    @property
    def qaft_share(self) -> float:
        """Peak rate of QAFT as a share of the float peak."""
        if self.qaft_lr_fraction is not None:
            return self.qaft_lr_fraction
        if not self.revive_norms:
            return FROZEN_SHARE
        return 1.0 if self.optimizer == "adam" else REVIVED_SHARE

    def float_phase(self) -> Phase:
        """Return the training of the float network from its initial weights."""
        return Phase(
            name="float",
            epochs=self.epochs,
            batch_size=self.batch_size,
            peak_lr=self.peak_lr,
            schedule=OneCycle() if self.optimizer == "adam" else Triangular(self.warmup),
            momentum=self.momentum,
            weight_decay=self.decay,
            label_smoothing=self.label_smoothing,
            max_grad_norm=FLOAT_MAX_GRAD_NORM,
            flip=self.flip,
            shift=self.shift,
            batch_norm="update",
            precision="mixed",
            optimizer=self.optimizer,
        )

    def qaft_phase(self) -> Phase:
        """Return the fine-tuning of the quantized network, at a smaller rate."""
        is_adam = self.optimizer == "adam"
        return Phase(
            name="qaft",
            epochs=self.qaft_epochs,
            batch_size=self.batch_size,
            peak_lr=self.peak_lr * self.qaft_share,
            schedule=OneCycle() if is_adam else Cosine(),
            momentum=self.momentum,
            weight_decay=self.decay,
            label_smoothing=self.label_smoothing,
            max_grad_norm=QAFT_MAX_GRAD_NORM,
            flip=self.flip,
            shift=self.shift,
            batch_norm="revived" if self.revive_norms else "frozen",
            precision="float32",
            optimizer=self.optimizer,
        )


def _check_int(name: str, value: object, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        msg = f"`{name}` must be an integer of at least {minimum}, got {value}."
        raise ConfigError(msg)
