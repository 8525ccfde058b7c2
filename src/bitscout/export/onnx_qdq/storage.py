# SPDX-License-Identifier: Apache-2.0
"""How weights lie in an ONNX file.

Three storages: ``int8`` takes a byte for every weight; ``packed`` is a stream of b bits a weight,
which nodes of the graph take apart when the file is loaded; ``int4`` uses ONNX's 4-bit tensors
for weights of up to 4 bits.

A layer whose sums could saturate on processors without VNNI gets unsigned weights with the zero
point 128: docs/adr/0007-onnx-on-avx2.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import Conv, Int8Array, Linear
from bitscout.export.onnx_qdq.nodes import Nodes
from bitscout.quantization.packing import pack_bits

__all__ = ["Form", "Storage", "StoredWeight", "can_saturate", "store_weight"]

Storage = Literal["int8", "packed", "int4"]
Form = Literal["int8", "uint8", "packed", "int4"]

MAX_INT4_BITS = 4
UNSIGNED_OFFSET = 128
INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1


@dataclass(frozen=True)
class StoredWeight:
    """A weight in the file.

    Attributes:
        codes: Name of the tensor of integers.
        zero_points: Name of its zero points, one for each output channel.
        initializer: Name of the constant that holds the bytes.
        form: How they lie there.
    """

    codes: str
    zero_points: str
    initializer: str
    form: Form


def can_saturate(weight: Int8Array, largest_code: int) -> bool:
    """Return whether two products of a channel can add up to more than an int16 holds.

    Without VNNI, runtimes multiply unsigned activations with signed weights by an instruction
    (``vpmaddubsw``) that adds two neighbouring products and saturates at 16 bits. Which two are
    neighbours is up to the runtime, so the two largest count.

    Args:
        weight: Codes, channels first.
        largest_code: Largest unsigned activation code.
    """
    ordered = np.sort(weight.reshape(len(weight), -1).astype(np.int64), axis=1)
    high = np.maximum(ordered[:, -2:], 0).sum(axis=1).max(initial=0) * largest_code
    low = np.minimum(ordered[:, :2], 0).sum(axis=1).min(initial=0) * largest_code
    return bool(high > INT16_MAX or low < INT16_MIN)


def store_weight(
    nodes: Nodes, op: Conv | Linear, storage: Storage, largest_code: int
) -> StoredWeight:
    """Add the weight of a layer, and the nodes that take it apart.

    Args:
        nodes: The model.
        op: The layer.
        storage: Of the file.
        largest_code: Largest unsigned code of the layer's input.
    """
    offset = UNSIGNED_OFFSET if can_saturate(op.weight, largest_code) else 0
    name = f"{op.name}.weight"
    if storage == "int4" and op.weight_bits <= MAX_INT4_BITS:
        return _int4(nodes, op, name)
    dtype = np.uint8 if offset else np.int8
    # NOTE: Not shared by layers: ONNX Runtime's own remedy for saturation, a session option,
    # replaces each layer's zero points, and would not load the file.
    zeros = np.full(len(op.weight), offset, dtype=dtype)
    zero_points = nodes.constant(f"{op.name}.weight_zero_point", zeros)
    if storage == "packed" and op.weight_bits < 8:
        blob = nodes.constant(name, pack_bits(op.weight, op.weight_bits))
        codes = _unpack(nodes, op, blob, offset)
        return StoredWeight(codes, zero_points, blob, "packed")
    stored = (op.weight.astype(np.int16) + offset).astype(dtype)
    codes = nodes.constant(name, stored)
    return StoredWeight(codes, zero_points, codes, "uint8" if offset else "int8")


def _int4(nodes: Nodes, op: Conv | Linear, name: str) -> StoredWeight:
    from onnx import TensorProto, helper

    # The low four bits of the first of two codes, then those of the second.
    blob = pack_bits(op.weight, MAX_INT4_BITS).tobytes()
    zeros = bytes(-(-len(op.weight) // 2))
    codes, zero_points = (
        nodes.tensor(helper.make_tensor("", TensorProto.INT4, shape, data, raw=True), key)
        for key, shape, data in (
            (name, op.weight.shape, blob),
            (f"{op.name}.weight_zero_point", op.weight.shape[:1], zeros),
        )
    )
    return StoredWeight(codes, zero_points, codes, "int4")


def _unpack(nodes: Nodes, op: Conv | Linear, blob: str, offset: int) -> str:
    """Add the nodes that make codes of a stream of bits, and `offset` to each.

    NOTE: Div and Mod, not BitShift and BitwiseAnd: those need opset 18, and OpenVINO computes
    them wrongly without a word.
    """
    from onnx import TensorProto

    bits, count, owner = op.weight_bits, op.weight.size, op.name

    def add(kind: str, *inputs: str, **attributes: int) -> str:
        return nodes.add(kind, list(inputs), owner, None, **attributes)

    def numbers(*values: int, dtype: npt.DTypeLike = np.int32) -> str:
        return nodes.shared(np.array(values, dtype=dtype))

    def indices(*values: int) -> str:
        return numbers(*values, dtype=np.int64)

    column = add("Unsqueeze", blob, indices(1))
    shifted = add("Div", add("Cast", column, to=TensorProto.INT32),
                  numbers(*(2**bit for bit in range(8))))  # fmt: skip
    stream = add("Reshape", add("Mod", shifted, numbers(2)), indices(-1))
    # The last byte may have bits to spare.
    used = add("Slice", stream, indices(0), indices(count * bits), indices(0))
    by_code = add("Reshape", used, indices(count, bits))
    values = (*(2**bit for bit in range(bits - 1)), -(2 ** (bits - 1)))
    code = add("ReduceSum", add("Mul", by_code, numbers(*values)), indices(1), keepdims=0)
    if offset:
        code = add("Add", code, numbers(offset))
    stored = add("Cast", code, to=TensorProto.UINT8 if offset else TensorProto.INT8)
    return add("Reshape", stored, indices(*op.weight.shape))
