# SPDX-License-Identifier: Apache-2.0
"""Offer only widths that were built: channel groups tried out on the network itself.

A ``forward`` may count on numbers of channels that no graph shows: ``view(-1, 512)``,
``x[:, : self.width]``. So a copy of the network is widened and narrowed in all its groups. The
wider one must compute what the given one computes, for copied channels change nothing; both must
have the layers the description foretells. Where that fails the groups are halved until the ones
to blame are found; these stay as they are.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from bitscout.core import Layer
from bitscout.errors import BitscoutError
from bitscout.networks.batch_norm import recalibrate_batch_norm
from bitscout.networks.calls import short_line
from bitscout.networks.resize import copied, resize
from bitscout.quantization.flow import evaluating
from bitscout.space import ModelDescription

__all__ = ["TraceLayers", "verify_groups"]

TraceLayers = Callable[[nn.Module], Sequence[Layer]]
"""Runs a network and returns its layers."""

_N_IMAGES: Final = 2
# For batch statistics, which two images may leave without any variance.
_N_BATCH: Final = 8
# Of the spread of the outputs. Float32 rounding through a hundred layers stays below; an operation
# that takes other channels than it did differs by about 1.
_TOLERANCE: Final = 1e-3
# What it must not be below, of the largest output: rounding, where the outputs hardly differ.
_ROUNDING: Final = 1e-6
_TORCH: Final = str(Path(torch.__file__).parent)
_OURS: Final = str(Path(__file__).parents[1])


def verify_groups(
    module: nn.Module,
    input_shape: tuple[int, ...],
    description: ModelDescription,
    trace_layers: TraceLayers,
) -> ModelDescription:
    """Return the description with every group fixed in which the network cannot be resized.

    The reason names the line that failed. A network all of whose groups hold is built and run
    twice; one with ``k`` bad ones about ``2 k log2(groups)`` times.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one input without the batch.
        description: Of this network.
        trace_layers: Returns the layers of a network, the way `description` has them.

    Raises:
        UnsupportedError: If the module cannot be copied.
    """
    free = [index for index, group in enumerate(description.groups) if group.fixed is None]
    if not free:
        return description
    trial = _Trial(module, input_shape, description, trace_layers)
    reasons: dict[int, str] = {}
    sound = _sound(free, trial.problem, reasons)
    if reasons and trial.problem(sound):  # Each half holds alone, not all together.
        kept: list[int] = []
        for index in sound:
            problem = trial.problem([*kept, index])
            if problem:
                reasons[index] = problem
            else:
                kept.append(index)
    groups = tuple(
        replace(group, fixed=reasons.get(index, group.fixed))
        for index, group in enumerate(description.groups)
    )
    return replace(description, groups=groups)


def _sound(
    groups: list[int], problem_of: Callable[[list[int]], str], reasons: dict[int, str]
) -> list[int]:
    """Return the groups that can be resized; say of each other why not in `reasons`."""
    problem = problem_of(groups) if groups else ""
    if not problem:
        return groups
    if len(groups) == 1:
        reasons[groups[0]] = problem
        return []
    half = len(groups) // 2
    parts = groups[:half], groups[half:]
    return [index for part in parts for index in _sound(part, problem_of, reasons)]


class _Trial:
    """Builds the network with other widths and looks for what is wrong with it."""

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...],
        description: ModelDescription,
        trace_layers: TraceLayers,
    ) -> None:
        tensor = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
        generator = torch.Generator().manual_seed(0)
        batch = torch.randn((_N_BATCH, *input_shape), generator=generator)
        batch = batch.to(device=tensor.device, dtype=tensor.dtype)
        self._images = batch[:_N_IMAGES]
        self._description = description
        self._trace_layers = trace_layers
        self._module = _speaking_copy(module, batch)
        self._expected = _run(self._module, self._images)

    def problem(self, groups: list[int]) -> str:
        """Return what goes wrong with other widths of these groups, a sentence; or nothing."""
        for share in (1.25, 0.75):
            widths = self._widths(groups, share)
            if widths == self._description.widths:
                continue
            try:
                problem = self._problem_at(widths, is_wider=share > 1)
            except Exception as error:  # noqa: BLE001  # Anything may happen in foreign code.
                cause = error.__cause__ if isinstance(error, BitscoutError) else error
                problem = _failure(cause or error)
            if problem:
                return problem
        return ""

    def _problem_at(self, widths: tuple[int, ...], *, is_wider: bool) -> str:
        resized = resize(self._module, self._description, widths, noise=0.5)
        foretold = self._description.at(widths).layers
        if is_wider:
            outputs = _run(resized, self._images)
            if not _agree(outputs, self._expected):
                return (
                    "With copies of some of them the network computes something else: its "
                    "forward counts on their number or their order."
                )
        for layer, expected in zip(self._trace_layers(resized), foretold, strict=True):
            if layer != expected:
                return f"With another number of them {layer.name!r} is not the layer it must be."
        return ""

    def _widths(self, groups: list[int], share: float) -> tuple[int, ...]:
        """Return widths that differ from those given, in `groups`, wherever there is room."""
        widths = list(self._description.widths)
        for index in groups:
            group = self._description.groups[index]
            steps = group.channels // group.multiple
            # Rounded away from what is: even three channels become four, or two.
            change = max(int(abs(share - 1) * steps), 1)
            new_steps = steps + change if share > 1 else max(steps - change, 1)
            widths[index] = new_steps * group.multiple
        return tuple(widths)


@torch.no_grad()
def _speaking_copy(module: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy that hides nothing: no constant weights, statistics that fit the weights.

    A batch norm of weights zero, as they start in many networks, makes whole branches silent.
    """
    speaking = copied(module)
    generator = torch.Generator().manual_seed(1)
    for parameter in speaking.parameters():
        is_real = parameter.is_floating_point() and parameter.numel() > 0
        if is_real and parameter.min() == parameter.max():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise.to(parameter))
    # Some networks take two images and no eight: then their statistics stay.
    with suppress(RuntimeError, ValueError):
        recalibrate_batch_norm(speaking, images)
    return speaking


@torch.no_grad()
def _run(module: nn.Module, images: Tensor) -> list[Tensor]:
    with evaluating(module):
        return list(_tensors(module(images)))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    several = isinstance(items, tuple | list) or isinstance(output, dict)
    return [t for item in items for t in _tensors(item)] if several else []  # type: ignore[attr-defined]


def _agree(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    if [t.shape for t in outputs] != [t.shape for t in expected]:
        return False
    for output, wanted in zip(outputs, expected, strict=True):
        spread = float((wanted - wanted.mean(0)).abs().max())
        allowed = _TOLERANCE * spread + _ROUNDING * float(wanted.abs().max())
        if not float((output - wanted).abs().max()) <= allowed:
            return False
    return True


def _failure(error: BaseException) -> str:
    """Return a sentence: what failed, and on which line of the user's code."""
    frames = [
        f" ({short_line(f'{frame.filename}:{frame.lineno}')})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_TORCH, _OURS, "<"))
    ]
    said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    where = frames[-1] if frames else ""
    return f"With another number of them the network fails{where}: {type(error).__name__}: {said}."
