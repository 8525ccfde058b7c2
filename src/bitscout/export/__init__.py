# SPDX-License-Identifier: Apache-2.0
"""From a quantized network to integers, and from those to files that compute the same.

    graph = lower(quantized_module, images)
    export_graph(graph, Path("model.onnx"), format="onnx")

The names below are imported when they are first used: formats bring heavy libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitscout.export.c import write_c
    from bitscout.export.certificate import Certificate, FileSize
    from bitscout.export.certification import ImageSource, certify, require_targets
    from bitscout.export.checks.result import TargetResult
    from bitscout.export.float32 import rounded_in_float32
    from bitscout.export.formats import Exported, export_graph
    from bitscout.export.graph import IntegerGraph
    from bitscout.export.lowering import Lowered, lower, lower_with_reads
    from bitscout.export.onnx_qdq import write_onnx
    from bitscout.export.packed import load_packed, save_packed
    from bitscout.export.qonnx import write_qonnx
    from bitscout.export.reference import Reference

__all__ = [
    "Certificate",
    "Exported",
    "FileSize",
    "ImageSource",
    "IntegerGraph",
    "Lowered",
    "Reference",
    "TargetResult",
    "certify",
    "export_graph",
    "load_packed",
    "lower",
    "lower_with_reads",
    "require_targets",
    "rounded_in_float32",
    "save_packed",
    "write_c",
    "write_onnx",
    "write_qonnx",
]

_HOMES = {
    "Certificate": "certificate",
    "Exported": "formats",
    "FileSize": "certificate",
    "ImageSource": "certification",
    "IntegerGraph": "graph",
    "Lowered": "lowering",
    "Reference": "reference",
    "TargetResult": "checks.result",
    "certify": "certification",
    "export_graph": "formats",
    "load_packed": "packed",
    "lower": "lowering",
    "lower_with_reads": "lowering",
    "require_targets": "certification",
    "rounded_in_float32": "float32",
    "save_packed": "packed",
    "write_c": "c",
    "write_onnx": "onnx_qdq",
    "write_qonnx": "qonnx",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module's names are of any type
    """Import `name` from its home (PEP 562)."""
    if name not in _HOMES:
        msg = f"module 'bitscout.export' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"bitscout.export.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
