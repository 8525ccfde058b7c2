# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says about itself, and what of it are weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitscout.errors import ExportError
from bitscout.export.graph import IntegerGraph
from bitscout.export.onnx_qdq.storage import Storage

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["LAYERS_KEY", "STORAGE_KEY", "OnnxPayload", "metadata", "onnx_payload"]

STORAGE_KEY, LAYERS_KEY = "bitscout.storage", "bitscout.layers"
ROUNDING = (
    "Integers are defined by clamp(half_even(sum * M / (D * 2^S)) + zero_point), rounded once. A "
    "runtime that rescales in float32 gives the same where activations' steps are powers of two "
    "and weights' are small multiples of them; else it rounds about one activation in 100,000 "
    "to the other side."
)
INPUT_TEXT = (
    "float32, shape (batch, channels, height, width), normalised by the caller as in training."
)


@dataclass(frozen=True)
class OnnxPayload:
    """The bytes of an ONNX file.

    Attributes:
        weight_bytes: Of weights.
        bias_bytes: Of biases, 4 each.
        other_bytes: Everything else: nodes, steps, names, metadata.
    """

    weight_bytes: int
    bias_bytes: int
    other_bytes: int

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.weight_bytes + self.bias_bytes + self.other_bytes


def metadata(
    graph: IntegerGraph, storage: Storage, layers: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Return what the file says about itself.

    Args:
        graph: The network.
        storage: How weights lie in it.
        layers: For every layer its bits and the names of its constants.
    """
    grid = graph[graph.output].grid
    kind = "int32 sums" if grid.is_sums else f"{grid.bit_width}-bit codes"
    output = f"Real scores, float32: the {kind} of {graph.output!r} times their step."
    return {
        "bitscout.contract": ROUNDING,
        "bitscout.input": INPUT_TEXT,
        LAYERS_KEY: json.dumps(layers, separators=(",", ":")),
        "bitscout.output": output,
        "bitscout.size_bits": str(graph.size_bits),
        STORAGE_KEY: storage,
    }


def onnx_payload(path: Path) -> OnnxPayload:
    """Return how many bytes of a file that `write_onnx` wrote are weights and biases.

    Raises:
        ExportError: If the file cannot be read or is not one of ours.
    """
    model = _load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    try:
        layers = json.loads(properties[LAYERS_KEY]).values()
        weights = sum(sizes[layer["weight"]] for layer in layers)
        biases = sum(sizes[layer["bias"]] for layer in layers if "bias" in layer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"Expected an ONNX file that `write_onnx` wrote, got {str(path)!r}. Export it again."
        raise ExportError(msg) from error
    return OnnxPayload(weights, biases, path.stat().st_size - weights - biases)


def _load(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # No stubs.

    try:
        return onnx.load(path)
    except (OSError, DecodeError) as error:
        msg = f"Cannot read {str(path)!r} as an ONNX file: {error}. Export it again."
        raise ExportError(msg) from error
