# SPDX-License-Identifier: Apache-2.0
"""The fake-quantized network against its integer graph, layer by layer.

Every quantized module is fed with the integer graph's own codes, so that what it computes, and
everything up to the next quantizers, is judged by itself and no difference grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitscout.export.graph import IntegerGraph
from bitscout.export.layers import Read
from bitscout.export.lowering import Lowered
from bitscout.export.reference import Reference
from bitscout.quantization import ActivationQuantizer, QuantModule
from bitscout.quantization.flow import evaluating

__all__ = ["LayerAgreement", "layer_agreement", "real_outputs", "to_integers", "total_agreement"]

IntArray = npt.NDArray[np.int64]
Images = npt.NDArray[np.float32]
# The bound for steps that float32 does not carry exactly.
# A tensor of few values may have some by chance: one in 100,000 is expected of float32.
HANDFUL = 4
MAX_MISMATCH_RATE = 1e-4
# Elements of all tensors of a batch, 8 bytes each.
BATCH_ELEMENTS = 2**24
OUTPUT = "output"


@dataclass(frozen=True)
class LayerAgreement:
    """How one tensor of the network compares with the integer graph's.

    Attributes:
        name: Path of the module that reads it; its operands are ``path.0`` and ``path.1`` where
            it has two; ``output`` for the network's result, in steps of 8 bits: a 127th of its
            largest magnitude.
        values: Activations compared.
        mismatches: How many differ.
        max_steps: Largest difference, in steps.
    """

    name: str
    values: int
    mismatches: int
    max_steps: int

    @property
    def mismatch_rate(self) -> float:
        """Fraction of activations that differ."""
        return self.mismatches / max(1, self.values)

    @property
    def is_good(self) -> bool:
        """Whether fewer than one in 10,000 differ, or a handful of few, and those by one step."""
        limit = max(MAX_MISMATCH_RATE * self.values, HANDFUL)
        return self.mismatches < limit and self.max_steps <= 1


def total_agreement(layers: tuple[LayerAgreement, ...]) -> LayerAgreement:
    """Return the sums over `layers`, and the largest of their differences."""
    return LayerAgreement(
        "all layers",
        sum(layer.values for layer in layers),
        sum(layer.mismatches for layer in layers),
        max((layer.max_steps for layer in layers), default=0),
    )


def layer_agreement(
    module: nn.Module, lowered: Lowered, images: Images
) -> tuple[LayerAgreement, ...]:
    """Compare every tensor that is quantized, and the output, with the integer graph's.

    Args:
        module: The network that was lowered, as it is: float32, on its device.
        lowered: What `lower_with_reads` made of it.
        images: Shape ``(N, C, H, W)``.
    """
    graph = lowered.graph
    forcing = _Forcing(lowered)
    reference = Reference(graph)
    size = _batch_size(graph)
    scores, reals = [], []
    with evaluating(module), torch.no_grad(), forcing.hooks(module):
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            forcing.tensors = reference.tensors(batch)
            reals.append(_run(module, batch))
            scores.append(graph.scores(forcing.tensors[graph.output]))
    wanted = np.concatenate(scores)
    step = max(float(np.abs(wanted).max(initial=0)) / 127, float(np.finfo(np.float32).tiny))
    steps = (np.concatenate(reals) - wanted) / step
    forcing.compare(OUTPUT, np.zeros_like(steps), np.rint(steps))
    return tuple(forcing.found.values())


def real_outputs(module: nn.Module, graph: IntegerGraph, images: Images) -> Images:
    """Return what the network itself computes in evaluation mode, shape ``(N, *)``."""
    size = _batch_size(graph)
    starts = range(0, len(images), size)
    with evaluating(module), torch.no_grad():
        return np.concatenate([_run(module, images[start : start + size]) for start in starts])


def to_integers(graph: IntegerGraph, reals: npt.NDArray[np.floating[Any]]) -> IntArray:
    """Return the integers of the output that stand for real results: `scores` backwards."""
    output = graph[graph.output]
    scale = output.grid.scale
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (len(output.shape) - 1))
    return np.rint(reals / scale).astype(np.int64) + output.grid.zero_point


class _Forcing:
    """Compares what quantized modules are given, and gives them the graph's codes instead."""

    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        self.tensors: dict[str, IntArray] = {}
        self.found: dict[str, LayerAgreement] = {}

    @contextmanager
    def hooks(self, module: nn.Module) -> Iterator[None]:
        handles = []
        for path, reads in self._lowered.reads.items():

            def force(
                child: nn.Module,
                args: tuple[Tensor, ...],
                *,
                path: str = path,
                reads: tuple[Read, ...] = reads,
            ) -> tuple[Tensor, ...]:
                return self._force(child, args, path, reads)

            child = module.get_submodule(path)
            handles.append(child.register_forward_pre_hook(force))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _force(
        self, module: nn.Module, args: tuple[Tensor, ...], path: str, reads: tuple[Read, ...]
    ) -> tuple[Tensor, ...]:
        assert isinstance(module, QuantModule)
        forced = []
        operands = zip(args, module.input_quantizers(), reads, strict=True)
        for index, (x, quantizer, read) in enumerate(operands):
            name = f"{path}.{index}" if len(reads) > 1 else path
            wanted = self.tensors[read.tensor]
            self.compare(name, wanted, _inner(_codes(quantizer, x), read))
            scale = float(self._lowered.graph[read.tensor].grid.scale)
            codes = torch.from_numpy(wanted).to(x.device, x.dtype)
            top, left, bottom, right = read.pads
            forced.append(
                F.pad(codes * scale, (left, right, top, bottom))
                if codes.dim() == 4
                else codes * scale
            )
        return tuple(forced)

    def compare(self, name: str, wanted: npt.NDArray[Any], came: npt.NDArray[Any]) -> None:
        difference = np.abs(wanted - came)
        new = LayerAgreement(
            name,
            difference.size,
            int(np.count_nonzero(difference)),
            int(difference.max(initial=0)),
        )
        before = self.found.get(name)
        total = new if before is None else total_agreement((before, new))
        self.found[name] = LayerAgreement(name, total.values, total.mismatches, total.max_steps)


def _codes(quantizer: ActivationQuantizer, x: Tensor) -> IntArray:
    step, _, _ = quantizer.grid()
    codes: IntArray = (quantizer(x) / step).round().cpu().numpy().astype(np.int64)
    return codes


def _inner(codes: IntArray, read: Read) -> IntArray:
    """Return codes without the zeros that the graph's convolution adds itself."""
    if not any(read.pads):
        return codes
    top, left, bottom, right = read.pads
    height, width = codes.shape[2:]
    return codes[:, :, top : height - bottom, left : width - right]


def _run(module: nn.Module, images: Images) -> npt.NDArray[Any]:
    like = next(module.parameters())
    batch = torch.from_numpy(images).to(like.device, like.dtype)
    # These may do more than multiply and add (Winograd, TF32), and so round.
    with torch.backends.nnpack.flags(enabled=False), torch.backends.cudnn.flags(allow_tf32=False):
        result: npt.NDArray[Any] = module(batch).cpu().numpy()
    return result


def _batch_size(graph: IntegerGraph) -> int:
    return max(1, BATCH_ELEMENTS // sum(int(np.prod(op.shape)) for op in graph))
