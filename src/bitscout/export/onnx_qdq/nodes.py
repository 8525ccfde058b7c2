# SPDX-License-Identifier: Apache-2.0
"""Nodes and constants of an ONNX model, collected one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import UnsupportedError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = ["INPUT", "OUTPUT", "Nodes", "as_float32"]

INPUT, OUTPUT = "input", "output"

Array = npt.NDArray[Any]


@dataclass
class Nodes:
    """Grows a model; every method that adds something returns the name of it.

    Attributes:
        nodes: In an order they can run in.
        initializers: Constants.
    """

    nodes: list[NodeProto]
    initializers: list[TensorProto]

    def __init__(self) -> None:
        self.nodes, self.initializers = [], []
        self._names = {INPUT, OUTPUT}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def unique(self, name: str) -> str:
        """Return `name`, with a number behind it if it is taken, and take it."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def add(
        self,
        kind: str,
        inputs: list[str],
        owner: str,
        result: str | None = None,
        **attributes: Any,  # noqa: ANN401  # whatever the operator has
    ) -> str:
        """Add a node.

        Args:
            kind: Operator.
            inputs: Names of what it reads.
            owner: The operation of the network it is for; the node is called ``owner/kind``.
            result: Name of what it makes, from `unique`; that of the node without.
            attributes: Of the operator.
        """
        from onnx import helper

        name = self.unique(f"{owner}/{kind}")
        result = name if result is None else result
        self.nodes.append(helper.make_node(kind, inputs, [result], name=name, **attributes))
        return result

    def constant(self, name: str, values: Array) -> str:
        """Add an array as a constant of its own."""
        from onnx import numpy_helper

        return self.tensor(numpy_helper.from_array(np.asarray(values, order="C")), name)

    def shared(self, values: Array) -> str:
        """Add an array without a name of its own; equal ones are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant("constant", values)
        return self._shared[key]

    def tensor(self, tensor: TensorProto, name: str) -> str:
        """Add a constant under a name that is made unique."""
        tensor.name = self.unique(name)
        self.initializers.append(tensor)
        return str(tensor.name)


def as_float32(scale: npt.NDArray[np.float64], owner: str) -> npt.NDArray[np.float32]:
    """Return steps as ONNX stores them.

    Raises:
        UnsupportedError: If one of them is too small or too large for a normal float32.
    """
    limits = np.finfo(np.float32)
    if not ((scale >= limits.tiny) & (scale <= limits.max)).all():
        msg = (
            f"The steps of {owner!r} run from {scale.min():.3g} to {scale.max():.3g}; ONNX has "
            f"them in float32, from {limits.tiny:.3g} on. Look for weights or activations that "
            "are zero everywhere."
        )
        raise UnsupportedError(msg)
    return np.asarray(scale, dtype=np.float32)
