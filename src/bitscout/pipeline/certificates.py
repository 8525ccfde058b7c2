# SPDX-License-Identifier: Apache-2.0
"""Certificates of a run's networks: made after the final training, read back, made again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from bitscout.errors import RunError, UnsupportedError
from bitscout.export import Certificate, TargetResult
from bitscout.hardware import size_report
from bitscout.pipeline.components import Components
from bitscout.pipeline.config import CertificateConfig
from bitscout.pipeline.directory import RunDirectory
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


def certify_network(
    run: RunDirectory,
    record: FinalRecord,
    module: nn.Module,
    source: TestImages,
    space: SearchSpace,
    config: CertificateConfig,
) -> Certificate:
    """Export one network into its folder, verify it, and write ``certificate.json``.

    A network without an exact integer form gets a certificate that says so.
    """
    from bitscout.export import certify  # ONNX and the rest: only where they are used

    folder = run.path / record.folder / record.name
    policy = record.candidate.policy
    size = size_report(space.layers(record.candidate.values), policy)
    accuracy = record.metrics["test_accuracy"]
    try:
        certificate = certify(
            module,
            source,
            folder,
            candidate=record.name,
            predicted_bits=size.size_bits,
            network_accuracy=accuracy,
            n_images=config.images,
            targets=config.targets,
        )
    except UnsupportedError as error:
        failed = TargetResult("integer graph", "lowering", "failed", str(error))
        certificate = Certificate(
            candidate=record.name,
            predicted_bytes=size.size_bits / 8,
            packed_bytes=0,
            n_layers=len(policy),
            files=(),
            targets=(failed,),
            n_test_images=0,
            integer_accuracy=0.0,
            network_accuracy=accuracy,
            seconds=0.0,
        )
    run.write_json(folder / CERTIFICATE, certificate.to_json())
    return certificate


def read_certificate(run: RunDirectory, record: FinalRecord) -> Certificate | None:
    """Return a network's certificate, `None` before there is one.

    Raises:
        RunError: If the file is damaged.
    """
    path = run.path / record.folder / record.name / CERTIFICATE
    if not path.is_file():
        return None
    document = run.read_json(path)
    try:
        return Certificate.from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is damaged ({error!r}). Delete it and make it again: bitscout verify"
        raise RunError(msg) from error
