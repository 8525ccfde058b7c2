# SPDX-License-Identifier: Apache-2.0
"""The interface of a hardware model: layers in, report out.

A model is a frozen dataclass whose fields are its constants and options. Most models derive from
`LayerModel`, which needs one vectorized function; a model that must see the whole network derives
from `HardwareModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from bitscout.core import LayerArrays, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.options import Notation, check_bound, option_text
from bitscout.hardware.report import CostReport, LayerCost
from bitscout.hardware.signature import model_signature

__all__ = ["HardwareModel", "LayerModel", "Origin", "constant", "layer_kinds", "tunable"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ALL_BITS: Final = tuple(range(2, 9))
# Names in the order of the codes of `_kind_codes`.
_KINDS: Final = ("conv", "depthwise", "grouped", "linear")


def constant(unit: str, *, minimum: float | None = None) -> Any:  # noqa: ANN401  # the type of the field it becomes
    """Return a field that a target file must give, in `unit`.

    Args:
        unit: Its unit.
        minimum: Least value of a number; by default a number with a unit must be above 0.
    """
    return field(metadata={"unit": unit, "minimum": minimum})


def tunable(
    default: object,
    unit: str = "1",
    *,
    minimum: float | None = None,
    notation: Notation | None = None,
) -> Any:  # noqa: ANN401  # the type of the field it becomes
    """Return a field that a target file, the command line or nobody may give, in `unit`.

    Args:
        default: Its value where nobody gives one.
        unit: Its unit; ``"1"`` for counts, choices and the like.
        minimum: Least value of a number; by default a number with a unit must be above 0, or at
            least its default if that is not.
        notation: How a value that is neither number, text, choice nor truth value is written.
    """
    if minimum is None and unit != "1" and isinstance(default, int | float) and default <= 0:
        minimum = default
    return field(
        default=default, metadata={"unit": unit, "minimum": minimum, "notation": notation}
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """The target file that a model was made from.

    Attributes:
        values: Constants and options as the file gives them, in the model's units.
        notes: What a reader of the figures must know.
        description: One line about it.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class HardwareModel(ABC):
    """What a network costs on one kind of hardware.

    Attributes:
        name: Name of the target or of the model, for reports.
        batch: Inputs that are computed together.
        origin: The target file it was made from; two models that differ only here are equal.
    """

    # --- what a model states about itself

    @property
    @abstractmethod
    def quantities(self) -> Mapping[str, str]:
        """Every quantity it reports, with its unit; most models set a class attribute.

        `bitscout.core.METRIC_DIRECTIONS` has the names that budgets and objectives know.
        """

    weight_bits: ClassVar[Sequence[int]] = ALL_BITS
    """Bit-widths of weights it has a rule for."""
    act_bits: ClassVar[Sequence[int]] = ALL_BITS
    """Bit-widths of activations it has a rule for."""
    kinds: ClassVar[Sequence[str]] = _KINDS
    """Layers it has a rule for: ``conv``, ``depthwise``, ``grouped``, ``linear``."""
    is_dilation_supported: ClassVar[bool] = False
    """Whether it has a rule for dilated kernels."""
    needs_file: ClassVar[bool] = False
    """Whether it must be given the network as an ONNX file, not only its layers."""

    name: str = "custom"
    batch: int = tunable(1, minimum=1)
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Reject numbers out of their bounds; a model that checks more calls this first."""
        for entry in fields(self):
            if "unit" in entry.metadata:
                check_bound(self.name, entry, getattr(self, entry.name))

    @abstractmethod
    def report(
        self,
        graph: LayerGraph,
        policy: QuantPolicy,
        *,
        onnx: Callable[[], Path] | None = None,
    ) -> CostReport:
        """Return what `graph` costs at the bit-widths of `policy`.

        Args:
            graph: The network.
            policy: Bits of each layer.
            onnx: Writes the network as an ONNX file and returns its path; for models with
                `needs_file`, the others do not call it.

        Raises:
            PolicyError: If the policy does not name exactly the layers of the graph.
            UnsupportedError: If there is no rule for a layer or its bits.
        """

    @property
    def spec(self) -> str:
        """The model as `load_hardware` reads it: its name and what differs from its target."""
        given = []
        for entry in fields(self):
            default = None if entry.default is MISSING else entry.default
            value = getattr(self, entry.name)
            if "unit" in entry.metadata and value != self.origin.values.get(entry.name, default):
                given.append(f"{entry.name}={option_text(entry, value)}")
        return ":".join(filter(None, (self.name, ",".join(given))))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's figures must know: what its target file says.

        A model that has more to say adds to these: ``(*super().notes, ...)``.
        """
        return self.origin.notes

    @property
    def signature(self) -> str:
        """A digest of everything a cost depends on besides the layers and their bits.

        The constants and options, and the source of the model: of the whole package for the
        models of `bitscout`, of its module for others. Not the name, nor where they came from.
        """
        return model_signature(type(self), self.values())

    def values(self) -> dict[str, Any]:
        """Return the constants and options by name."""
        return {e.name: getattr(self, e.name) for e in fields(self) if "unit" in e.metadata}

    def refusal(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> tuple[int, str] | None:
        """Return the first layer there is no rule for and why, None where there is a rule for all.

        For what the class attributes above cannot say; all arrays have shape ``(n,)``. The reason
        continues "Hardware 'x' has no rule for layer 'y': " and has no full stop.
        """
        return None

    @final
    def declares(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> NDArray[np.bool_]:
        """Return where kind, dilation and bits are among what the model supports, shape ``(n,)``.

        `refusal` may still say otherwise.
        """
        is_dilated = (layers.dilation_height > 1) | (layers.dilation_width > 1)
        return (
            np.isin(weight_bits, list(self.weight_bits))
            & np.isin(act_bits, list(self.act_bits))
            & np.isin(layer_kinds(layers), list(self.kinds))
            & (self.is_dilation_supported | ~is_dilated)
        )

    @final
    def check(self, names: Sequence[str], layers: LayerArrays, bits: tuple[Any, Any]) -> None:
        """Check that there is a rule for every layer and its bits.

        Args:
            names: Names for the message, ``(n,)``.
            layers: Shape ``(n,)``.
            bits: Weight and activation bits, each broadcastable to ``(n,)``.

        Raises:
            UnsupportedError: Naming the first layer without a rule, what is supported and what
                to do.
        """
        pairs = (("weight", bits[0], self.weight_bits), ("activation", bits[1], self.act_bits))
        for what, given, supported in pairs:
            widths = np.broadcast_to(np.asarray(given), (len(layers),))
            for index in np.flatnonzero(~np.isin(widths, list(supported)))[:1]:
                msg = (
                    f"Hardware {self.name!r} has no rule for {widths[index]}-bit {what}s, as "
                    f"layer {names[index]!r} has; it supports {_run(supported)} bits. Choose "
                    "other bits or another target."
                )
                raise UnsupportedError(msg)
        kinds = layer_kinds(layers)
        for index in np.flatnonzero(~np.isin(kinds, list(self.kinds)))[:1]:
            msg = (
                f"Hardware {self.name!r} has no rule for layer {names[index]!r}, which is "
                f"{kinds[index]}; it supports {', '.join(self.kinds)}. Choose another target."
            )
            raise UnsupportedError(msg)
        is_dilated = (layers.dilation_height > 1) | (layers.dilation_width > 1)
        for index in np.flatnonzero(is_dilated)[:1]:
            if not self.is_dilation_supported:
                msg = (
                    f"Hardware {self.name!r} has no rule for the dilated kernel of layer "
                    f"{names[index]!r}. Choose another target."
                )
                raise UnsupportedError(msg)
        weight_bits, act_bits = (np.broadcast_to(np.asarray(b), (len(layers),)) for b in bits)
        refused = self.refusal(layers, weight_bits, act_bits)
        if refused is not None:
            index, reason = refused
            msg = f"Hardware {self.name!r} has no rule for layer {names[index]!r}: {reason}."
            raise UnsupportedError(msg)


@dataclass(frozen=True, kw_only=True)
class LayerModel(HardwareModel):
    """A model whose costs are computed layer by layer and add up.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Npu(LayerModel):
        ...     quantities = {"latency_ms": "ms"}
        ...     clock_mhz: float = tunable(200.0, "MHz")
        ...
        ...     def costs(self, layers, weight_bits, act_bits):
        ...         cycles = self.batch * layers.macs * np.maximum(weight_bits, act_bits) / 1024
        ...         return {"latency_ms": cycles / self.clock_mhz / 1e3}
        >>> from bitscout.core import Layer
        >>> graph = LayerGraph((Layer("fc", "linear", 1000, 1024),))
        >>> Npu(name="npu").report(graph, QuantPolicy.uniform(["fc"], 4)).total
        {'latency_ms': 0.04}
    """

    @abstractmethod
    def costs(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> Mapping[str, Any]:
        """Return every quantity of `quantities` for each layer; layers are independent.

        Called with layers and bits that have passed `check`.

        Args:
            layers: Shape ``(n,)``.
            weight_bits: Shape ``(n,)``.
            act_bits: Shape ``(n,)``, the bits of each layer's input.

        Returns:
            Arrays of shape ``(n,)`` by name, for `batch` inputs.
        """

    def totals(self, costs: Mapping[str, Any]) -> dict[str, float]:
        """Return each quantity of a network from those of its layers: their sums.

        Args:
            costs: Arrays by name; the last dimension, of layers, is summed over.
        """
        return {name: np.asarray(values).sum(axis=-1) for name, values in costs.items()}

    @final
    def report(
        self,
        graph: LayerGraph,
        policy: QuantPolicy,
        *,
        onnx: Callable[[], Path] | None = None,
    ) -> CostReport:
        """Return what `graph` costs at the bit-widths of `policy`; see `HardwareModel.report`."""
        policy.check_covers(graph.names)
        layers = LayerArrays.of(graph)
        weight_bits = np.array([policy[name].weight_bits for name in graph.names], dtype=np.int64)
        act_bits = np.array([policy[name].act_bits for name in graph.names], dtype=np.int64)
        self.check(graph.names, layers, (weight_bits, act_bits))
        costs = self.checked_costs(layers, weight_bits, act_bits)
        kinds, macs = layer_kinds(layers), layers.macs
        return CostReport(
            hardware=self.spec,
            batch=self.batch,
            units=self.quantities,
            total={name: np.asarray(total).item() for name, total in self.totals(costs).items()},
            layers=tuple(
                LayerCost(
                    layer,
                    str(kinds[i]),
                    int(macs[i]),
                    int(weight_bits[i]),
                    int(act_bits[i]),
                    {name: values[i].item() for name, values in costs.items()},
                )
                for i, layer in enumerate(graph.names)
            ),
            notes=self.notes,
            description=self.origin.description,
        )

    @final
    def checked_costs(
        self, layers: LayerArrays, weight_bits: IntArray, act_bits: IntArray
    ) -> dict[str, NDArray[Any]]:
        """Return `costs` after checking what a user's model answered, as int64 or float64.

        Raises:
            ConfigError: If a quantity is missing, of another shape, no number, negative or not
                finite.
        """
        answer = self.costs(layers, weight_bits, act_bits)
        checked = {}
        for name in self.quantities:
            if name not in answer:
                msg = (
                    f"Hardware {self.name!r} announces `{name}` but `costs` returned only "
                    f"{', '.join(answer) or 'nothing'}."
                )
                raise ConfigError(msg)
            values = np.asarray(answer[name])
            if values.dtype.kind not in "iuf":
                msg = (
                    f"Hardware {self.name!r}: `{name}` must be integers or floats, got "
                    f"{values.dtype}."
                )
                raise ConfigError(msg)
            values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
            if values.shape != (len(layers),):
                msg = (
                    f"Hardware {self.name!r}: `{name}` must have shape ({len(layers)},), one "
                    f"value a layer, got {values.shape}."
                )
                raise ConfigError(msg)
            if not np.isfinite(values).all() or (values < 0).any():
                bad = values[~np.isfinite(values) | (values < 0)][0]
                msg = (
                    f"Hardware {self.name!r}: `{name}` must be finite and >= 0 for every layer, "
                    f"got {bad}."
                )
                raise ConfigError(msg)
            checked[name] = values
        return checked


def layer_kinds(layers: LayerArrays) -> NDArray[np.str_]:
    """Return ``conv``, ``depthwise``, ``grouped`` or ``linear`` for each layer."""
    codes = np.where(layers.groups > 1, np.where(layers.is_depthwise, 1, 2), 0)
    return np.array(_KINDS)[np.where(layers.is_linear, 3, codes)]


def _run(bits: Sequence[int]) -> str:
    """Return ``2 to 8`` or ``4, 6, 8``."""
    ordered = sorted(bits)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(str(b) for b in ordered)
