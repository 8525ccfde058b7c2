# SPDX-License-Identifier: Apache-2.0
"""A QONNX file in QONNX's own executor, and its own count of the weights' bits."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitscout.errors import ExportError
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers, not_run
from bitscout.export.graph import FloatArray, IntArray, IntegerGraph
from bitscout.export.qonnx_integers import per_channel
from bitscout.export.qonnx_nodes import CHANNELS_LAST_DOMAIN, INPUT, OUTPUT

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["HOW_TO_INSTALL", "check_qonnx", "grid_images", "load_model", "output_integers"]

TARGET = "qonnx"
HOW_TO_INSTALL = "pip install 'bitscout[deploy]'"
# The executor keeps every tensor of the network for the whole batch.
BATCH_ELEMENTS = 2**26
ORT_ERRORS_ONLY = 3
ORT_WARNINGS = 2


def check_qonnx(
    graph: IntegerGraph, path: Path, inputs: CheckInputs, n_images: int = 100
) -> list[TargetResult]:
    """Execute a file that `write_qonnx` wrote and compare its output's integers.

    Fails as well if QONNX counts other weight bits than the graph. It cannot count those of a
    file in the profile ``hls4ml``: its count knows channels first alone.

    Args:
        graph: The network.
        path: Its file.
        inputs: Images and what the reference makes of them.
        n_images: Use at most this many.

    Raises:
        ExportError: If the file is no ONNX file.
    """
    if importlib.util.find_spec("qonnx") is None:
        return [not_run(TARGET, "executor", f"QONNX is not installed: {HOW_TO_INSTALL}")]
    model = load_model(path)
    is_channels_last = any(item.domain == CHANNELS_LAST_DOMAIN for item in model.opset_import)
    images = inputs.images[:n_images]
    if is_channels_last:
        images = np.moveaxis(images, 1, -1)
    with _quiet():
        integers = output_integers(graph, _execute(graph, model, images))
        counted = None if is_channels_last else _weight_bits(model)
    setting = "executor, hls4ml profile" if is_channels_last else "executor"
    details = {} if counted is None else {"weight_bits": counted}
    expected = inputs.outputs[: len(images)]
    result = compare_integers(TARGET, setting, expected, integers, details, scores=graph.scores)
    if counted is not None and counted != graph.weight_bits:
        reason = f"QONNX counts {counted} bits of weights, the network has {graph.weight_bits}"
        both = "; ".join(part for part in (result.reason, reason) if part)
        result = replace(result, state="failed", reason=both)
    return [result]


def load_model(path: Path) -> ModelProto:
    """Return the model of a file.

    Raises:
        ExportError: If it is missing or no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

    try:
        return onnx.load(path)
    except (OSError, DecodeError) as error:
        msg = f"{str(path)!r} is no ONNX file: {error}. Export the network again."
        raise ExportError(msg) from error


def output_integers(graph: IntegerGraph, outputs: FloatArray) -> IntArray:
    """Return the integers of real outputs, which float32 holds up to 2**22."""
    op = graph[graph.output]
    steps = per_channel(op.grid.scale, op.shape)
    integers: IntArray = np.rint(outputs / steps).astype(np.int64) + op.grid.zero_point
    return integers


def grid_images(graph: IntegerGraph, inputs: CheckInputs, n_images: int) -> FloatArray:
    """Return the images as the first input of the network sees them: codes times step."""
    op = graph.inputs[0]
    codes = inputs.codes[op.name][:n_images] - op.grid.zero_point
    return codes.astype(np.float64) * float(op.grid.scale)


def _execute(graph: IntegerGraph, model: ModelProto, images: Any) -> FloatArray:  # noqa: ANN401
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    elements = sum(int(np.prod(op.shape)) for op in graph)
    batch = max(1, min(len(images), BATCH_ELEMENTS // elements))
    wrapper = ModelWrapper(_for_batch(model, batch))
    results = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        # The last batch is filled up: QONNX takes batches of one size.
        filled = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
        values = execute_onnx(wrapper, {INPUT: np.ascontiguousarray(filled)})[OUTPUT]
        results.append(values[: len(part)])
    joined: FloatArray = np.concatenate(results).astype(np.float64)
    return joined


def _for_batch(model: ModelProto, batch: int) -> ModelProto:
    """Return a copy for batches of another size; QONNX's `ChangeBatchSize` takes minutes."""
    changed = type(model)()
    changed.CopyFrom(model)
    constants = {item.name for item in model.graph.initializer}
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
    graph = changed.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return changed


def _weight_bits(model: ModelProto) -> int:
    """Return what `qonnx.util.inference_cost` counts, without its preparations.

    They take minutes for a hundred layers, as constants are folded one by one.
    """
    from qonnx.analysis.inference_cost import inference_cost
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.fold_constants import FoldConstantsFiltered
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.util.inference_cost import assign_mem_bits_and_elems

    wrapper = ModelWrapper(model, make_deepcopy=True)
    for step in (
        InferDataTypes(allow_scaledint_dtypes=True),
        FoldConstantsFiltered(lambda _, node: node.op_type == "Quant"),
    ):
        wrapper = wrapper.transform(step, make_deepcopy=False, cleanup=False)
    # Zeros are stored like any other weight.
    cost = inference_cost(wrapper, discount_sparsity=False)["total_cost"]
    return int(assign_mem_bits_and_elems(cost)["total_mem_w_bits"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' warnings about themselves to themselves."""
    import onnxruntime

    # It warns of the opset of QONNX's one-node models, which QONNX chose.
    onnxruntime.set_default_logger_severity(ORT_ERRORS_ONLY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        onnxruntime.set_default_logger_severity(ORT_WARNINGS)
