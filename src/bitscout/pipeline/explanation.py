# SPDX-License-Identifier: Apache-2.0
"""What a configuration would search, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from bitscout.errors import ConfigError, DataError, shown
from bitscout.pipeline.config import ModelSpaceConfig, RunConfig
from bitscout.pipeline.cost_arguments import read_input_shape
from bitscout.pipeline.load import apply_setting, load_config, make_config, preset_names
from bitscout.pipeline.spaces import KNOWN_SHAPES, build_space, model_space
from bitscout.space import LayerSummary, ModelSpace, SearchSpace, SpaceSummary

__all__ = ["ExplainReport", "data_shape", "explain", "explain_model", "explain_source"]

# Images of the data that built-in networks were published for.
MODEL_SHAPES: Final = {
    "mobilenet_v1": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "resnet8": (3, 32, 32),
    "resnet18": (3, 224, 224),
    "resnet20": (3, 32, 32),
    "resnet50": (3, 224, 224),
}


@dataclass(frozen=True)
class ExplainReport:
    """A space, counted and listed.

    Attributes:
        name: Name of the configuration.
        input_shape: ``(C, H, W)`` the space was laid out for.
        n_classes: Classes of the data; `None` where only a network is known.
        summary: Exact counts.
        layers: What is searched, fixed or unsupported, and why, layer by layer.
        notes: What else is to be known: what stays in floating point, what cannot be exported.
    """

    name: str
    input_shape: tuple[int, int, int]
    n_classes: int | None
    summary: SpaceSummary
    layers: tuple[LayerSummary, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout explain --json``."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "n_classes": self.n_classes,
            **self.summary.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "notes": list(self.notes),
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
    return _report(config.name, input_shape, n_classes, space)


def explain_source(
    source: str,
    *,
    input_shape: str | Sequence[int] | None = None,
    checkpoint: str | None = None,
    settings: Sequence[str] = (),
) -> ExplainReport:
    """Return what can be searched about a configuration or a network, whichever `source` names.

    Args:
        source: A preset, a configuration file, a built-in network or an import path.
        input_shape: Of a network: ``3x32x32`` or sizes. Built-in ones have a usual one.
        checkpoint: Of a network: its weights.
        settings: ``key.path=value``.

    Raises:
        ConfigError: If there is no such thing, or an argument does not belong to it; else as
            `explain` and `explain_model`.
        UnsupportedError: If a network cannot be traced.
    """
    is_config = source in preset_names() or source.endswith((".yaml", ".yml"))
    if is_config:
        given = {"--input": input_shape, "--checkpoint": checkpoint}
        for option, value in given.items():
            if value is not None:
                msg = (
                    f"{option} belongs to a network; {source} is a configuration, which says so "
                    "itself: --set space.input=3x32x32 or space.checkpoint=FILE."
                )
                raise ConfigError(msg)
        return explain(load_config(source, settings))
    if source not in MODEL_SHAPES and ":" not in source:
        names = [*preset_names(), *MODEL_SHAPES]
        nearest = get_close_matches(source, names, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        msg = (
            f"There is no preset or network {shown(source)}.{hint} Presets: "
            f"{', '.join(preset_names())}; networks: {', '.join(MODEL_SHAPES)}; or a "
            "configuration (.yaml) or an import path (pkg.mod:make_net)."
        )
        raise ConfigError(msg)
    shape = read_input_shape(input_shape) or MODEL_SHAPES.get(source)
    if shape is None or len(shape) != 3:
        msg = f"--input is needed for {source}: CxHxW, for instance 3x32x32, got {shown(shape)}."
        raise ConfigError(msg)
    return explain_model(source, shape, checkpoint=checkpoint, settings=settings)


def explain_model(
    model: str,
    input_shape: Sequence[int],
    *,
    checkpoint: str | None = None,
    settings: Sequence[str] = (),
) -> ExplainReport:
    """Return what could be searched about a network, whatever the data.

    Args:
        model: A built-in network or an import path, ``pkg.mod:make_net``.
        input_shape: ``(C, H, W)``.
        checkpoint: Its weights, which are only checked here.
        settings: Keys of the ``space`` section: ``space.tie=layer``.

    Raises:
        ConfigError: If the network cannot be made, does not run, or the checkpoint is another's.
        UnsupportedError: If it cannot be traced.
    """
    # PyTorch: only where it is needed.
    from bitscout.pipeline.given import export_problem, load_given

    document: dict[str, Any] = {
        "space": {"name": "model", "model": model, "checkpoint": checkpoint},
        "objective": {"score": "bomp"},  # Needs no budget, and is not looked at.
    }
    for setting in settings:
        if not setting.startswith("space.") or setting.startswith(("space.name", "space.model")):
            msg = (
                f"--set {setting}: of a network only keys of its space can be set, for instance "
                "space.tie=layer."
            )
            raise ConfigError(msg)
        apply_setting(document, setting)
    section = make_config(document, source="--set").space
    assert isinstance(section, ModelSpaceConfig), "its name says so"
    given = load_given(section, input_shape, None)
    space = model_space(section, given.description, given)
    channels, height, width = input_shape
    report = _report(model, (channels, height, width), None, space)
    problem = None if space.unsupported else export_problem(given, input_shape)
    return report if problem is None else replace(report, notes=(*report.notes, problem))


def _report(
    name: str, input_shape: tuple[int, int, int], n_classes: int | None, space: SearchSpace
) -> ExplainReport:
    return ExplainReport(
        name=name,
        input_shape=input_shape,
        n_classes=n_classes,
        summary=space.describe(),
        layers=space.explain_layers(),
        notes=space.description.notes if isinstance(space, ModelSpace) else (),
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
