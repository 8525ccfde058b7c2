# SPDX-License-Identifier: Apache-2.0
"""Where a network to be costed comes from: a name, a module, a configuration or a run.

PyTorch is imported only for modules and runs: what a built-in network or a preset costs is known
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bitscout.core import LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, RunError, shown
from bitscout.hardware import REFERENCE_NETWORKS, HardwareModel, reference_network
from bitscout.pipeline.config import RunConfig
from bitscout.pipeline.explanation import data_shape
from bitscout.pipeline.load import load_config, preset_names
from bitscout.pipeline.spaces import build_space, run_space
from bitscout.space import Architecture

if TYPE_CHECKING:
    from torch import nn

    from bitscout.core import Candidate
    from bitscout.pipeline.results import RunResult

__all__ = ["CostSource", "find_source"]

InputShape = tuple[int, ...]

# Arguments as Python and as the command line have them.
INPUT: Final = "`input_shape` (--input)"
CANDIDATE: Final = "`candidate` (--candidate)"
SETTINGS: Final = "`settings` (--set)"


@dataclass(frozen=True)
class CostSource:
    """A network whose costs can be computed.

    Attributes:
        label: What it is, for a person.
        graph: Its layers and operations.
        policy: Its own bits; `None` where it has none.
        network: What an ONNX file can be written from; `None` for a table of layers.
        input_shape: Shape of one input without the batch.
        hardware: What its configuration says it runs on; empty where that is not said.
    """

    label: str
    graph: LayerGraph
    policy: QuantPolicy | None
    network: Architecture | nn.Module | None
    input_shape: InputShape | None
    hardware: tuple[HardwareModel, ...] = ()

    def onnx(self, policy: QuantPolicy) -> Callable[[], Path] | None:
        """Return what writes the network as an ONNX file with random weights, if it can be."""
        if self.network is None or self.input_shape is None:
            return None
        from bitscout.pipeline.measuring import onnx_writer  # PyTorch: only where it is needed

        return onnx_writer(self.network, policy, self.input_shape)


def find_source(
    source: str | nn.Module,
    *,
    input_shape: InputShape | None = None,
    candidate: str | None = None,
    settings: Sequence[str] = (),
) -> CostSource:
    """Return the network that `source` names or is.

    Looked for in this order: a built-in network, a preset or configuration file, a run directory,
    an import path.

    Args:
        source: ``my.yaml``, ``resnet18``, ``quickstart``, ``runs/quickstart``, ``pkg.mod:make`` or
            a module.
        input_shape: Of a module or an import path, which need it, or of a built-in network.
        candidate: Of a run: a trial's number or a baseline's name; by default the best.
        settings: Of a configuration: ``key.path=value``.

    Raises:
        ConfigError: If there is no such thing, or an argument does not belong to it.
        RunError: If the run has no such candidate.
        UnsupportedError: If a module cannot be traced.
    """
    given = {INPUT: input_shape, CANDIDATE: candidate, SETTINGS: settings}
    if not isinstance(source, str):
        _allow(given, INPUT, "a module")
        return _from_module(source, input_shape)
    if source.partition(":")[0] in REFERENCE_NETWORKS:
        _allow(given, INPUT, "a built-in network")
        return _from_table(source, input_shape)
    if source in preset_names() or source.endswith((".yaml", ".yml")):
        _allow(given, SETTINGS, "a preset or a configuration")
        return _from_config(load_config(source, settings), Path(source).name)
    if source and _is_directory(source):
        _allow(given, CANDIDATE, "a run")
        return _from_run(source, candidate)
    if ":" in source:
        _allow(given, INPUT, "an import path")
        return _from_import_path(source, input_shape)
    raise _unknown(source)


def _is_directory(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # Too long for a name.
        return False


def _allow(given: Mapping[str, object], allowed: str, what: str) -> None:
    owners = {
        INPUT: "an import path, a module or a built-in network",
        CANDIDATE: "a run directory",
        SETTINGS: "a preset or a configuration",
    }
    for option, value in given.items():
        if value and option != allowed:
            msg = f"{option} belongs to {owners[option]}; this is {what}. Leave it out."
            raise ConfigError(msg)


def _from_table(name: str, input_shape: InputShape | None) -> CostSource:
    if input_shape is None:
        return CostSource(name, reference_network(name), None, None, None)
    if len(input_shape) != 3:
        msg = f"{INPUT} of {name} must be CxHxW, for instance 3x224x224, got {input_shape[0]}."
        raise ConfigError(msg)
    channels, height, width = input_shape
    graph = reference_network(name, (channels, height, width))
    label = f"{name} on {channels}x{height}x{width}"
    return CostSource(label, graph, None, None, None)


def _from_config(config: RunConfig, name: str) -> CostSource:
    shape, n_classes = data_shape(config)
    space = build_space(config, shape, n_classes)
    values = space.seed_values()
    architecture = space.architecture(values)
    return CostSource(
        label=f"seed network of {name}",
        graph=architecture.layers(),
        policy=space.policy(values),
        network=architecture,
        input_shape=shape,
        hardware=_hardware(config),
    )


def _hardware(config: RunConfig) -> tuple[HardwareModel, ...]:
    return () if config.hardware is None else config.build_hardware()


def _from_run(directory: str, wanted: str | None) -> CostSource:
    from bitscout.pipeline.results import load_result  # PyTorch: only where it is needed

    result = load_result(directory)
    label, candidate = _candidate(result, wanted)
    channels, height, width = result.dataset["input_shape"]
    shape = (channels, height, width)
    space = run_space(directory, result.config, result.dataset)
    architecture = space.architecture(candidate.values)
    return CostSource(
        label=f"{label} of {directory}",
        graph=architecture.layers(),
        policy=candidate.policy,
        network=architecture,
        input_shape=shape,
        hardware=_hardware(result.config),
    )


def _candidate(result: RunResult, wanted: str | None) -> tuple[str, Candidate]:
    """Return a trial or baseline of a run; without a wish its best trial."""
    known = {
        str(trial.number): (f"trial {trial.number}", trial.candidate)
        for trial in result.trials
        if trial.candidate is not None
    }
    known |= {record.name: (record.label, record.candidate) for record in result.baselines}
    best = result.best_final or result.best
    if wanted is None and best is not None:
        wanted = str(best.number)
    found = known.get(str(wanted))
    if found is None or found[1] is None:
        numbers = [int(name) for name in known if name.isdigit()]
        names = [f"trials {min(numbers)} to {max(numbers)}"] if numbers else []
        names += [record.name for record in result.baselines]
        what = "no evaluated candidate" if wanted is None else f"no candidate {wanted!r}"
        msg = f"{result.directory} has {what}. It has: {', '.join(names) or 'none yet'}."
        raise RunError(msg)
    return found[0], found[1]


def _from_import_path(path: str, input_shape: InputShape | None) -> CostSource:
    shape = _needed(input_shape, path)
    from bitscout.networks import load_model, trace  # PyTorch: only where it is needed

    network = load_model(path)
    return CostSource(path, trace(network, shape), None, network, shape)


def _from_module(module: object, input_shape: InputShape | None) -> CostSource:
    from bitscout.networks import trace
    from bitscout.pipeline.cost_modules import checked_module

    network = checked_module(module)
    label = type(network).__name__
    shape = _needed(input_shape, label)
    return CostSource(label, trace(network, shape), None, network, shape)


def _needed(input_shape: InputShape | None, label: str) -> InputShape:
    if input_shape is None:
        msg = f"{INPUT} is needed for {label}: CxHxW, for instance 3x32x32."
        raise ConfigError(msg)
    return input_shape


def _unknown(source: str) -> ConfigError:
    known = [*REFERENCE_NETWORKS, *preset_names()]
    # Spelling differs in punctuation as often as in letters: MobileNet-v2.
    plain = {name.replace("_", "").replace("-", ""): name for name in known}
    wish = source.lower().replace("_", "").replace("-", "")
    nearest = get_close_matches(wish, plain, n=1)
    hint = f" Did you mean {plain[nearest[0]]!r}?" if nearest else ""
    msg = (
        f"There is no network, preset or run {shown(source)}.{hint} Networks: "
        f"{', '.join(REFERENCE_NETWORKS)}; presets: {', '.join(preset_names())}; or a "
        "configuration (.yaml), a run directory, or an import path (pkg.mod:make_net)."
    )
    return ConfigError(msg)
