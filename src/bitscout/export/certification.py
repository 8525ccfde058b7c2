# SPDX-License-Identifier: Apache-2.0
"""Writing a network's files, running them everywhere they can run, and signing what was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bitscout.export.certificate import Certificate, FileSize
from bitscout.export.checks.cortex_m import check_cortex_m
from bitscout.export.checks.fake_quant import check_fake_quant
from bitscout.export.checks.host_c import check_host_c
from bitscout.export.checks.ort import check_onnxruntime
from bitscout.export.checks.qonnx import check_qonnx
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers
from bitscout.export.graph import IntegerGraph
from bitscout.export.lowering import Lowered, lower_with_reads
from bitscout.export.onnx_qdq import onnx_payload, write_onnx
from bitscout.export.packed import load_packed, save_packed
from bitscout.export.qonnx import write_qonnx
from bitscout.export.reference import Reference

__all__ = ["ImageSource", "certify"]

PACKED, ONNX = "packed.safetensors", "model.onnx"
BATCH = 256  # Images scored at once; bounds the memory.

IntArray = npt.NDArray[np.int64]


class ImageSource(Protocol):
    """Preprocessed images with their classes."""

    labels: npt.NDArray[np.int64]

    def images(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return images `start` to `stop`, shape ``(N, C, H, W)``."""


def certify(  # noqa: PLR0913  # everything a certificate states
    module: nn.Module,
    source: ImageSource,
    folder: Path,
    *,
    candidate: str,
    predicted_bits: int,
    network_accuracy: float,
    n_images: int,
    targets: Sequence[str],
) -> Certificate:
    """Write ``packed.safetensors`` and ``model.onnx`` to `folder` and compare all targets.

    Args:
        module: The fake-quantized network.
        source: The test images.
        folder: Where to write; must exist.
        candidate: Name of the network, for the certificate.
        predicted_bits: Weights and biases as the search counted them.
        network_accuracy: Of `module` on the test images.
        n_images: How many of them the targets compute.
        targets: Which of ``onnxruntime``, ``qonnx``, ``c`` and ``cortex-m`` to run.

    Raises:
        UnsupportedError: If the network has no exact integer form.
        ExportError: If a file cannot be written.
    """
    begin = perf_counter()
    n_images = min(n_images, len(source.labels))
    images = source.images(0, n_images)
    lowered = lower_with_reads(module, torch.from_numpy(images[:1]))
    graph = lowered.graph
    account = save_packed(graph, folder / PACKED)
    write_onnx(graph, folder / ONNX)
    onnx = onnx_payload(folder / ONNX)
    # What is scored is what was read back from the packed file.
    reference = Reference(load_packed(folder / PACKED))
    outputs, integer_accuracy = _score(reference, source, n_images)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = CheckInputs(images, reference.quantize(images), outputs, Path(scratch))
        results = list(_run_targets(module, lowered, inputs, folder, targets))
    return Certificate(
        candidate=candidate,
        predicted_bytes=predicted_bits / 8,
        packed_bytes=account.payload_bytes,
        n_layers=len(graph.layers),
        files=(
            FileSize(
                "packed",
                PACKED,
                account.payload_bytes,
                account.file_bytes,
                f"{account.step_bytes} bytes of steps, {account.structure_bytes} of structure, "
                f"{account.header_bytes} of header",
            ),
            FileSize(
                "onnx",
                ONNX,
                onnx.weight_bytes + onnx.bias_bytes,
                onnx.file_bytes,
                "steps, nodes and names; every weight takes a byte",
            ),
        ),
        targets=tuple(results),
        n_test_images=len(source.labels),
        integer_accuracy=integer_accuracy,
        network_accuracy=network_accuracy,
        seconds=perf_counter() - begin,
    )


def _score(reference: Reference, source: ImageSource, n_kept: int) -> tuple[IntArray, float]:
    """Return the outputs of the first images, and the accuracy on all."""
    kept, n_correct = [], 0
    for start in range(0, len(source.labels), BATCH):
        stop = min(start + BATCH, len(source.labels))
        outputs = reference.run(source.images(start, stop))
        scores = reference.graph.scores(outputs).reshape(stop - start, -1)
        n_correct += int((scores.argmax(axis=1) == source.labels[start:stop]).sum())
        if start < n_kept:
            kept.append(outputs[: n_kept - start])
    return np.concatenate(kept), n_correct / len(source.labels)


def _run_targets(
    module: nn.Module,
    lowered: Lowered,
    inputs: CheckInputs,
    folder: Path,
    targets: Sequence[str],
) -> Iterator[TargetResult]:
    graph = lowered.graph
    yield from check_fake_quant(module, lowered, inputs)
    yield _check_packed(graph, inputs)
    checks: dict[str, Callable[[], list[TargetResult]]] = {
        "onnxruntime": lambda: check_onnxruntime(graph, folder / ONNX, inputs),
        "qonnx": lambda: _qonnx(graph, inputs),
        "c": lambda: check_host_c(graph, inputs),
        "cortex-m": lambda: check_cortex_m(graph, inputs),
    }
    for name in targets:
        yield from checks[name]()


def _check_packed(graph: IntegerGraph, inputs: CheckInputs) -> TargetResult:
    """Compare the graph that was lowered with the one read back, which gave the outputs."""
    outputs = Reference(graph).run_codes(inputs.codes)
    return compare_integers(
        "packed checkpoint", "read back, NumPy", outputs, inputs.outputs, scores=graph.scores
    )


def _qonnx(graph: IntegerGraph, inputs: CheckInputs) -> list[TargetResult]:
    path = inputs.scratch / "network.qonnx.onnx"
    write_qonnx(graph, path)
    return check_qonnx(graph, path, inputs)
