# SPDX-License-Identifier: Apache-2.0
"""PyTorch's functions by name, in the words of a layer graph.

Names are those of `Call.function`: one for every way to write a function.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CONVOLUTIONS",
    "MATRIX_PRODUCTS",
    "MOVES",
    "POINTWISE",
    "POOLS",
    "REPEATING",
    "RESHAPES",
    "STORAGE",
    "WINDOWED",
]

_ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold", "leaky_relu"),
    *("prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("sigmoid", "logsigmoid", "tanh", "tanhshrink", "hardshrink", "softshrink", "softplus"),
    *("softsign", "softmax", "softmin", "log_softmax"),
)
_ARITHMETIC = (
    *("add", "sub", "rsub", "mul", "div", "rdiv", "pow", "rpow", "float_power", "neg", "abs"),
    *("square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "exp2", "log", "log2", "log10"),
    *("log1p", "sin", "cos", "sign", "erf", "floor", "ceil", "round", "trunc", "nan_to_num"),
    *("maximum", "minimum", "where", "masked_fill", "addcmul", "addcdiv", "lerp", "sgn"),
)
_DROPOUT = ("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout")

# Functions of values one by one; on one tensor they belong to the operation before them.
# NOTE: softmax is no function of single values, but needs no other tensor either.
POINTWISE: Final = frozenset((*_ACTIVATIONS, *_ARITHMETIC, *_DROPOUT))
# The same values under another name.
STORAGE: Final = frozenset(
    ("clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16", "type", ".data")
)
# Repeats values without storing them again.
REPEATING: Final = frozenset(("expand", "expand_as", "broadcast_to"))
RESHAPES: Final = frozenset(
    ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as")
)
POOLS: Final = {
    **dict.fromkeys(("avg_pool2d", "adaptive_avg_pool2d", "mean"), "avg_pool"),
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d", "amax"), "max_pool"),
}
# Poolings whose second argument is their window, the same everywhere.
WINDOWED: Final = frozenset(("avg_pool2d", "max_pool2d"))
MATRIX_PRODUCTS: Final = frozenset(
    (
        *("matmul", "rmatmul", "mm", "bmm", "mv", "dot", "einsum", "tensordot", "chain_matmul"),
        *("addmm", "baddbmm", "addbmm", "scaled_dot_product_attention"),
    )
)
# Functions that move values and change none.
MOVES: Final = frozenset(
    (
        *("transpose", "permute", "movedim", "moveaxis", "t", "adjoint", ".T", ".mT", ".H", ".mH"),
        *("getitem", "select", "narrow", "index_select", "gather", "take_along_dim", "diagonal"),
        *("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "hsplit", "vsplit"),
        *("stack", "hstack", "vstack", "repeat", "repeat_interleave", "tile", "flip", "roll"),
        *("rot90", "interpolate", "upsample", "upsample_nearest", "pixel_shuffle"),
        *("pixel_unshuffle", "channel_shuffle", "unfold", "fold", "pad", "meshgrid"),
    )
)
CONVOLUTIONS: Final = frozenset(
    (
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "convolution", "conv_tbc"),
    )
)
