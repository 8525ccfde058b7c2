# SPDX-License-Identifier: Apache-2.0
"""Nodes, constants and shapes of a QONNX model, collected one by one.

A tensor of the network travels in float32 or float64 and holds integers or real numbers; which,
is the business of who adds the nodes. QONNX's executor wants every tensor's shape stated and every
attribute of a convolution explicit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitscout.export.graph import Conv, Shape

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "INPUT",
    "OUTPUT",
    "QUANT_DOMAIN",
    "QonnxNodes",
    "Tensor",
    "conv_attributes",
    "geometry",
    "quant_range",
]

QUANT_DOMAIN = "qonnx.custom_op.general"
CHANNELS_LAST_DOMAIN = "qonnx.custom_op.channels_last"
OPSET = 13  # Everything used here is in it.
QUANT_OPSET = 1
IR_VERSION = 8  # Of ONNX 1.10; runtimes from 2021 on read it.
INPUT, OUTPUT = "image", "output"  # hls4ml reserves `input`.
BATCH = 1  # QONNX's tools want a number; its ChangeBatchSize sets another.

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model.

    Attributes:
        name: In the model.
        shape: Without the batch.
        is_double: Whether it travels in float64.
        bound: No value is larger in magnitude.
    """

    name: str
    shape: Shape
    is_double: bool = False
    bound: float = math.inf


class QonnxNodes:
    """Grows a model.

    Args:
        is_shared: Whether equal constants are stored once.

    Attributes:
        payload_bytes: Of the weights and biases stored so far.
    """

    def __init__(self, *, is_shared: bool = True) -> None:
        self.payload_bytes = 0
        self._is_shared = is_shared
        self._domains = {QUANT_DOMAIN: QUANT_OPSET}
        self._nodes: list[Any] = []
        self._values: list[Any] = []
        self._constants: dict[tuple[str, Shape, bytes], str] = {}
        self._initializers: list[Any] = []
        self._names: set[str] = {INPUT, OUTPUT}

    def unique(self, name: str) -> str:
        """Return `name` as an identifier, with a number behind it if it is taken, and take it."""
        name = re.sub(r"\W", "_", name)
        candidates = (f"{name}_{i}" if i else name for i in range(len(self._names) + 1))
        found = next(candidate for candidate in candidates if candidate not in self._names)
        self._names.add(found)
        return found

    def constant(self, values: Array, name: str = "const") -> str:
        """Return an initializer."""
        from onnx import helper, numpy_helper

        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants or not self._is_shared:
            self._constants[key] = self.unique(name)
            initializer = numpy_helper.from_array(values, self._constants[key])
            self._initializers.append(initializer)
            self._values.append(
                helper.make_tensor_value_info(
                    initializer.name, initializer.data_type, values.shape
                )
            )
        return self._constants[key]

    def stored(self, values: Array, name: str) -> str:
        """Return an initializer with weights or biases of the network."""
        self.payload_bytes += values.nbytes
        return self.constant(values, name)

    def number(self, value: float, like: Tensor) -> str:
        """Return a scalar constant in the type of `like`."""
        return self.constant(np.array(value, dtype=np.float64 if like.is_double else np.float32))

    def add(
        self,
        kind: str,
        inputs: list[str],
        result: Tensor,
        *,
        is_parameter: bool = False,
        is_channels_last: bool = False,
        **attributes: Any,  # noqa: ANN401  # whatever the operator has
    ) -> Tensor:
        """Add a node that makes `result`; its name is made unique.

        Args:
            kind: Operator.
            inputs: Names of its inputs.
            result: What it makes. Its name is kept only if it is that of the model's output.
            is_parameter: Whether the result has no batch: a weight or a bias.
            is_channels_last: Whether this is QONNX's form of a standard operator that reads
                and makes ``(N, H, W, C)``, with weights ``(C_out, kh, kw, C / groups)``.
            attributes: Of the operator.
        """
        from onnx import TensorProto, helper

        name = result.name if result.name is OUTPUT else self.unique(result.name)
        domain = QUANT_DOMAIN if kind == "Quant" else ""
        if is_channels_last:
            domain = CHANNELS_LAST_DOMAIN
            self._domains[domain] = OPSET
        self._nodes.append(
            helper.make_node(
                kind, inputs, [name], name=f"{kind}_{name}", domain=domain, **attributes
            )
        )
        shape = result.shape if is_parameter else (BATCH, *result.shape)
        data_type = TensorProto.DOUBLE if result.is_double else TensorProto.FLOAT
        self._values.append(helper.make_tensor_value_info(name, data_type, shape))
        return Tensor(name, result.shape, result.is_double, result.bound)

    def double(self, x: Tensor) -> Tensor:
        """Return `x` in float64."""
        if x.is_double:
            return x
        from onnx import TensorProto

        result = Tensor(x.name, x.shape, is_double=True, bound=x.bound)
        return self.add("Cast", [x.name], result, to=TensorProto.DOUBLE)

    def single(self, x: Tensor, name: str) -> Tensor:
        """Return `x` in float32."""
        from onnx import TensorProto

        result = Tensor(name, x.shape, bound=x.bound)
        return self.add("Cast", [x.name], result, to=TensorProto.FLOAT)

    def quant(
        self,
        x: str,
        result: Tensor,
        bit_width: int,
        *,
        is_signed: bool,
        is_narrow: bool,
        scale: float = 1.0,
        is_parameter: bool = False,
    ) -> Tensor:
        """Add a Quant node with zero point 0: ``scale * clamp(half_even(x / scale))``."""
        parameters = [
            self.constant(np.array(value, dtype=np.float32)) for value in (scale, 0.0, bit_width)
        ]
        return self.add(
            "Quant",
            [x, *parameters],
            result,
            is_parameter=is_parameter,
            signed=int(is_signed),
            narrow=int(is_narrow),
            rounding_mode="ROUND",
        )

    def model(self, image_shape: Shape, output_shape: Shape) -> ModelProto:
        """Return the model from the tensor `INPUT` to `OUTPUT`."""
        from importlib.metadata import version

        from onnx import TensorProto, checker, helper

        shapes = (INPUT, image_shape), (OUTPUT, output_shape)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (BATCH, *shape))
            for name, shape in shapes
        ]
        inner = [value for value in self._values if value.name != OUTPUT]
        graph = helper.make_graph(
            self._nodes, "bitscout", ends[:1], ends[1:], self._initializers, value_info=inner
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[
                helper.make_opsetid(domain, version)
                for domain, version in ({"": OPSET} | self._domains).items()
            ],
            producer_name="bitscout",
            producer_version=version("bitscout"),
        )
        checker.check_model(model)
        return model


def quant_range(bit_width: int, *, is_signed: bool, is_narrow: bool) -> tuple[int, int]:
    """Return the smallest and largest integer of a Quant node."""
    if not is_signed:
        return 0, 2**bit_width - 1
    high = 2 ** (bit_width - 1) - 1
    return -high - (not is_narrow), high


def conv_attributes(op: Conv) -> dict[str, Any]:
    """Return every attribute of a convolution."""
    kernel = op.weight.shape[2], op.weight.shape[3]
    return {**geometry(kernel, op.stride, op.pads, op.dilation), "group": op.groups}


def geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """Return the attributes of a window that moves, none left to its default."""
    return {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": list(pads),
        "dilations": list(dilation),
    }
