# SPDX-License-Identifier: Apache-2.0
"""The ONNX file in ONNX Runtime, at every optimisation level, against the integer reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitscout.export.checks.result import (
    CheckInputs,
    TargetResult,
    compare_integers,
    compare_reals,
    not_run,
)
from bitscout.export.checks.tools import first_line
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.graph import IntegerGraph
from bitscout.export.onnx_qdq.payload import STORAGE_KEY

__all__ = ["LEVELS", "check_onnxruntime", "run_onnx"]

TARGET = "ONNX Runtime"
# As ONNX Runtime calls them in its documentation, and in its Python module.
LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
BATCH = 64


def check_onnxruntime(
    graph: IntegerGraph, path: Path, inputs: CheckInputs, threads: int = 1
) -> list[TargetResult]:
    """Run a file that `write_onnx` wrote on all images, once at every optimisation level.

    The output's integers are compared. Where there is a difference, and float32, in which ONNX
    Runtime rescales, may round, real outputs on 255 steps count instead.

    Args:
        graph: The network.
        path: Its ONNX file.
        inputs: Images and the reference's outputs.
        threads: Of ONNX Runtime, within an operation.
    """
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return [
            not_run(TARGET, f"level {level}", "onnxruntime is missing: pip install onnxruntime")
            for level in LEVELS
        ]
    # They have no base of their own.
    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf,
              state.NoSuchFile, state.NotImplemented, state.RuntimeException)  # fmt: skip
    results = []
    for level in LEVELS:
        setting = f"level {level}"
        try:
            outputs, properties = run_onnx(path, inputs.images, level, threads)
        except errors as error:
            reason = first_line(str(error))
            results.append(TargetResult(TARGET, setting, "failed", reason))
            continue
        setting = f"{properties.get(STORAGE_KEY, 'foreign')}, {setting}"
        results.append(_compare(graph, setting, inputs.outputs, outputs))
    return results


def run_onnx(
    path: Path, images: npt.NDArray[np.float32], level: str = "all", threads: int = 1
) -> tuple[npt.NDArray[np.float32], dict[str, str]]:
    """Return what ONNX Runtime makes of the images, and what the file says about itself.

    Args:
        path: The ONNX file.
        images: Shape ``(N, C, H, W)``.
        level: One of `LEVELS`.
        threads: Within an operation.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level_name = LEVELS[level]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level_name)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # Errors.
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    parts = [
        session.run(None, {source: images[start : start + BATCH]})[0]
        for start in range(0, max(len(images), 1), BATCH)
    ]
    return np.concatenate(parts), dict(session.get_modelmeta().custom_metadata_map)


def _compare(
    graph: IntegerGraph,
    setting: str,
    reference: npt.NDArray[np.int64],
    outputs: npt.NDArray[np.float32],
) -> TargetResult:
    grid = graph[graph.output].grid
    steps = grid.scale.reshape(-1, *[1] * (outputs.ndim - 2)) if grid.scale.ndim else grid.scale
    integers = np.rint(outputs / steps).astype(np.int64) + grid.zero_point
    result = compare_integers(TARGET, setting, reference, integers, scores=graph.scores)
    if result.state == "passed" or not rounded_in_float32(graph):
        return result
    return compare_reals(TARGET, setting, graph.scores(reference), outputs)
