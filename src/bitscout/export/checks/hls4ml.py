# SPDX-License-Identifier: Apache-2.0
"""A QONNX file of the profile ``hls4ml``, converted, compiled for this machine and run."""

from __future__ import annotations

import importlib.util
import io
import shutil
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bitscout.export.checks.qonnx import HOW_TO_INSTALL, grid_images, load_model, output_integers
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers, not_run
from bitscout.export.graph import FloatArray, IntegerGraph

__all__ = ["check_hls4ml_compiled"]

TARGET = "hls4ml"
# Of what no Quant node gives a type: the image and the top of a ReLU6. Sums get theirs from those.
DEFAULT_PRECISION = "fixed<32,16>"


def check_hls4ml_compiled(
    graph: IntegerGraph,
    path: Path,
    inputs: CheckInputs,
    n_images: int = 100,
    *,
    io_type: Literal["io_parallel", "io_stream"] = "io_parallel",
) -> list[TargetResult]:
    """Convert a file with hls4ml, compile its simulation with g++ and compare the integers.

    Images are rounded to the input's step first: hls4ml would cut them off to its own type.
    Compiling takes 20 s for a network of six layers on 8x8 pixels, and grows with its size.

    Args:
        graph: The network.
        path: Its file, written with ``profile="hls4ml"``.
        inputs: Images and what the reference makes of them.
        n_images: Use at most this many.
        io_type: How hls4ml connects layers.

    Raises:
        ExportError: If the file is no ONNX file.
    """
    if importlib.util.find_spec("hls4ml") is None:
        return [not_run(TARGET, io_type, f"hls4ml is not installed: {HOW_TO_INSTALL}")]
    if shutil.which("g++") is None:
        return [not_run(TARGET, io_type, "no C++ compiler: install g++")]
    model = load_model(path)
    images = np.ascontiguousarray(np.moveaxis(grid_images(graph, inputs, n_images), 1, -1))
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        outputs = _predict(model, images, inputs.scratch / f"hls4ml_{io_type}", io_type)
    expected = inputs.outputs[: len(images)]
    integers = output_integers(graph, outputs.reshape(expected.shape))
    return [compare_integers(TARGET, io_type, expected, integers, scores=graph.scores)]


def _predict(model: Any, images: FloatArray, folder: Path, io_type: str) -> FloatArray:  # noqa: ANN401
    import hls4ml

    config = hls4ml.utils.config_from_onnx_model(
        model, granularity="name", backend="Vitis", default_precision=DEFAULT_PRECISION
    )
    converted = hls4ml.converters.convert_from_onnx_model(
        model, output_dir=str(folder), io_type=io_type, backend="Vitis", hls_config=config
    )
    converted.compile()
    outputs: FloatArray = np.asarray(converted.predict(images.astype(np.float32)), np.float64)
    return outputs
