# SPDX-License-Identifier: Apache-2.0
"""State dicts of the built-in networks under other names.

torchvision's ResNets and MobileNetV2 and timm's ResNets have the names of ours already. timm
writes MobileNets as ``blocks.<stage>.<repetition>.<convolution>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final

from torch import Tensor

__all__ = ["convert_state_dict"]

# Blocks of every stage in timm's MobileNets.
_V1_STAGES: Final = (1, 2, 2, 6, 2)
_V2_STAGES: Final = (1, 2, 3, 4, 3, 3, 1)
_V1_BLOCK: Final = {
    "conv_dw": "depthwise.0",
    "bn1": "depthwise.1",
    "conv_pw": "pointwise.0",
    "bn2": "pointwise.1",
}
# The first block of MobileNetV2 does not expand.
_V2_FIRST_BLOCK: Final = {
    "conv_dw": "conv.0.0",
    "bn1": "conv.0.1",
    "conv_pw": "conv.1",
    "bn2": "conv.2",
}
_V2_BLOCK: Final = {
    "conv_pw": "conv.0.0",
    "bn1": "conv.0.1",
    "conv_dw": "conv.1.0",
    "bn2": "conv.1.1",
    "conv_pwl": "conv.2",
    "bn3": "conv.3",
}
_PARALLEL = "module."  # What `torch.nn.DataParallel` puts in front.


def convert_state_dict(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the names of the built-in network `name`.

    Knows torchvision's and timm's names, and the prefix of `torch.nn.DataParallel`. Keys it does
    not know stay as they are, for `torch.nn.Module.load_state_dict` to report; tensors are not
    looked at, so their shapes are for that to check too.

    Args:
        name: One of `model_names`; any other changes nothing but the prefix.
        state: Parameters and buffers by name.

    Example:
        >>> import torch
        >>> list(convert_state_dict("mobilenet_v2", {"blocks.1.0.conv_dw.weight": torch.ones(1)}))
        ['features.2.conv.1.0.weight']
    """
    if state and all(key.startswith(_PARALLEL) for key in state):
        state = {key.removeprefix(_PARALLEL): tensor for key, tensor in state.items()}
    if "conv_stem.weight" not in state and not any(key.startswith("blocks.") for key in state):
        return dict(state)
    paths = dict(_timm_paths(name))
    return {_renamed(key, paths): tensor for key, tensor in state.items()}


def _renamed(key: str, paths: Mapping[str, str]) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{paths[module]}.{tensor}" if module in paths else key


def _timm_paths(name: str) -> Iterator[tuple[str, str]]:
    """Yield timm's path of every module that has another one here, and that one."""
    stages = {"mobilenet_v1": _V1_STAGES, "mobilenet_v2": _V2_STAGES}.get(name)
    if stages is None:
        return
    yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
    position = count(1)
    for stage, repetitions in enumerate(stages):
        block = _V1_BLOCK if name == "mobilenet_v1" else _V2_BLOCK if stage else _V2_FIRST_BLOCK
        for repetition in range(repetitions):
            here = f"features.{next(position)}"
            for theirs, ours in block.items():
                yield f"blocks.{stage}.{repetition}.{theirs}", f"{here}.{ours}"
    if name == "mobilenet_v2":
        head = f"features.{next(position)}"
        yield from (("conv_head", f"{head}.0"), ("bn2", f"{head}.1"))
        yield "classifier", "classifier.1"
