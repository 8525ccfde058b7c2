# SPDX-License-Identifier: Apache-2.0
"""Writing a network's files, running them everywhere they can run, and signing what was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bitscout.errors import BitscoutError, UnsupportedError
from bitscout.export.certificate import Certificate, FileSize
from bitscout.export.checks.cortex_m import check_cortex_m, require_cortex_m_tools
from bitscout.export.checks.fake_quant import check_fake_quant
from bitscout.export.checks.host_c import check_host_c, require_c_compiler
from bitscout.export.checks.ort import check_onnxruntime
from bitscout.export.checks.qonnx import check_qonnx
from bitscout.export.checks.result import CheckInputs, TargetResult, compare_integers
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.graph import IntegerGraph
from bitscout.export.lowering import Lowered, lower_with_reads
from bitscout.export.onnx_qdq import onnx_payload, write_onnx
from bitscout.export.packed import PackedAccount, load_packed, save_packed
from bitscout.export.qonnx import write_qonnx
from bitscout.export.reference import Reference

__all__ = ["ImageSource", "certify", "require_targets"]

PACKED, ONNX = "packed.safetensors", "model.onnx"
BATCH = 256  # Images scored at once; bounds the memory.

# What other people's tools raise on a file they do not like; one of them ends no search.
TOOL_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

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
    network_accuracy: float | None,
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
        network_accuracy: Of the network on the test images, as measured after its training.
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
    # What is scored is what was read back from the packed file.
    reference = Reference(load_packed(folder / PACKED))
    outputs, integer_accuracy = _score(reference, source, n_images)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = CheckInputs(images, reference.quantize(images), outputs, Path(scratch))
        results = list(_run_targets(module, lowered, inputs, folder, targets))
    if network_accuracy is not None:
        accuracies = network_accuracy, integer_accuracy
        results.append(_check_accuracy(graph, accuracies, len(source.labels)))
    return Certificate(
        candidate=candidate,
        predicted_bytes=predicted_bits / 8,
        packed_bytes=account.payload_bytes,
        n_layers=len(graph.layers),
        files=_file_sizes(account, folder),
        targets=tuple(results),
        n_test_images=len(source.labels),
        integer_accuracy=integer_accuracy,
        network_accuracy=network_accuracy,
        n_images=n_images,
        seconds=perf_counter() - begin,
    )


def _file_sizes(account: PackedAccount, folder: Path) -> tuple[FileSize, ...]:
    onnx = onnx_payload(folder / ONNX)
    rest = (
        f"{account.step_bytes} bytes of steps, {account.structure_bytes} of structure, "
        f"{account.header_bytes} of header"
    )
    return (
        FileSize("packed", PACKED, account.payload_bytes, account.file_bytes, rest),
        FileSize(
            "onnx",
            ONNX,
            onnx.weight_bytes + onnx.bias_bytes,
            onnx.file_bytes,
            "steps, nodes and names; every weight takes a byte",
        ),
    )


def _check_accuracy(
    graph: IntegerGraph, accuracies: tuple[float, float], n_images: int
) -> TargetResult:
    """Compare how many images the integers classify correctly with the count after training.

    The network was read back from its file since: other weights or images would show here.
    """
    n_trained, n_integer = (round(accuracy * n_images) for accuracy in accuracies)
    difference = abs(n_integer - n_trained)
    allowed = max(1, n_images // 200) if rounded_in_float32(graph) else 0
    is_good = difference <= allowed
    reason = f"{n_integer} of {n_images} images are right, {n_trained} were after training"
    return TargetResult(
        "test accuracy",
        "as after training",
        "passed" if is_good else "failed",
        "" if is_good else reason,
        outputs=n_images,
        mismatches=difference,
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
        try:
            yield from checks[name]()
        except BitscoutError as error:
            yield TargetResult(name, "", "failed", str(error))
        except TOOL_ERRORS as error:
            yield TargetResult(name, "", "failed", f"{type(error).__name__}: {error}")


def require_targets(targets: Sequence[str]) -> None:
    """Refuse targets whose tools are not installed.

    Raises:
        UnsupportedError: Naming what to install.
    """
    if "c" in targets:
        require_c_compiler()
    if "cortex-m" in targets:
        require_cortex_m_tools()
    for name in ("onnxruntime", "qonnx"):
        if name in targets and find_spec(name) is None:
            msg = f"{name} was asked for but is not installed: pip install 'bitscout[deploy]'"
            raise UnsupportedError(msg)


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
