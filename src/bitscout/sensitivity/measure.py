# SPDX-License-Identifier: Apache-2.0
"""From a network and images to its sensitivity, at once or from a file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bitscout.core import canonical_json
from bitscout.errors import DataError, RunError
from bitscout.sensitivity.estimators import (
    EmpiricalFisher,
    Estimator,
    GaussNewton,
    Hutchinson,
    Progress,
)
from bitscout.sensitivity.loss import CrossEntropy, Loss
from bitscout.sensitivity.result import SCHEMA, Sensitivity
from bitscout.sensitivity.subject import Subject

__all__ = ["ESTIMATORS", "measure_sensitivity", "sensitivity_signature"]

ESTIMATORS: Final[dict[str, type[Estimator]]] = {
    estimator.name: estimator for estimator in (GaussNewton, Hutchinson, EmpiricalFisher)
}
NOT_FOLDED: Final = (
    "Not every batch norm follows a layer it can be folded into: the traces are those of the "
    "weights as they are, in front of the norms with their running statistics."
)


def measure_sensitivity(  # noqa: PLR0913  # each has a default
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    estimator: Estimator | None = None,
    loss: Loss | None = None,
    layers: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Return how curved the loss is in the weights of each layer.

    In evaluation mode, with batch norms folded into the layers before them, because folded
    weights are what is quantized. Deterministic for a seed.

    Args:
        module: Any classifier, with any Python in its ``forward``. Not changed.
        images: Training images without augmentation, preprocessed as the network expects,
            shape ``(N, *)``; 512 to 1024 of them.
        labels: Their classes, shape ``(N,)``.
        estimator: How; `GaussNewton` by default.
        loss: What of; `CrossEntropy` by default.
        layers: Names of the layers in question; every convolution and linear by default.
        cache: A file that keeps results. One for the same weights, images, labels, loss and
            settings is returned from it; any other is measured and added.
        progress: Called while it measures.

    Raises:
        ConfigError: If the network has no convolution or linear, or does not run on the images.
        DataError: If the labels do not fit, or `cache` is some other file.
        TrainingError: If the loss or a gradient is not finite.
        UnsupportedError: If the network cannot be differentiated.
        RunError: If the cache cannot be written.
    """
    estimator, loss = estimator or GaussNewton(), loss or CrossEntropy()
    signature = sensitivity_signature(module, images, labels, estimator, loss, layers)
    known = _read(cache)
    if signature in known:
        return known[signature]
    start = time.perf_counter()
    subject = Subject.of(module, images, labels, loss, layers)
    found, notes = estimator.estimate(subject, progress)
    result = Sensitivity(
        layers=found,
        estimator=estimator.name,
        loss=loss.name,
        n_images=len(images),
        seconds=time.perf_counter() - start,
        signature=signature,
        notes=notes if subject.is_folded else (*notes, NOT_FOLDED),
    )
    if cache is not None:
        _write(cache, known | {signature: result})
    return result


def sensitivity_signature(  # everything a result depends on
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    estimator: Estimator,
    loss: Loss,
    layers: Sequence[str] | None = None,
) -> str:
    """Return 16 hexadecimal digits that differ when anything a result depends on does.

    That is structure and weights of the network, images, labels, estimator with its settings, and
    loss. What the ``forward`` of a network does beyond its modules is not seen.
    """
    digest = hashlib.sha256()
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "estimator": estimator.name,
        "settings": asdict(estimator),  # type: ignore[call-overload]  # every one is a dataclass
        "loss": loss.name,
        "layers": None if layers is None else sorted(layers),
    }
    digest.update(canonical_json(settings).encode())
    digest.update(repr(module).encode())
    for name, tensor in module.state_dict().items():
        _update(digest, name, tensor)
    _update(digest, "images", images)
    _update(digest, "labels", labels)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    values = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
    # As bytes, because NumPy has no bfloat16.
    digest.update(values.flatten().view(torch.uint8).numpy().tobytes())


def _read(cache: Path | None) -> dict[str, Sensitivity]:
    if cache is None or not cache.exists():
        return {}
    try:
        document = json.loads(cache.read_text(encoding="utf-8"))
        entries: Iterable[Any] = document["sensitivities"]
        found = [Sensitivity.from_json(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"{cache} is not a file of sensitivities of this version ({error}). Delete it, or "
            f"name another file."
        )
        raise DataError(msg) from error
    return {result.signature: result for result in found}


def _write(cache: Path, results: dict[str, Sensitivity]) -> None:
    """Write all results, the file whole or not at all."""
    entries = [result.to_json() for result in results.values()]
    text = json.dumps({"sensitivities": entries}, indent=1) + "\n"
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)  # mkstemp makes it private.
        temporary.replace(cache)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        msg = f"Cannot write {cache}: {error.strerror or error}. Name another file."
        raise RunError(msg) from error
