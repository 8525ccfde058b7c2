# SPDX-License-Identifier: Apache-2.0
"""Certificates of a run's networks: made after the final training, read back, made again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter
from torch import nn

from bitscout.errors import ConfigError, TrainingError, UnsupportedError
from bitscout.export import Certificate, TargetResult
from bitscout.hardware import size_report
from bitscout.pipeline.components import Components
from bitscout.pipeline.config import CertificateConfig
from bitscout.pipeline.directory import RunDirectory, write_errors_explained
from bitscout.pipeline.events import CertificateFinished, CertificateStarted, Listener
from bitscout.pipeline.records import FinalRecord
from bitscout.pipeline.reload import reload_network
from bitscout.space import SearchSpace
from bitscout.training import ImageData

__all__ = ["EXPORTED", "certify_finals", "certify_network", "read_certificate"]

CERTIFICATE = "certificate.json"
# What a final network's folder holds besides its training's files, the certificate last.
EXPORTED = ("packed.safetensors", "model.onnx", CERTIFICATE)


class TestImages:
    """The test split as the networks read it: an `ImageSource`.

    Args:
        data: With its test split.
    """

    def __init__(self, data: ImageData) -> None:
        self._split = data.split("test").to("cpu")
        self._normalize = data.to("cpu").normalizer()
        self.labels: npt.NDArray[np.int64] = self._split.labels.numpy()

    def images(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return images `start` to `stop`, normalized, shape ``(N, C, H, W)``."""
        images = self._normalize(self._split.images[start:stop])
        result: npt.NDArray[np.float32] = np.ascontiguousarray(images.numpy())
        return result


def certify_finals(
    components: Components,
    run: RunDirectory,
    records: tuple[FinalRecord, ...],
    listener: Listener,
) -> None:
    """Export and verify the final networks that have no certificate yet.

    Args:
        components: Data, space and configuration of the run.
        run: Its directory, locked by the caller.
        records: The final networks.
        listener: Told of every certificate.

    Raises:
        RunError: If a file cannot be written.
    """
    config = components.config
    missing = [r for r in records if not (run.path / r.folder / r.name / CERTIFICATE).is_file()]
    if not config.certificate.enabled or not missing:
        return
    source = TestImages(components.data)
    for index, record in enumerate(missing):
        listener(CertificateStarted(record.label, index + 1, len(missing)))
        module = reload_network(
            run.path, record, config, run.read_json(run.dataset), components.space
        )
        certificate = certify_network(
            run, record, module, source, components.space, config.certificate
        )
        listener(CertificateFinished(record, certificate))


def certify_network(  # everything a certificate depends on
    run: RunDirectory,
    record: FinalRecord,
    module: nn.Module,
    source: TestImages,
    space: SearchSpace,
    config: CertificateConfig,
    *,
    is_kept: bool = True,
) -> Certificate:
    """Export one network into its folder, verify it, and write ``certificate.json``.

    A network without an exact integer form gets a certificate that says so. An earlier
    certificate is taken away first, so that none is ever older than its files.

    Args:
        run: Its directory, locked by the caller.
        record: Which network.
        module: It, fake-quantized.
        source: The test images.
        space: The run's space.
        config: Targets and images.
        is_kept: Whether to write into the network's folder; else nothing there changes.
    """
    if not is_kept:
        with tempfile.TemporaryDirectory() as scratch:
            return _certified(record, module, source, space, config, Path(scratch))
    folder = run.path / record.folder / record.name
    with write_errors_explained(folder):
        (folder / CERTIFICATE).unlink(missing_ok=True)
    certificate = _certified(record, module, source, space, config, folder)
    run.write_json(folder / CERTIFICATE, certificate.to_json())
    return certificate


def _certified(
    record: FinalRecord,
    module: nn.Module,
    source: TestImages,
    space: SearchSpace,
    config: CertificateConfig,
    folder: Path,
) -> Certificate:
    from bitscout.export import certify  # ONNX and the rest: only where they are used

    size = size_report(space.layers(record.candidate.values), record.candidate.policy)
    accuracy = record.metrics["test_accuracy"]
    try:
        return certify(
            module,
            source,
            folder,
            candidate=record.name,
            predicted_bits=size.size_bits,
            network_accuracy=accuracy,
            n_images=config.images,
            targets=config.targets,
        )
    except (UnsupportedError, TrainingError, ConfigError) as error:
        reason = str(error)
        return _failed_certificate(record.name, size.size_bits / 8, "integer graph", reason)


def _failed_certificate(name: str, predicted: float, target: str, reason: str) -> Certificate:
    return Certificate(
        candidate=name,
        predicted_bytes=predicted,
        packed_bytes=0,
        n_layers=0,
        files=(),
        targets=(TargetResult(target, "", "failed", reason),),
        n_test_images=0,
        integer_accuracy=0.0,
        network_accuracy=None,
        n_images=0,
        seconds=0.0,
    )


def read_certificate(run: RunDirectory, record: FinalRecord) -> Certificate | None:
    """Return a network's certificate, `None` before there is one.

    A damaged one, or one of another network, counts as failed and says so.
    """
    path = run.path / record.folder / record.name / CERTIFICATE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["candidate"] = str(document["candidate"])
        certificate = TypeAdapter(Certificate).validate_python(document)
        if certificate.candidate != record.name:
            msg = f"it is that of {certificate.candidate}"
            raise ValueError(msg)
    except (OSError, ValueError, TypeError, LookupError) as error:
        problem = str(error).splitlines()[0]
        reason = (
            f"{path} is damaged ({problem}). Make it again: bitscout verify {run.path} "
            f"--candidate {record.name}"
        )
        size = record.metrics["size_bytes"]
        return _failed_certificate(record.name, size, "certificate", reason)
    return certificate
