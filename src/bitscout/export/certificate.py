# SPDX-License-Identifier: Apache-2.0
"""The certificate: what every file of a network weighs, and what every target computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bitscout.export.checks.result import TargetResult

__all__ = ["Certificate", "FileSize"]


@dataclass(frozen=True)
class FileSize:
    """Where the bytes of one exported file go.

    Attributes:
        format: ``packed``, ``onnx``.
        name: Name of the file.
        payload_bytes: Weights and biases.
        file_bytes: The whole file.
        rest: What the difference consists of.
    """

    format: str
    name: str
    payload_bytes: int
    file_bytes: int
    rest: str


@dataclass(frozen=True)
class Certificate:
    """Everything that was compared for one network.

    Attributes:
        candidate: Name of the network: the trial's number, or that of a baseline.
        predicted_bytes: Bits of weights and int32 biases as the search counted them, divided by 8.
        packed_bytes: The same in the packed checkpoint: every tensor rounded up to bytes.
        n_layers: Layers with weights.
        files: Exported files.
        targets: What ran, against the integer reference; what is not installed is there as
            ``not run``.
        n_test_images: Images the integer reference was scored on.
        integer_accuracy: Its fraction of images classified correctly.
        network_accuracy: The same of the fake-quantized network, measured after its training;
            `None` where it was not.
        n_images: Images that every target computed; slow ones took fewer, see their outputs.
        seconds: Wall time of it all.
    """

    candidate: str
    predicted_bytes: float
    packed_bytes: int
    n_layers: int
    files: tuple[FileSize, ...]
    targets: tuple[TargetResult, ...]
    n_test_images: int
    integer_accuracy: float
    network_accuracy: float | None
    n_images: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether something ran, nothing failed, and the packed file holds what was predicted."""
        return self.n_passed > 0 and not self.failures and self.is_size_right

    @property
    def is_size_right(self) -> bool:
        """Whether the payload is the prediction, each layer's weights rounded up to a byte."""
        return 0 <= self.packed_bytes - self.predicted_bytes < self.n_layers

    @property
    def failures(self) -> tuple[TargetResult, ...]:
        """The targets that failed."""
        return tuple(target for target in self.targets if target.state == "failed")

    @property
    def n_passed(self) -> int:
        """How many targets passed."""
        return sum(target.state == "passed" for target in self.targets)

    @property
    def n_not_run(self) -> int:
        """How many targets did not run."""
        return sum(target.state == "not run" for target in self.targets)

    def to_json(self) -> dict[str, Any]:
        """Return the document ``certificate.json``, which ``verify --json`` prints."""
        return {
            "candidate": int(self.candidate) if self.candidate.isdigit() else self.candidate,
            "passed": self.passed,
            "predicted_bytes": self.predicted_bytes,
            "packed_bytes": self.packed_bytes,
            "n_layers": self.n_layers,
            "files": [asdict(file) for file in self.files],
            "targets": [
                {**asdict(target), "details": dict(target.details)} for target in self.targets
            ],
            "n_test_images": self.n_test_images,
            "integer_accuracy": self.integer_accuracy,
            "network_accuracy": self.network_accuracy,
            "n_images": self.n_images,
            "seconds": self.seconds,
        }
