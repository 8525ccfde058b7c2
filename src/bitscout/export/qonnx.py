# SPDX-License-Identifier: Apache-2.0
"""QONNX: ONNX with nodes that quantize to any number of bits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bitscout.export.graph import IntegerGraph
from bitscout.export.hls4ml_profile import check_hls4ml
from bitscout.export.qonnx_integers import IntegerEmitter
from bitscout.export.qonnx_nodes import QonnxNodes
from bitscout.export.qonnx_reals import RealEmitter
from bitscout.export.whole_file import write_whole

__all__ = ["Profile", "write_qonnx"]

Profile = Literal["hls4ml"]


def write_qonnx(graph: IntegerGraph, path: Path, profile: Profile | None = None) -> int:
    """Write a network as a QONNX file, which runs in QONNX's own executor.

    The file takes a batch of one image, preprocessed as in training, and returns real outputs:
    the integers of `IntegerGraph.output` times their step. Weights are float32 numbers behind
    Quant nodes that state their bit-width: the format has no packing.

    Args:
        graph: The network.
        path: Where to; replaced as a whole.
        profile: ``hls4ml`` writes the form hls4ml converts, channels last, and refuses networks
            that it would not compute exactly.

    Returns:
        Bytes of weights and biases in the file.

    Raises:
        UnsupportedError: If the network does not fit the profile.
        ExportError: If the file cannot be written.
    """
    image, output = graph.inputs[0].shape, graph[graph.output].shape
    nodes = QonnxNodes(is_shared=profile is None)
    if profile is None:
        IntegerEmitter(nodes).emit(graph)
    else:
        check_hls4ml(graph)
        RealEmitter(nodes, graph).emit()
        image = (*image[1:], image[0])
    model = nodes.model(image, output)
    # Equal networks make equal files.
    write_whole(path, model.SerializeToString(deterministic=True))
    return nodes.payload_bytes
