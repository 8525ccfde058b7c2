# SPDX-License-Identifier: Apache-2.0
"""Calibration: all steps and the bias correction in two forward passes, whatever the depth.

The first pass runs the real network and keeps the mean of every layer's output per channel. The
second runs the quantized one: each module, when its turn comes, sets its steps from the input it
is given, which already carries the errors of all modules before it, computes its output, moves
its bias so that the output's mean per channel is the real network's, and passes the corrected
output on. So every layer is corrected for what truly reaches it, without a pass per layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitscout.errors import ConfigError, DataError
from bitscout.quantization.flow import evaluating
from bitscout.quantization.modules import Pass, QuantizedLayer, QuantModule

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(
    prepared: nn.Module, batches: Sequence[Tensor], *, bias_correction: bool = True
) -> None:
    """Set every step of a prepared network, and correct its biases, in place.

    The batches are joined: every module sees all images at once. Memory is that of one inference
    on all of them. A layer without a bias gets none, and so is not corrected.

    Args:
        prepared: Result of `prepare`. Its mode stays; calibration runs in evaluation mode.
        batches: Images, each of shape ``(N, C, H, W)``, preprocessed as the network expects.
        bias_correction: Match the mean of each layer's output per channel with the real
            network's. Only right for weights that were not yet trained quantized.

    Raises:
        ConfigError: If the network was not prepared.
        DataError: If there are no images, or values are not finite.
        TrainingError: Naming the layer with NaN or infinite weights.
    """
    modules = [module for module in prepared.modules() if isinstance(module, QuantModule)]
    if not modules:
        msg = "There is no quantized module in this network: call `prepare` first."
        raise ConfigError(msg)
    images = torch.cat(list(batches)) if len(batches) > 1 else next(iter(batches), torch.empty(0))
    if not images.numel() or not images.isfinite().all():
        msg = (
            f"Calibration needs at least one image and finite values, got {len(batches)} batches "
            f"with {images.numel()} values."
        )
        raise DataError(msg)
    real = _RealPass()
    is_reused = any(module.uses > 1 for module in modules)
    with evaluating(prepared):
        if bias_correction or is_reused:
            _run(prepared, modules, real, images)
        for module, uses in real.uses.items():
            module.observe_uses(uses)
        means = real.means if bias_correction else {}
        _run(prepared, modules, _QuantizingPass(means), images)


def _run(prepared: nn.Module, modules: list[QuantModule], current: Pass, images: Tensor) -> None:
    try:
        for module in modules:
            module.current_pass = current
        prepared(images)
    finally:
        for module in modules:
            module.current_pass = None


class _RealPass:
    """Run without quantization, keeping each layer's mean output per channel.

    A module that runs several times has one set of steps for all of its uses: its inputs are kept
    instead, and its bias is not corrected.
    """

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.uses: dict[QuantModule, list[tuple[Tensor, ...]]] = {}

    def run(self, module: QuantModule, inputs: tuple[Tensor, ...]) -> Tensor:
        output = module.real(*inputs)
        if module.uses > 1:
            # Copies: the network may change what it gives in place.
            self.uses.setdefault(module, []).append(tuple(x.clone() for x in inputs))
        elif isinstance(module, QuantizedLayer):
            self.means[module.name] = _channel_means(module, output)
        return output


class _QuantizingPass:
    """Set the steps, run quantized, correct the bias towards the kept means."""

    def __init__(self, means: dict[str, Tensor]) -> None:
        self._means = means

    def run(self, module: QuantModule, inputs: tuple[Tensor, ...]) -> Tensor:
        if module.uses == 1:
            module.observe(*inputs)
        output = module.quantized(*inputs)
        if not isinstance(module, QuantizedLayer) or module.bias is None:
            return output
        wanted = self._means.get(module.name)
        bias = module.quantized_bias()
        if wanted is None or bias is None:
            return output
        # From the bias on its grid, so that it is rounded once and not twice.
        module.bias.copy_(bias + wanted - _channel_means(module, output))
        if module.fit_bias():
            return module.quantized(*inputs)
        moved = module.quantized_bias()
        assert moved is not None
        return output.add_((moved - bias).reshape(-1, *[1] * (module.weight.dim() - 2)))


def _channel_means(layer: QuantizedLayer, output: Tensor) -> Tensor:
    """Return the mean per output channel, shape ``(C_out,)``."""
    channel_axis = output.dim() - (3 if layer.weight.dim() == 4 else 1)
    others = [axis for axis in range(output.dim()) if axis != channel_axis]
    return output.mean(dim=others)
