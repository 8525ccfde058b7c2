# SPDX-License-Identifier: Apache-2.0
"""Rectifiers that quantizers take over: ``max(x, 0)`` and rounding are one clamp."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from bitscout.quantization.flow import Call, Flow, put_module
from bitscout.quantization.modules import QuantModule
from bitscout.quantization.quantizers import ActivationQuantizer

__all__ = ["merge_activations"]

# Modules through which max(x, 0) may be moved: they choose, copy or append zeros.
_TRANSPARENT = (nn.Identity, nn.Flatten, nn.ZeroPad2d, nn.MaxPool2d)


def merge_activations(root: nn.Module, flow: Flow, quantized: Mapping[str, QuantModule]) -> None:
    """Merge each ReLU and ReLU6 into its readers where every reader is a quantizer.

    Args:
        root: The network; its merged activations become an `torch.nn.Identity`.
        flow: What it does.
        quantized: By path, the modules that will replace those of the network.
    """
    for name, child in list(root.named_modules()):
        if type(child) not in (nn.ReLU, nn.ReLU6):
            continue
        readers = [_quantized_readers(flow, call, quantized) for call in flow.calls_of(name)]
        merged: list[ActivationQuantizer] = []
        for found in readers:
            if not found:
                break
            merged.extend(found)
        else:
            clip = (0.0, 6.0 if isinstance(child, nn.ReLU6) else math.inf)
            for quantizer in merged:
                quantizer.merge(clip)
            put_module(root, child, nn.Identity())


def _quantized_readers(
    flow: Flow, call: Call, quantized: Mapping[str, QuantModule]
) -> list[ActivationQuantizer] | None:
    """Return the quantizers that read what `call` wrote, `None` if anything else does."""
    found: list[ActivationQuantizer] = []
    for value in call.writes:
        readers = flow.readers(value)
        if value in flow.outputs or not readers:
            return None
        for reader in readers:
            behind = _quantizers_of(flow, reader, value, quantized)
            if behind is None:
                return None
            found += behind
    return found


def _quantizers_of(
    flow: Flow, reader: Call, value: int, quantized: Mapping[str, QuantModule]
) -> list[ActivationQuantizer] | None:
    module = quantized.get(reader.name) if reader.name is not None else None
    if module is not None:
        if module.uses > 1:
            return None  # Its other uses may read negative values.
        pairs = zip(module.input_quantizers(), reader.reads, strict=True)
        return [quantizer for quantizer, read in pairs if read == value]
    if isinstance(reader.module, _TRANSPARENT):
        return _quantized_readers(flow, reader, quantized)
    return None
