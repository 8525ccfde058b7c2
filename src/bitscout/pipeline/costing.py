# SPDX-License-Identifier: Apache-2.0
"""What a network costs on hardware, from a name to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitscout.core import QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware import CostReport, HardwareModel, HardwareSpec, load_hardware
from bitscout.pipeline.cost_arguments import (
    Bits,
    check_batch,
    read_bits,
    read_input_shape,
    read_settings,
)
from bitscout.pipeline.cost_sources import CostSource, find_source

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_HARDWARE", "CostPlan", "NetworkCost", "cost", "plan_cost"]

DEFAULT_HARDWARE: Final = ("size", "mcu")  # What needs no target to be chosen.
DEFAULT_BITS: Final = 8

Hardware = HardwareSpec | HardwareModel


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


@dataclass(frozen=True)
class CostPlan:
    """A network, its bits, and the hardware it is to be costed on.

    Attributes:
        network: Which network.
        bits: Which bits its layers have, and who said so.
        models: The hardware, in the order asked for.
        source: Where the network comes from.
        policy: Its bits.
    """

    network: str
    bits: str
    models: tuple[HardwareModel, ...]
    source: CostSource
    policy: QuantPolicy

    def report(self, model: HardwareModel) -> CostReport:
        """Return what the network costs on one of `models`.

        Raises:
            UnsupportedError: If it has no rule for a layer or its bits, or needs a file that
                cannot be written.
            MeasurementError: If a command that measures gave no answer.
        """
        onnx = self.source.onnx(self.policy) if model.needs_file else None
        if model.needs_file and onnx is None:
            msg = (
                f"Hardware {model.name!r} must be given a file, and {self.network} is a table of "
                "layers. Give a module as pkg.mod:make_net, a configuration or a run."
            )
            raise UnsupportedError(msg)
        return model.report(self.source.graph, self.policy, onnx=onnx)

    def carry_out(self) -> NetworkCost:
        """Return what the network costs on all of `models`; raises as `report` does."""
        reports = tuple(self.report(model) for model in self.models)
        return NetworkCost(self.network, self.bits, reports)


def cost(
    source: str | Path | nn.Module,
    hardware: Hardware | Sequence[Hardware] | None = None,
    *,
    bits: Bits | None = None,
    batch: int | None = None,
    input_shape: str | Sequence[int] | None = None,
    candidate: str | int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
) -> NetworkCost:
    """Return what a network costs, layer by layer and in total; nothing is trained.

    Args:
        source: A torch module; a built-in network, also with options
            (``mobilenet_v1:width=0.5``); a preset, a configuration file (the seed network of its
            space), a run directory, or an import path ``pkg.mod:make_net``.
        hardware: One or more models, or what `bitscout.hardware.load_hardware` reads; size and
            the memory of a microcontroller by default, or what the configuration names.
        bits: Weight and activation bits: ``8`` or ``"8"`` for both, ``(6, 4)`` or ``"6/4"``; a
            policy, or the path of one as JSON. By default the network's own, or 8.
        batch: Inputs computed together, of every hardware; by default each one's own.
        input_shape: ``(C, H, W)`` or ``"3x32x32"``, of a module or an import path, which need it,
            or of a built-in network.
        candidate: Of a run: a trial's number or a baseline's name; by default the best.
        settings: Of a configuration: ``{"key.path": value}``, or texts ``key.path=value``.

    Raises:
        ConfigError: If an argument is not understood, or does not belong to the source.
        PolicyError: If the policy does not name exactly the layers of the network.
        RunError: If the run has no such candidate.
        UnsupportedError: If hardware has no rule for a layer or its bits.
        MeasurementError: If a command that measures gave no answer.

    Example:
        >>> cost("resnet20", "size", bits=4).reports[0].total["weight_bytes"]
        134168.0
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))
        >>> cost(net, "size", input_shape=(3, 8, 8)).reports[0].total["params"]
        3114
    """
    plan = plan_cost(
        source,
        hardware,
        bits=bits,
        batch=batch,
        input_shape=input_shape,
        candidate=candidate,
        settings=settings,
    )
    return plan.carry_out()


def plan_cost(
    source: str | Path | nn.Module,
    hardware: Hardware | Sequence[Hardware] | None = None,
    *,
    bits: Bits | None = None,
    batch: int | None = None,
    input_shape: str | Sequence[int] | None = None,
    candidate: str | int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
) -> CostPlan:
    """Return what `cost` would compute, with the same arguments and errors, but compute nothing.

    For who wants the reports one by one, or in spite of hardware that has no rule.
    """
    check_batch(batch)
    given = _distinct([_model(entry, batch) for entry in _listed(hardware)])
    network = find_source(
        str(source) if isinstance(source, Path) else source,
        input_shape=read_input_shape(input_shape),
        candidate=None if candidate is None else str(candidate),
        settings=read_settings(settings),
    )
    models = given or [_model(entry, batch) for entry in network.hardware or DEFAULT_HARDWARE]
    if bits is None and network.policy is not None:
        policy, said = network.policy, "its own policy"
    else:
        wanted = DEFAULT_BITS if bits is None else bits
        policy, said = read_bits(wanted, network.graph.names)
        said += ", the default" if bits is None else ""
    policy.check_covers(network.graph.names)
    return CostPlan(network.label, said, tuple(models), network, policy)


def _listed(hardware: Hardware | Sequence[Hardware] | None) -> Sequence[Hardware]:
    if hardware is None:
        return ()
    if isinstance(hardware, Sequence) and not isinstance(hardware, str):
        return hardware
    return [hardware]


def _model(hardware: Hardware, batch: int | None) -> HardwareModel:
    if isinstance(hardware, HardwareModel):
        return hardware if batch is None else replace(hardware, batch=batch)
    return load_hardware(hardware, **({} if batch is None else {"batch": batch}))


def _distinct(models: Sequence[HardwareModel]) -> Sequence[HardwareModel]:
    """Return `models` after checking that none is there twice."""
    for index, model in enumerate(models):
        if model in models[:index]:
            msg = f"`hardware` (--hardware) has {model.spec} twice. Leave one out."
            raise ConfigError(msg)
    return models
