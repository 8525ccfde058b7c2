# SPDX-License-Identifier: Apache-2.0
"""What a network costs on hardware, from a name to the report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.hardware import CostReport, HardwareModel, HardwareSpec, load_hardware
from bitscout.pipeline.cost_sources import CostSource, find_source

__all__ = ["DEFAULT_HARDWARE", "NetworkCost", "cost"]

DEFAULT_HARDWARE: Final = ("size", "mcu")  # What needs no target to be chosen.
DEFAULT_BITS: Final = 8

Hardware = HardwareSpec | HardwareModel
Bits = int | str | tuple[int, int] | Mapping[str, Any]


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs, on one or more kinds of hardware.

    Attributes:
        network: Which network.
        bits: Which bits its layers have, and who said so.
        reports: One for each kind of hardware, in the order asked for.
    """

    network: str
    bits: str
    reports: tuple[CostReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bitscout cost --json``.

        It is the report with ``network`` and ``bits``; with several kinds of hardware the first
        one's report, and all of them under ``reports``.
        """
        document = {"network": self.network, "bits": self.bits, **self.reports[0].to_json()}
        if len(self.reports) > 1:
            document["reports"] = [report.to_json() for report in self.reports]
        return document


def cost(
    source: str | Path,
    hardware: Hardware | Sequence[Hardware] | None = None,
    *,
    bits: Bits | None = None,
    batch: int | None = None,
    input_shape: str | Sequence[int] | None = None,
    candidate: str | int | None = None,
    settings: Sequence[str] = (),
) -> NetworkCost:
    """Return what a network costs, layer by layer and in total; nothing is trained.

    Args:
        source: A built-in network, a preset, a configuration file (the seed network of its
            space), a run directory, or an import path ``pkg.mod:make_net``.
        hardware: One or more models, or what `bitscout.hardware.load_hardware` reads; size and
            the memory of a microcontroller by default, or what the configuration names.
        bits: Weight and activation bits: ``8`` or ``"8"`` for both, ``(6, 4)`` or ``"6/4"``; a
            policy, or the path of one as JSON. By default the network's own, or 8.
        batch: Inputs computed together, of every hardware; by default each one's own.
        input_shape: ``(C, H, W)`` or ``"3x32x32"``, of an import path, which needs it, or of a
            built-in network.
        candidate: Of a run: a trial's number or a baseline's name; by default the best.
        settings: Of a configuration: ``key.path=value``.

    Raises:
        ConfigError: If an argument is not understood, or does not belong to the source.
        PolicyError: If the policy does not name exactly the layers of the network.
        RunError: If the run has no such candidate.
        UnsupportedError: If hardware has no rule for a layer or its bits.

    Example:
        >>> cost("resnet20", "size", bits=4).reports[0].total["weight_bytes"]
        134168.0
    """
    given = [_model(entry, batch) for entry in _listed(hardware)]
    network = find_source(
        str(source),
        input_shape=_shape(input_shape),
        candidate=None if candidate is None else str(candidate),
        settings=settings,
    )
    models = given or [_model(entry, batch) for entry in network.hardware or DEFAULT_HARDWARE]
    policy, said = _policy(network, bits)
    policy.check_covers(network.graph.names)
    return NetworkCost(
        network=network.label,
        bits=said,
        reports=tuple(_report(model, network, policy) for model in models),
    )


def _report(model: HardwareModel, network: CostSource, policy: QuantPolicy) -> CostReport:
    onnx = network.onnx(policy) if model.needs_file else None
    if model.needs_file and onnx is None:
        msg = (
            f"Hardware {model.name!r} must be given a file, and {network.label} is a table of "
            "layers. Give a module as pkg.mod:make_net, a configuration or a run."
        )
        raise UnsupportedError(msg)
    return model.report(network.graph, policy, onnx=onnx)


def _listed(hardware: Hardware | Sequence[Hardware] | None) -> Sequence[Hardware]:
    if hardware is None:
        return ()
    if isinstance(hardware, str | Mapping | HardwareModel):
        return [hardware]
    return hardware


def _model(hardware: Hardware, batch: int | None) -> HardwareModel:
    if isinstance(hardware, HardwareModel):
        return hardware if batch is None else replace(hardware, batch=batch)
    return load_hardware(hardware, **({} if batch is None else {"batch": batch}))


def _shape(text: str | Sequence[int] | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    shape = tuple(text.lower().split("x")) if isinstance(text, str) else tuple(text)
    try:
        sizes = tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        msg = f"`--input` must be CxHxW, for instance 3x32x32, got {text!r}."
        raise ConfigError(msg)
    return sizes


def _policy(network: CostSource, bits: Bits | None) -> tuple[QuantPolicy, str]:
    """Return the bits of every layer, and words for them."""
    if bits is None and network.policy is not None:
        return network.policy, "its own policy"
    if isinstance(bits, str) and not re.fullmatch(r"[\d\s/.+-]*", bits):
        return _policy_file(Path(bits)), f"those of {bits}"
    if isinstance(bits, Mapping):
        given = bits if isinstance(bits, QuantPolicy) else QuantPolicy.from_json(bits)
        return given, "those of a policy"
    pair = LayerBits(DEFAULT_BITS, DEFAULT_BITS) if bits is None else _pair(bits)
    policy = QuantPolicy.uniform(network.graph.names, pair.weight_bits, pair.act_bits)
    said = f"weights {pair.weight_bits}, activations {pair.act_bits}"
    return policy, f"{said}, the default" if bits is None else said


def _pair(bits: int | str | tuple[int, int]) -> LayerBits:
    try:
        parts = bits.split("/") if isinstance(bits, str) else bits
        numbers = [parts] if isinstance(parts, int) else [int(part) for part in parts]
        if len(numbers) not in (1, 2):
            raise ValueError  # One message for all.
        return LayerBits(numbers[0], numbers[-1])
    except (ValueError, TypeError) as error:
        msg = (
            f"`--bits` must be W or W/A, whole numbers from 2 to 8, or the path of a policy in "
            f"JSON; got {bits!r}."
        )
        raise ConfigError(msg) from error


def _policy_file(path: Path) -> QuantPolicy:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = (
            f"Cannot read the policy {path}: {error.strerror or error}. `--bits` is W, W/A, or a "
            'JSON file {"layer": [weight_bits, act_bits]}.'
        )
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"The policy {path} is not JSON: {error}."
        raise ConfigError(msg) from error
    if not isinstance(document, dict):
        msg = f"The policy {path} must map each layer to [weight_bits, act_bits]."
        raise PolicyError(msg)
    try:
        return QuantPolicy.from_json(document)
    except PolicyError as error:
        msg = f"The policy {path}: {error}"
        raise PolicyError(msg) from error
