# SPDX-License-Identifier: Apache-2.0
"""Writing a network as an ONNX file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bitscout.export.graph import IntegerGraph
from bitscout.export.onnx_qdq.emit import QdqEmitter
from bitscout.export.onnx_qdq.nodes import INPUT, OUTPUT
from bitscout.export.onnx_qdq.payload import metadata
from bitscout.export.onnx_qdq.storage import Storage
from bitscout.export.whole_file import write_whole

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["onnx_model", "write_onnx"]

# Opset and IR version, never left to the library: it takes its newest, which no runtime reads.
# int8 and packed run in ONNX Runtime from 1.17 on, int4 from 1.20 on.
VERSIONS: dict[Storage, tuple[int, int]] = {"int8": (13, 8), "packed": (13, 8), "int4": (21, 10)}


def write_onnx(graph: IntegerGraph, path: Path, storage: Storage = "int8") -> None:
    """Write a network as an ONNX file, the same bytes every time.

    The file takes any number of images, float32 ``(N, C, H, W)``, preprocessed as in training,
    and returns real scores, float32.

    Args:
        graph: The network.
        path: Where to; replaced as a whole.
        storage: ``int8`` has a byte for each weight and is the fastest. ``packed`` is as small
            as promised; it is taken apart on loading and is then as fast. ``int4`` has ONNX's
            4-bit tensors for weights of up to 4 bits; those layers run in floating point.

    Raises:
        UnsupportedError: If a step is outside the range of float32.
        ExportError: If the file cannot be written.
    """
    write_whole(path, onnx_model(graph, storage).SerializeToString(deterministic=True))


def onnx_model(graph: IntegerGraph, storage: Storage = "int8") -> ModelProto:
    """Return the model that `write_onnx` writes."""
    from onnx import TensorProto, checker, helper

    emitter = QdqEmitter(graph, storage)
    emitter.emit()
    opset, ir_version = VERSIONS[storage]
    shapes = (INPUT, graph.inputs[0].shape), (OUTPUT, graph[graph.output].shape)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", *shape))
        for name, shape in shapes
    ]
    nodes = emitter.nodes
    body = helper.make_graph(nodes.nodes, "bitscout", ends[:1], ends[1:], nodes.initializers)
    model = helper.make_model(
        body,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="bitscout",
        producer_version=version("bitscout"),
    )
    properties = metadata(graph, storage, emitter.layers)
    properties["bitscout.producer"] = f"bitscout {model.producer_version}"
    helper.set_model_props(model, properties)
    checker.check_model(model)
    return model
