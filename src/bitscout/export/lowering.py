# SPDX-License-Identifier: Apache-2.0
"""From a trained fake-quantized network to its integer graph.

Nothing is approximated: weights, biases and ranges are taken as they are, and an operation whose
integers would not be exactly what the network computes in real numbers is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bitscout.errors import ConfigError, TrainingError, UnsupportedError
from bitscout.export.bounds import check_no_overflow
from bitscout.export.follow import Follower
from bitscout.export.graph import IntegerGraph
from bitscout.export.layers import Read
from bitscout.export.record import record
from bitscout.quantization import QuantizedLayer, QuantModule

__all__ = ["Lowered", "Read", "lower", "lower_with_reads"]


@dataclass(frozen=True, eq=False)
class Lowered:
    """An integer graph, and where it meets the network it was lowered from.

    Attributes:
        graph: The graph.
        reads: The tensors that every quantized module reads on which the output depends, by the
            module's path.
    """

    graph: IntegerGraph
    reads: Mapping[str, tuple[Read, ...]]


def lower(module: nn.Module, example_input: Tensor) -> IntegerGraph:
    """Return the integer graph of a prepared, calibrated and perhaps fine-tuned network.

    Args:
        module: Result of `bitscout.quantization.post_training_quantize`, or of `prepare` and
            `calibrate`. Not changed.
        example_input: Images the network accepts, shape ``(N, C, H, W)`` or ``(N, features)``;
            only the first one's shape counts.

    Raises:
        UnsupportedError: Naming an operation that has no exact integer form, with its line of
            source and what to do, or a layer whose sums could overflow an int32.
        ConfigError: If the network was never calibrated.
        TrainingError: If a weight or a step is not finite, or a step is zero.
    """
    return lower_with_reads(module, example_input).graph


def lower_with_reads(module: nn.Module, example_input: Tensor) -> Lowered:
    """Return what `lower` returns, and which tensors the modules of the network read."""
    _check_quantized(module)
    _check_finite(module)
    _check_steps(module)
    # Two images, so that a reshape that mixes images shows.
    images = example_input[:1].expand(2, *example_input.shape[1:]).contiguous()
    follower = Follower(record(module, images))
    graph = follower.run()
    check_no_overflow(graph)
    # What the output does not depend on is not in the graph.
    names = {op.name for op in graph}
    reads = {
        path: tensors
        for path, tensors in follower.reads.items()
        if all(read.tensor in names for read in tensors)
    }
    return Lowered(graph, reads)


def _check_quantized(module: nn.Module) -> None:
    if not any(isinstance(child, QuantModule) for child in module.modules()):
        msg = (
            "There is no quantized module in this network: call "
            "`bitscout.quantization.post_training_quantize` first."
        )
        raise UnsupportedError(msg)


def _check_finite(module: nn.Module) -> None:
    """Refuse what a diverged training leaves behind."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            msg = (
                f"{name!r} holds NaN or infinite values, so it has no integer codes. Look for a "
                "diverged training, or a damaged file of weights."
            )
            raise TrainingError(msg)


def _check_steps(module: nn.Module) -> None:
    """Refuse steps that no integer can have; additions and pools say so when they run."""
    for child in module.modules():
        if not isinstance(child, QuantizedLayer):
            continue
        name = child.name or type(child).__name__
        if child.input_quantizer.step == 0:
            msg = (
                f"Layer {name!r} was never calibrated: the step of its input is 0. Call "
                "`calibrate`, or look for a damaged file of weights."
            )
            raise ConfigError(msg)
        steps = {
            "input": float(child.input_quantizer.current_step().detach()),
            "weight": float(child.weight_quantizer.steps().detach().min()),
        }
        for what, step in steps.items():
            if step <= 0:
                msg = (
                    f"Layer {name!r}: a step of its {what} is {step:g}; expected a positive one. "
                    "Calibrate again, or look for a damaged file of weights."
                )
                raise TrainingError(msg)
