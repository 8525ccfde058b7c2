# SPDX-License-Identifier: Apache-2.0
"""From a finished run to files for a device: what ``export`` and ``verify`` do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from bitscout.errors import ConfigError, DataError
from bitscout.export import Certificate
from bitscout.pipeline.certificates import TestImages, certify_network
from bitscout.pipeline.config import CertificateConfig
from bitscout.pipeline.directory import RunDirectory
from bitscout.pipeline.records import FinalRecord
from bitscout.pipeline.results import RunResult
from bitscout.pipeline.spaces import run_space
from bitscout.space import SearchSpace

if TYPE_CHECKING:
    from bitscout.export import Exported, IntegerGraph

__all__ = ["DeployRequest", "export_final", "verify_final"]

Format = Literal["packed", "onnx", "qonnx", "c"]
N_TEST_VECTORS = 3


@dataclass(frozen=True, kw_only=True)
class DeployRequest:
    """Which file to write.

    Attributes:
        format: ``packed``, ``onnx``, ``qonnx`` or ``c``.
        storage: How ``onnx`` stores weights: ``int8``, ``packed`` or ``int4``.
        profile: ``hls4ml``, of ``qonnx`` only.
        target: ``host`` or ``cortex-m``, of ``c`` only.

    Raises:
        ConfigError: If an option does not belong to the format.
    """

    format: Format
    storage: Literal["int8", "packed", "int4"] | None = None
    profile: Literal["hls4ml"] | None = None
    target: Literal["host", "cortex-m"] | None = None

    def __post_init__(self) -> None:
        """Reject options that would do nothing."""
        for option, owner in (("storage", "onnx"), ("profile", "qonnx"), ("target", "c")):
            if getattr(self, option) is not None and self.format != owner:
                msg = (
                    f"`--{option}` belongs to `--format {owner}`, got it with "
                    f"`--format {self.format}`. Leave it out."
                )
                raise ConfigError(msg)

    @property
    def file_name(self) -> str:
        """Name of the file or folder in the network's folder."""
        match self.format:
            case "packed":
                return "packed.safetensors"
            case "onnx":
                storage = self.storage or "int8"
                return "model.onnx" if storage == "int8" else f"model.{storage}.onnx"
            case "qonnx":
                return f"{self.profile or 'model'}.qonnx.onnx"
            case "c":
                return "cortex-m" if self.target == "cortex-m" else "c"


def export_final(
    result: RunResult,
    name: str | int,
    request: DeployRequest,
    out: Path | None = None,
    *,
    space: SearchSpace | None = None,
) -> Exported:
    """Write one final network or baseline in one format.

    Args:
        result: The run.
        name: A final network or baseline.
        request: What to write.
        out: File or folder; by default in the network's own folder of the run.
        space: The run's space, where that was handed over in Python.

    Raises:
        RunError: If there is no such network.
        UnsupportedError: If the network is outside what the format can hold.
        ExportError: If the file cannot be written.
    """
    from bitscout.export import export_graph  # ONNX and the rest: only where they are used

    record = result.record(name)
    path = result.directory / record.folder / record.name / request.file_name
    if out is not None:
        _check_out(result, out)
        path = out
    return export_graph(
        _lower(result, record, space),
        path,
        format=request.format,
        storage=request.storage or "int8",
        profile=request.profile,
        target=request.target or "host",
        images=_test_vectors(result),
    )


def verify_final(
    result: RunResult,
    name: str | int,
    config: CertificateConfig | None = None,
    *,
    space: SearchSpace | None = None,
) -> Certificate:
    """Export and verify one network again, and write its certificate.

    With fewer targets or images than the run's nothing is written: a partial check must not take
    the place of a whole one.

    Args:
        result: The run.
        name: A final network or baseline.
        config: Targets and number of images; by default those of the run.
        space: The run's space, where that was handed over in Python.

    Raises:
        RunError: If there is no such network.
        DataError: If the test images are no longer there.
    """
    record = result.record(name)
    run = RunDirectory(result.directory)
    configured = result.config.certificate
    config = config or configured
    is_whole = set(config.targets) >= set(configured.targets)
    is_whole = is_whole and config.images >= configured.images
    space = space or _space(result)
    module = result.load(record.name, space=space)
    source = TestImages(result.data())
    with run.lock():
        return certify_network(run, record, module, source, space, config, is_kept=is_whole)


def _check_out(result: RunResult, out: Path) -> None:
    """Refuse to write over the run's own files, devices and the like."""
    home, target = result.directory.resolve(), out.resolve()
    is_special = out.exists() and not (out.is_file() or out.is_dir())
    if is_special or (out.exists() and target.is_relative_to(home)):
        msg = f"{out} is {'no file' if is_special else 'part of the run'}. Give another --out."
        raise ConfigError(msg)


def _space(result: RunResult) -> SearchSpace:
    return run_space(result.directory, result.config, result.dataset)


def _test_vectors(result: RunResult) -> npt.NDArray[np.float32] | None:
    """Return some test images, `None` where the data is not at hand: random ones will do."""
    try:
        source = TestImages(result.data())
    except (ConfigError, DataError):
        return None
    return source.images(0, N_TEST_VECTORS)


def _lower(result: RunResult, record: FinalRecord, space: SearchSpace | None) -> IntegerGraph:
    from bitscout.export import lower

    module = result.load(record.name, space=space)
    return lower(module, torch.zeros(1, *result.dataset["input_shape"]))
