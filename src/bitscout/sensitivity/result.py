# SPDX-License-Identifier: Apache-2.0
"""How sensitive each layer of a network is, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from bitscout.errors import DataError

__all__ = ["LayerSensitivity", "Sensitivity"]

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """The curvature of the loss in the weights of one layer.

    Attributes:
        name: Path of the module.
        trace: Estimate of the trace of the curvature with respect to the layer's weights, for the
            mean loss of the images. May be slightly negative for a Hessian.
        standard_error: Of `trace`, as an estimate for the distribution the images come from.
        probe_error: The part of it due to random probes or drawn labels; given the same images,
            the trace is known to within it. 0 where nothing is drawn.
        n_weights: Number of weights.
        n_probes: Probes or draws used.
        input_trace: Mean squared norm of the gradient with respect to what the layer reads, the
            trace of the curvature in the layer's input for one image; `None` if unknown.
        n_inputs: Values of the layer's input for one image; 0 if unknown.
    """

    name: str
    trace: float
    standard_error: float
    probe_error: float
    n_weights: int
    n_probes: int
    input_trace: float | None = None
    n_inputs: int = 0

    @property
    def mean(self) -> float:
        """The trace divided by the number of weights, the papers' sensitivity."""
        return self.trace / self.n_weights

    @property
    def mean_error(self) -> float:
        """Standard error of `mean`."""
        return self.standard_error / self.n_weights

    @property
    def input_mean(self) -> float:
        """The trace in the input divided by its number of values; 0 if unknown."""
        return (self.input_trace or 0.0) / max(self.n_inputs, 1)


@dataclass(frozen=True)
class Sensitivity:
    """The curvature of the loss in every layer of a network.

    Attributes:
        layers: In the order of the network's modules.
        estimator: ``gauss_newton``, ``hessian`` or ``fisher``.
        loss: Which loss.
        n_images: Images it was estimated on.
        seconds: Time it took.
        signature: Digest of weights, data, loss, estimator and settings.
        notes: What a reader should know, sentences.
    """

    layers: tuple[LayerSensitivity, ...]
    estimator: str
    loss: str
    n_images: int
    seconds: float
    signature: str
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerSensitivity:
        """Return the layer called `name`.

        Raises:
            KeyError: If there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(layer.name for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; `from_json` reads them."""
        return {"schema_version": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sensitivity:
        """Return what `to_json` wrote.

        Raises:
            DataError: If the document is not of that form.
        """
        try:
            if document["schema_version"] != SCHEMA:
                raise ValueError(document["schema_version"])
            layers = tuple(LayerSensitivity(**layer) for layer in document["layers"])
            values = {
                key: document[key]
                for key in ("estimator", "loss", "n_images", "seconds", "signature")
            }
            notes = tuple(document["notes"])
            if not all(math.isfinite(layer.trace) and layer.n_weights > 0 for layer in layers):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            msg = f"Not a sensitivity written by this version: {type(error).__name__} {error}."
            raise DataError(msg) from error
        return cls(layers=layers, notes=notes, **values)
