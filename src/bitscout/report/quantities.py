# SPDX-License-Identifier: Apache-2.0
"""Physical quantities as a person reads them: a column, its unit, and numbers that line up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Final

from bitscout.hardware import CostReport

__all__ = [
    "ABSENT",
    "FIRST",
    "MAX_PARTS",
    "Column",
    "column",
    "columns",
    "dearest",
    "is_of_every_layer",
    "part_names",
    "shares",
    "unit_of",
]

ABSENT: Final = "–"

# The quantities that people ask for first, most wanted first.
FIRST: Final = (
    "latency_ms",
    "energy_mj",
    "cycles",
    "size_bytes",
    "flash_bytes",
    "peak_memory_bytes",
)
# Each line is one thing to look at; the names of a line say nearly the same.
_LOOKED_AT: Final = (
    ("latency_ms", "cycles"),
    ("energy_mj",),
    ("size_bytes", "flash_bytes", "weight_bytes"),
)
_UNWANTED: Final = ("macs",)  # Every table has them already.
# Units with their larger and smaller relatives.
_PREFIXES: Final[dict[str, tuple[tuple[float, str], ...]]] = {
    "ms": ((1e3, "s"), (1.0, "ms"), (1e-3, "µs"), (1e-6, "ns")),
    "mJ": ((1e3, "J"), (1.0, "mJ"), (1e-3, "µJ"), (1e-6, "nJ")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes")),
    "bits": ((1e9, "Gbit"), (1e6, "Mbit"), (1e3, "kbit"), (1.0, "bits")),
}
_COUNTS: Final = ((1e9, "10^9"), (1e6, "10^6"), (1e3, "10^3"), (1.0, ""))
# Counts whose name says what is counted.
_COUNTED: Final = {"bops": "BOPs", "macs": "MACs", "params": "parameters"}
MAX_PARTS: Final = 6  # As many colours as the page has for them.
_SIGNIFICANT_DIGITS: Final = 5  # Of a network's total; its layers get as many decimals.
SUMMARY_DIGITS: Final = 3  # Where networks are compared: no model is as good as that.


@dataclass(frozen=True, slots=True)
class Column:
    """How one quantity of one report is written.

    Attributes:
        name: The quantity, ``latency_ms``.
        label: What it is called, ``latency``.
        unit: The unit it is written in, ``µs``; may be empty.
        scale: That unit in terms of the quantity's own.
        decimals: Digits after the point.
    """

    name: str
    label: str
    unit: str
    scale: float
    decimals: int

    def text(self, value: float | None) -> str:
        """Return `value`, in the quantity's own unit, as digits alone."""
        return ABSENT if value is None else f"{value / self.scale:,.{self.decimals}f}"

    def brief(self, value: float | None) -> str:
        """Return `value` with three significant digits, or fewer where those are all it has.

        Example:
            >>> entry = column("energy_mj", "mJ", [0.148, 0.0298])
            >>> entry.brief(0.148), entry.brief(0.02981)
            ('148', '29.8')
        """
        if value is None:
            return ABSENT
        number = value / self.scale
        decimals = _decimals(number, SUMMARY_DIGITS)
        if round(number, self.decimals) == number:
            decimals = min(decimals, self.decimals)
        return f"{number:,.{decimals}f}"

    def with_unit(self, value: float) -> str:
        """Return `value` with its unit."""
        return f"{self.text(value)} {self.unit}".rstrip()


def column(name: str, unit: str, values: Sequence[float]) -> Column:
    """Return how a quantity is written whose largest value has five significant digits.

    Whole bytes have no more decimals than all values of the column need: 2.56 kB, not 2.5600.

    Args:
        name: The quantity.
        unit: Its unit.
        values: Every value to be written with it; may be empty.

    Example:
        >>> column("latency_ms", "ms", [0.0123456]).with_unit(0.0123456)
        '12.346 µs'
        >>> column("cycles", "cycles", [444, 12]).text(12)
        '12'
    """
    largest = max(values, default=0.0)
    prefixes = _PREFIXES.get(unit, _COUNTS)
    # 999.996 kB is written as 1.0000 MB, not as 1000.0 kB.
    fitting = (pair for pair in prefixes if largest >= 0.999995 * pair[0])
    scale, prefixed = next(fitting, prefixes[-1])
    if largest == 0:
        scale, prefixed = next(pair for pair in prefixes if pair[0] == 1.0)
    label = _label(name, unit)
    if unit not in _PREFIXES and unit != "1" and name not in (unit, *_COUNTED):
        prefixed = f"{prefixed} {unit}".strip()
    is_whole = scale == 1.0 and all(float(value).is_integer() for value in values)
    decimals = 0 if is_whole else _decimals(largest / scale)
    if unit in ("bytes", "bits") and all(float(value).is_integer() for value in values):
        needed = (n for n in range(decimals) if all(v * 10**n % scale == 0 for v in values))
        decimals = next(needed, decimals)
    return Column(name, label, prefixed, scale, decimals)


def columns(report: CostReport) -> list[Column]:
    """Return every quantity of a report but the MACs, the most wanted first.

    What adds up to another quantity is written in that one's unit.
    """
    names = [name for name in report.units if name not in _UNWANTED]
    wanted = [name for name in FIRST if name in names]
    found = {name: column(name, report.units[name], _values(report, name)) for name in names}
    for whole in names:
        parts = part_names(report, whole)
        if parts:
            together = [value for name in (whole, *parts) for value in _values(report, name)]
            found[whole] = column(whole, report.units[whole], together)
        for part in parts:
            found[part] = replace(found[whole], name=part, label=_label(part, report.units[part]))
    return [found[name] for name in (*wanted, *(name for name in names if name not in wanted))]


def shares(report: CostReport, name: str) -> list[float] | None:
    """Return the part of a network's cost that each layer has; `None` if they do not add up.

    Args:
        report: The costs.
        name: A quantity; peaks and whole networks' quantities do not add up.
    """
    if name not in report.total or not all(name in layer.costs for layer in report.layers):
        return None
    total = report.total[name]
    values = [layer.costs[name] for layer in report.layers]
    if not total > 0 or abs(sum(values) - total) > 1e-6 * total:
        return None
    return [value / total for value in values]


def dearest(report: CostReport) -> list[tuple[Column, list[float]]]:
    """Return the one or two quantities to look at first, each with its layers' shares.

    Time first, then energy, then size: those of them that add up over the layers. Of a model
    with none of them, the first quantity that adds up.
    """
    by_name = {entry.name: entry for entry in columns(report)}
    parts = {name: found for name in by_name if (found := shares(report, name)) is not None}
    chosen = [next((n for n in group if n in parts), None) for group in _LOOKED_AT]
    names = [name for name in chosen if name is not None] or list(parts)[:1]
    return [(by_name[name], parts[name]) for name in names[:2]]


def part_names(report: CostReport, name: str) -> list[str]:
    """Return the quantities whose sum `name` is in every layer; none where there are none."""
    if not is_of_every_layer(report, name):
        return []
    others = [
        other
        for other, unit in report.units.items()
        if other != name and unit == report.units[name] and is_of_every_layer(report, other)
    ]
    if not 2 <= len(others) <= MAX_PARTS:
        return []
    for layer in report.layers:
        total = layer.costs[name]
        if abs(sum(layer.costs[other] for other in others) - total) > 1e-9 * total:
            return []
    return others


def is_of_every_layer(report: CostReport, name: str) -> bool:
    """Return whether each layer has a cost of its own of this name."""
    return bool(report.layers) and all(name in layer.costs for layer in report.layers)


def unit_of(metric: str) -> str:
    """Return the unit a metric of `bitscout.core.Metrics` ends with; a count has none.

    Example:
        >>> [unit_of(name) for name in ("size_bytes", "energy_mj", "macs")]
        ['bytes', 'mJ', '1']
    """
    suffixes = {"bytes": "bytes", "ms": "ms", "mj": "mJ"}
    return suffixes.get(metric.rsplit("_", 1)[-1], "1")


def _values(report: CostReport, name: str) -> list[float]:
    of_layers = [layer.costs[name] for layer in report.layers if name in layer.costs]
    return [*([report.total[name]] if name in report.total else []), *of_layers]


def _label(name: str, unit: str) -> str:
    """Return ``peak memory`` for ``peak_memory_bytes`` in bytes."""
    words = name.split("_")
    if len(words) > 1 and words[-1].lower() == unit.lower():
        words = words[:-1]
    return _COUNTED.get(name, " ".join(words))


def _decimals(value: float, digits: int = _SIGNIFICANT_DIGITS) -> int:
    if value <= 0:
        return 0
    before = floor(log10(value)) + 1
    # 9.99996 is written with five digits as 10.000.
    if round(value, digits - before) >= 10.0**before:
        before += 1
    return max(0, digits - before)
