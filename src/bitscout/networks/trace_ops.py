# SPDX-License-Identifier: Apache-2.0
"""PyTorch's functions by name, in the words of a layer graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bitscout.core import Op

__all__ = ["OPS", "PASSING", "WINDOWED"]

# Functions with a word of their own. Operators arrive under the name of the method or, in some
# versions of PyTorch, of the operator.
_NAMES: Final[tuple[tuple[Op, tuple[str, ...]], ...]] = (
    ("conv", ("conv2d",)),
    ("linear", ("linear",)),
    ("add", ("add", "add_", "__add__", "__iadd__", "__radd__")),
    ("concat", ("cat", "concat", "concatenate")),
    ("avg_pool", ("avg_pool2d", "adaptive_avg_pool2d", "mean")),
    ("max_pool", ("max_pool2d", "adaptive_max_pool2d")),
    ("flatten", ("flatten", "view", "reshape", "squeeze")),
)
OPS: Final[Mapping[str, Op]] = {name: op for op, names in _NAMES for name in names}

_ACTIVATIONS = (
    *("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clip"),
    *("leaky_relu", "leaky_relu_", "prelu", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish"),
    *("hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "softmax", "log_softmax"),
)
_STORAGE = ("clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16")
_DROPOUT = ("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout")
# What leaves the graph as it is. Padding belongs to the layer that reads it.
PASSING: Final = frozenset((*_ACTIVATIONS, *_STORAGE, *_DROPOUT, "pad"))
# Poolings whose second argument is their window, the same everywhere.
WINDOWED: Final = frozenset(("avg_pool2d", "max_pool2d"))
