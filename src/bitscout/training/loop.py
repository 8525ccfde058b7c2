# SPDX-License-Identifier: Apache-2.0
"""The one training loop, and the measurement of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.errors import DataError, TrainingError
from bitscout.quantization import fold_norms, parameter_groups, revive_norms
from bitscout.training.augment import Augmenter, default_shift
from bitscout.training.data import ImageData, SplitName, calibration_batch
from bitscout.training.optimizer import make_optimizer, set_lr
from bitscout.training.recipe import Phase
from bitscout.training.seeding import fork_rng, torch_generator
from bitscout.training.strides import unit_strides

__all__ = ["OnEpoch", "TrainHistory", "evaluate", "train"]

NORM_IMAGES = 512  # For the first statistics of revived norms; the training replaces them.

OnEpoch = Callable[[int, int, float, float], None]
"""Called with (epoch from 1, number of epochs, mean loss, seconds of this epoch)."""


@dataclass(frozen=True)
class TrainHistory:
    """What happened in a training.

    Attributes:
        losses: Mean training loss of every epoch.
        seconds: Wall-clock time of every epoch.
        n_steps: Optimizer steps in total.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    n_steps: int


def train(
    model: nn.Module,
    data: ImageData,
    phase: Phase,
    *,
    seed: int,
    device: torch.device | str,
    on_epoch: OnEpoch | None = None,
) -> TrainHistory:
    """Train `model` in place.

    The result is a function of the arguments: batch order and augmentation come from a generator
    of this call, and torch's global state is seeded for its time, so the same seed gives the same
    weights, bit for bit, on the same machine with the same number of threads.

    Args:
        model: Moved to `device`; its 4-d parameters become channels-last. Left in evaluation mode.
        data: Moved to `device` if it is elsewhere; move it once yourself for many trainings.
        phase: What to do, from `Recipe.float_phase` or `Recipe.qaft_phase`.
        seed: In ``[0, 2**63 - 1]``.
        device: Where to compute.
        on_epoch: Called after every epoch. What it raises ends the training.

    Returns:
        Losses and times.

    Raises:
        ConfigError: If no parameter of the model can be trained.
        TrainingError: If a loss or a parameter is not finite; found at the end of the epoch.
    """
    data = data.to(device)
    _move(model, device)
    if phase.batch_norm == "revived":
        revive_norms(model, calibration_batch(data, NORM_IMAGES, seed=seed))
    augmenter = _augmenter(data, phase)
    optimizer = make_optimizer(model, phase)
    parameters = [p for group in parameter_groups(model) for p in group]
    generator = torch_generator(seed, data.device)
    batch_size = min(phase.batch_size, len(data.train))
    steps = len(data.train) // batch_size
    losses, seconds = [], []
    _set_mode(model, phase)
    with fork_rng(seed, data.device), _kernels(is_exact=False), unit_strides(model):
        for epoch in range(phase.epochs):
            start = perf_counter()
            step_losses = torch.empty(steps, device=data.device)
            for step, rows in enumerate(_batches(data, batch_size, generator)):
                set_lr(optimizer, phase, (epoch * steps + step + 0.5) / (phase.epochs * steps))
                images, labels = augmenter(rows, generator), data.train.labels[rows]
                with _autocast(data.device, phase):
                    logits = model(images)
                loss = F.cross_entropy(
                    logits.float(), labels, label_smoothing=phase.label_smoothing
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
                if phase.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, phase.max_grad_norm)
                optimizer.step()
                step_losses[step] = loss.detach()  # No transfer: read once per epoch.
            losses.append(_mean_loss(step_losses, epoch, phase))
            seconds.append(perf_counter() - start)
            if on_epoch is not None:
                on_epoch(epoch + 1, phase.epochs, losses[-1], seconds[-1])
    _check_parameters(model, phase)
    fold_norms(model)
    model.eval()
    return TrainHistory(tuple(losses), tuple(seconds), phase.epochs * steps)


def evaluate(
    model: nn.Module,
    data: ImageData,
    split: SplitName,
    *,
    device: torch.device | str,
    batch_size: int = 256,
) -> float:
    """Return the share of images whose class gets the largest logit, in ``[0, 1]``.

    Computed in float32 on every device, because the grid of an 8-bit quantizer does not survive
    bfloat16 or TF32. Of equal logits the first counts. The model's mode is put back.

    Args:
        model: Moved to `device`.
        data: Moved to `device` if it is elsewhere.
        split: The test split has to be asked for by name, and only once per final network.
        device: Where to compute.
        batch_size: Images at once; changes the speed and the memory, not the result beyond
            rounding. On a CPU 1000 takes up to three times as long as 256, whose activations
            stay in the cache (measured in benchmarks/training_loop.py).

    Raises:
        DataError: If the test split is asked for and was withheld.
        TrainingError: If a logit is not finite.
    """
    part = data.split(split).to(device)
    normalize = data.to(device).normalizer()
    _move(model, device)
    was_training = model.training
    model.eval()
    n_correct = torch.zeros((), dtype=torch.int64, device=part.labels.device)
    all_finite = torch.ones((), dtype=torch.bool, device=part.labels.device)
    with torch.inference_mode(), _kernels(is_exact=True):
        for start in range(0, len(part), batch_size):
            rows = slice(start, start + batch_size)
            logits = model(normalize(part.images[rows]))
            n_correct += (logits.argmax(1) == part.labels[rows]).sum()
            all_finite &= logits.isfinite().all()
    model.train(was_training)
    if not bool(all_finite):
        msg = (
            f"The network's outputs on the {split} split are not finite. Its weights diverged: "
            "train it with a lower learning rate."
        )
        raise TrainingError(msg)
    return int(n_correct) / len(part)


def _augmenter(data: ImageData, phase: Phase) -> Augmenter:
    if len(data.train) < 2:
        msg = f"Training needs at least two images, got {len(data.train)}."
        raise DataError(msg)
    shift = default_shift(*data.input_shape[1:]) if phase.shift is None else phase.shift
    flip = data.flip if phase.flip is None else phase.flip
    return Augmenter(data, flip=flip, shift=shift)


def _move(model: nn.Module, device: torch.device | str) -> None:
    model.to(device=torch.device(device))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs


def _set_mode(model: nn.Module, phase: Phase) -> None:
    model.train()
    if phase.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _batches(data: ImageData, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each full batch of one epoch, in random order."""
    order = torch.randperm(len(data.train), generator=generator, device=data.device)
    for start in range(0, len(order) - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def _autocast(device: torch.device, phase: Phase) -> AbstractContextManager[None]:
    enabled = device.type == "cuda" and phase.precision == "mixed"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def _kernels(*, is_exact: bool) -> Iterator[None]:
    """Choose kernels for a block: the same ones every time, global settings untouched.

    Exact ones multiply and add in float32. PyTorch without oneDNN convolves 16 images and more
    by NNPACK, whose transforms round: 40 to 90 % of the sums of 8-bit codes came out inexact.
    """
    cudnn = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=not is_exact
    )
    nnpack = torch.backends.nnpack.flags(enabled=False) if is_exact else nullcontext()
    with cudnn, nnpack:
        yield


def _mean_loss(step_losses: Tensor, epoch: int, phase: Phase) -> float:
    """Return the mean, or raise where the first loss is not finite."""
    values: list[float] = step_losses.tolist()
    bad = (~step_losses.isfinite()).nonzero().flatten().tolist()
    if bad:
        msg = (
            f"Training diverged: the loss is {values[bad[0]]} at epoch {epoch + 1} of "
            f"{phase.epochs}, step {bad[0] + 1} of {len(values)} ({phase.name} phase, peak "
            f"learning rate {phase.peak_lr:g}). Lower `lr`."
        )
        raise TrainingError(msg)
    return sum(values) / len(values)


def _check_parameters(model: nn.Module, phase: Phase) -> None:
    bad = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        msg = (
            f"Training diverged: after {phase.epochs} epochs of the {phase.name} phase "
            f"{bad[0]} is not finite. Lower `lr`."
        )
        raise TrainingError(msg)
