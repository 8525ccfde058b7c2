# SPDX-License-Identifier: Apache-2.0
"""What a quantized network computes besides its layers: for explanations and for costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bitscout.quantization.convert import Converted, convert

__all__ = ["KeptInFloat", "kept_in_float", "scale_sites"]


@dataclass(frozen=True)
class KeptInFloat:
    """Parameters that stay in floating point.

    Attributes:
        path: Of the module that has them.
        kind: Its class.
        n_parameters: How many numbers they are.
    """

    path: str
    kind: str
    n_parameters: int


def kept_in_float(module: nn.Module, example_input: Tensor) -> tuple[KeptInFloat, ...]:
    """Return the modules that run and whose own parameters `prepare` leaves as they are.

    Layer norms, PReLUs, positional embeddings, attention with weights of its own: a network with
    one trains quantized, but has no integer form.

    Args:
        module: Any network that takes one tensor.
        example_input: One batch the network accepts.

    Raises:
        UnsupportedError: As `prepare`.
    """
    converted = convert(module, example_input)
    found = []
    for path, child in converted.root.named_modules():
        # Attention computes with the weights of its child itself.
        recurse = isinstance(child, nn.MultiheadAttention)
        own = [p.numel() for p in child.parameters(recurse) if p.requires_grad]
        is_quantized = path in converted.layers or path in converted.scales
        if own and not is_quantized and _runs(path, child, converted):
            found.append(KeptInFloat(path, type(child).__name__, sum(own)))
    return tuple(found)


def scale_sites(module: nn.Module, example_input: Tensor) -> Mapping[str, int]:
    """Return the batch norms that become layers of their own: channels by name.

    Each is a depthwise convolution of one pixel: a weight of `QuantConfig.norm_bits` bits and a
    32-bit bias for every channel, in no policy.

    Args:
        module: Any network that takes one tensor.
        example_input: One batch the network accepts.

    Raises:
        UnsupportedError: As `prepare`.
    """
    converted = convert(module, example_input)
    return {
        name: len(converted.root.get_submodule(path).get_parameter("weight"))
        for path, name in converted.scales.items()
    }


def _runs(path: str, child: nn.Module, converted: Converted) -> bool:
    # A list of parameters is never called; whoever has it reads them.
    is_list = isinstance(child, nn.ParameterList | nn.ParameterDict)
    return is_list or bool(converted.flow.calls_of(path)) or path in converted.flow.spans
