# SPDX-License-Identifier: Apache-2.0
"""The network whose sensitivity is asked for, and what it is asked on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitscout.errors import ConfigError, DataError, TrainingError, UnsupportedError
from bitscout.quantization import convert, layer_names
from bitscout.sensitivity.loss import CrossEntropy, Loss

__all__ = ["Prepared", "Subject", "full_precision", "prepared_copy"]


@dataclass(frozen=True)
class Prepared:
    """A copy of a network, ready to be measured.

    Attributes:
        module: The copy, no parameter requiring a gradient.
        layers: Its convolutions and linears, by the names of a policy.
        is_folded: Whether no batch norm is left.
    """

    module: nn.Module
    layers: dict[str, nn.Conv2d | nn.Linear]
    is_folded: bool


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode, images and labels.

    Attributes:
        module: A copy, batch norm folded where it can be, no parameter requiring a gradient.
        layers: The layers in question by name, in the order of the modules.
        images: What the network reads, shape ``(N, *)``.
        labels: One for each image.
        loss: Of outputs and labels.
        is_folded: Whether every batch norm was folded.
    """

    module: nn.Module
    layers: dict[str, nn.Conv2d | nn.Linear]
    images: Tensor
    labels: Tensor
    loss: Loss
    is_folded: bool

    @classmethod
    def of(
        cls,
        module: nn.Module,
        images: Tensor,
        labels: Tensor,
        loss: Loss,
        layers: Sequence[str] | None = None,
    ) -> Subject:
        """Return a copy of `module` that is ready to be differentiated, after checking it.

        Args:
            module: Any classifier of one tensor. Not changed.
            images: Preprocessed as the network expects.
            labels: One for each image.
            loss: Of outputs and labels.
            layers: Names of the layers in question; every convolution and linear by default.

        Raises:
            ConfigError: If the network has no such layer, or does not run on the images.
            DataError: If labels and images, or labels and outputs, do not belong together.
            TrainingError: If the loss is not finite.
        """
        _check_data(images, labels)
        copy = prepared_copy(module, images)
        unknown = sorted(set(layers or ()) - set(copy.layers))
        if unknown:
            msg = (
                f"There are no layers {', '.join(unknown)}; the network has "
                f"{', '.join(copy.layers)}."
            )
            raise ConfigError(msg)
        found = {n: m for n, m in copy.layers.items() if layers is None or n in layers}
        subject = cls(copy.module, found, images, labels, loss, copy.is_folded)
        subject._check_loss()
        return subject

    def outputs(self, images: Tensor) -> Tensor:
        """Return what the network makes of `images`, shape ``(N, C)``.

        Raises:
            ConfigError: If it does not run on them.
            UnsupportedError: If it does not return one vector for each.
        """
        try:
            outputs = self.module(images)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            msg = f"The network does not run on images of {tuple(images.shape)}: {error}"
            raise ConfigError(msg) from error
        if isinstance(outputs, Tensor) and outputs.shape[:1] == images.shape[:1]:
            if outputs.dim() == 2:
                return outputs
            got = f"{tuple(outputs.shape)}"
        else:
            got = f"a {type(outputs).__name__}"
        msg = (
            f"The network must return one vector of class scores for each image, (N, classes); "
            f"for {len(images)} images it returned {got}. Wrap it in a module that does."
        )
        raise UnsupportedError(msg)

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, at most `size` at a time, on the network's device."""
        device = next(self.module.parameters()).device
        for start in range(0, len(self.images), size):
            part = slice(start, start + size)
            yield self.images[part].to(device), self.labels[part].to(device)

    @torch.no_grad()
    def _check_loss(self) -> None:
        images, labels = next(self.chunks(32))
        outputs = self.outputs(images)
        if isinstance(self.loss, CrossEntropy):
            low, high = (int(bound) for bound in self.labels.aminmax())
            if low < 0 or high >= outputs.shape[1]:
                msg = (
                    f"The network tells {outputs.shape[1]} classes apart, but the labels run "
                    f"from {low} to {high}. Use the data it was made for."
                )
                raise DataError(msg)
        value = float(self.loss.values(outputs, labels).mean())
        if not torch.isfinite(torch.tensor(value)):
            msg = (
                f"The loss on the first {len(images)} images is {value}, so there is no curvature "
                f"to measure. Look for a diverged training or a damaged checkpoint."
            )
            raise TrainingError(msg)


def prepared_copy(module: nn.Module, images: Tensor) -> Prepared:
    """Return a copy of `module` in evaluation mode, and its layers.

    The copy is what quantization makes of the network before it quantizes: batch norms folded into
    the layers in front of them, computed weights computed, layers that are functions made modules.
    The weights of that copy are what is quantized, so their traces are the ones that count. A
    network that cannot be quantized as a whole is taken as it is, batch norms with their running
    statistics.

    Raises:
        ConfigError: If there is no convolution and no linear.
    """
    device = next((p.device for p in module.parameters()), images.device)
    copy, paths = deepcopy(module).eval(), None
    try:
        converted = convert(copy, images[:2].to(device))
    except UnsupportedError:
        paths = {name: name for name in layer_names(copy)}
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        msg = f"The network does not run on images of {tuple(images.shape)}: {error}"
        raise ConfigError(msg) from error
    else:
        copy = converted.root.eval()
        # A batch norm that no layer absorbs is a layer of its own.
        paths = {n: path for path, n in {**converted.layers, **converted.scales}.items()}
    if not paths:
        msg = (
            f"{type(module).__name__} has no Conv2d or Linear, so there is nothing whose "
            f"sensitivity could be measured."
        )
        raise ConfigError(msg)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    is_folded = not any(isinstance(child, norms) for child in copy.modules())
    found = {name: copy.get_submodule(path) for name, path in paths.items()}
    layers = {n: m for n, m in found.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    return Prepared(copy.requires_grad_(False), layers, is_folded)


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch off TF32 and autocast: a difference of gradients does not survive ten-bit factors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    try:
        with (
            cudnn.flags(
                enabled=cudnn.enabled,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=False,
            ),
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_data(images: Tensor, labels: Tensor) -> None:
    if not len(images) or len(images) != len(labels):
        msg = (
            f"Expected images and as many labels, at least one, got {len(images)} and "
            f"{len(labels)}."
        )
        raise DataError(msg)
    if not images.isfinite().all():
        msg = "The images hold NaN or infinite values; look at their preprocessing."
        raise DataError(msg)
