# SPDX-License-Identifier: Apache-2.0
"""What a command is asked for, and what it answered."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bitscout.errors import ConfigError

__all__ = ["Answer", "Quantities"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Unit of a quantity by the last word of its name; counts have the unit 1.
_UNITS: Final = {
    "s": "s",
    "ms": "ms",
    "us": "us",
    "j": "J",
    "mj": "mJ",
    "uj": "uJ",
    "mw": "mW",
    "bytes": "bytes",
    "cycles": "cycles",
}


class Quantities(Mapping[str, str]):
    """Names of quantities, each with its unit; immutable, equal in any order.

    Raises:
        ConfigError: If there is none, or one is no lower-case name.

    Example:
        >>> dict(Quantities(["latency_ms", "energy_mj"]))
        {'latency_ms': 'ms', 'energy_mj': 'mJ'}
    """

    __slots__ = ("_units",)

    def __init__(self, names: Iterable[str]) -> None:
        given: list[object] = list(names)  # YAML can hold anything.
        for name in given:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                msg = (
                    f"A measured quantity is a lower-case name that ends in its unit, such as "
                    f"latency_ms, got {name!r}."
                )
                raise ConfigError(msg)
        if not given:
            msg = "Measured hardware needs at least one quantity, such as latency_ms."
            raise ConfigError(msg)
        self._units = {name: _UNITS.get(name.rpartition("_")[2], "1") for name in map(str, given)}

    @classmethod
    def read(cls, value: object) -> Quantities:
        """Return the quantities of ``latency_ms+energy_mj``, or of a list of names."""
        if isinstance(value, str):
            return cls(part.strip() for part in value.split("+"))
        if not isinstance(value, Iterable) or isinstance(value, bytes):
            raise TypeError(value)
        return cls(value)

    def __getitem__(self, name: str) -> str:
        """Return the unit of a quantity."""
        return self._units[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._units)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._units)

    def __hash__(self) -> int:
        return hash(frozenset(self._units))

    def __str__(self) -> str:
        return "+".join(self._units)

    def __repr__(self) -> str:
        return f"Quantities({list(self._units)})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answered, reduced to what was asked for.

    Attributes:
        total: Every quantity that was asked for.
        layers: Quantities of single layers, as far as the command told them.
    """

    total: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(
        cls, document: object, quantities: Collection[str], layer_names: Collection[str]
    ) -> Answer:
        """Return the answer in a JSON document.

        Raises:
            ValueError: If it is no object, a quantity is missing or no finite number >= 0, or a
                layer is not one of the network.
        """
        if not isinstance(document, Mapping):
            msg = f"it answered no JSON object but {_short(document)}"
            raise ValueError(msg)  # noqa: TRY004  # one of many wrong answers, not a wrong call
        total = _numbers("", document, quantities)
        missing = [name for name in quantities if name not in total]
        if missing:
            msg = f"its answer lacks {', '.join(f'`{name}`' for name in missing)}"
            raise ValueError(msg)
        layers = document.get("layers", {})
        if not isinstance(layers, Mapping) or not all(
            isinstance(entry, Mapping) for entry in layers.values()
        ):
            msg = f"`layers` of its answer must map names to objects, got {_short(layers)}"
            raise ValueError(msg)
        for name in layers:
            if name not in layer_names:
                msg = f"its answer names the layer {name!r}, which the network does not have"
                raise ValueError(msg)
        return cls(
            total, {name: _numbers(f"{name}: ", layers[name], quantities) for name in layers}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document that `read` reads."""
        return {**self.total, "layers": {name: dict(entry) for name, entry in self.layers.items()}}


def _numbers(
    where: str, document: Mapping[str, Any], quantities: Collection[str]
) -> dict[str, float]:
    numbers = {}
    for name in quantities:
        if name in document:
            value = document[name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= sys.float_info.max:  # Nor NaN.
                msg = f"`{where}{name}` must be a finite number >= 0, got {_short(value)}"
                raise ValueError(msg)
            numbers[name] = value
    return numbers


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
