# SPDX-License-Identifier: Apache-2.0
"""What a configuration would search, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitscout.errors import DataError
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.spaces import KNOWN_SHAPES, build_space
from bitscout.space import LayerSummary, SearchSpace, SpaceSummary

__all__ = ["ExplainReport", "data_shape", "explain"]


@dataclass(frozen=True)
class ExplainReport:
    """A space, counted and listed.

    Attributes:
        name: Name of the configuration.
        input_shape: ``(C, H, W)`` the space was laid out for.
        n_classes: Classes of the data.
        summary: Exact counts.
        layers: What is searched and what is fixed, layer by layer.
    """

    name: str
    input_shape: tuple[int, int, int]
    n_classes: int
    summary: SpaceSummary
    layers: tuple[LayerSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout explain --json``."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "n_classes": self.n_classes,
            **self.summary.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }


def explain(config: RunConfig, *, space: SearchSpace | None = None) -> ExplainReport:
    """Return what `config` would search.

    The data set is loaded only where its image shape is not known by name.

    Raises:
        ConfigError: If the space is empty or unknown.
        DataError: If the data must be loaded and cannot.
    """
    input_shape, n_classes = data_shape(config)
    space = build_space(config, input_shape, n_classes) if space is None else space
    return ExplainReport(
        name=config.name,
        input_shape=input_shape,
        n_classes=n_classes,
        summary=space.describe(),
        layers=space.explain_layers(),
    )


def data_shape(config: RunConfig) -> tuple[tuple[int, int, int], int]:
    """Return image shape and classes of the data, which is loaded only where it must be.

    Raises:
        DataError: If the data must be loaded and cannot.
    """
    if config.dataset.name in KNOWN_SHAPES:
        return KNOWN_SHAPES[config.dataset.name]
    from bitscout.pipeline.components import load_data  # PyTorch: only where it is needed

    try:
        data = load_data(config)
    except DataError as error:
        msg = f"The space depends on the images' shape, so the data is needed: {error}"
        raise DataError(msg) from error
    return data.input_shape, data.n_classes
