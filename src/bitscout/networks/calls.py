# SPDX-License-Identifier: Apache-2.0
"""What one forward pass did, call by call.

A *value* is what a tensor holds between two writes: a tensor that is changed in place is another
value from then on. Parameters, buffers and constants are values too, and so is what a ``forward``
computes from them (a weight multiplied by a mask); `Value.origin` tells them from results of the
input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

__all__ = [
    "CHANGED_THROUGH_VIEW",
    "Call",
    "CallRecord",
    "Origin",
    "Value",
    "short_line",
    "values_in",
]

Origin = Literal["input", "weights", "constant"]

CHANGED_THROUGH_VIEW = "changed_through_view"
"""Function of a call that nobody wrote: a tensor changed because a view of it was changed."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor between two writes.

    Attributes:
        index: Its number, in the order in which values came up.
        shape: Its whole shape, the batch included.
        origin: ``"input"`` if it depends on the input; else ``"weights"`` if it depends on
            parameters or buffers; else ``"constant"``.
        name: Of the parameter or buffer it is, ``layer1.0.conv1.weight``; else ``""``. A tensor
            with several names has the first of them.
        is_parameter: Whether it is a parameter.
    """

    index: int
    shape: tuple[int, ...]
    origin: Origin
    name: str = ""
    is_parameter: bool = False

    @property
    def is_result(self) -> bool:
        """Whether it depends on the input of the network."""
        return self.origin == "input"


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a PyTorch function.

    A call that only returns a tensor it was given, unchanged (dropout in evaluation mode,
    ``contiguous``), is not recorded: its result is its operand.

    Attributes:
        index: Its number in the record.
        function: Its name, one for every way to write it: ``add`` for ``a + b``, ``a += b``,
            ``torch.add`` and ``a.add_(b)``; ``getitem``, ``setitem``; ``.T`` for an attribute.
            Operators with the operands exchanged are ``rsub``, ``rdiv``, ``rmatmul``, ``rpow``.
        args: Positional arguments, each tensor replaced by its `Value`.
        kwargs: Named arguments, likewise.
        result: What was returned, likewise; the new value of the operand where a function changes
            that and returns nothing (``setitem``).
        path: Of the innermost module that was running; ``""`` for the network itself.
        module: That module.
        line: ``file:line`` of the innermost frame outside of PyTorch and this package, ``""`` if
            there is none (a network of nothing but PyTorch's modules).
        is_in_place: Whether it changed an operand.
    """

    index: int
    function: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    path: str
    module: nn.Module
    line: str
    is_in_place: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        """Every value among its arguments, in order."""
        return tuple(values_in((self.args, self.kwargs)))

    @property
    def writes(self) -> tuple[Value, ...]:
        """Every value it made, in order."""
        return tuple(values_in(self.result))

    @property
    def results_read(self) -> tuple[Value, ...]:
        """The values among its arguments that depend on the input."""
        return tuple(value for value in self.reads if value.is_result)

    @property
    def is_result(self) -> bool:
        """Whether what it made depends on the input."""
        return any(value.is_result for value in self.writes)

    def argument(self, position: int, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return the argument at `position` or called `name`, whichever was given."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def where(self) -> str:
        """Module and line, for messages: ``Block 'layer1.0' (net.py:12)``."""
        named = (
            f"{type(self.module).__name__} {self.path!r}"
            if self.path
            else (f"the {type(self.module).__name__}")
        )
        return f"{named} ({short_line(self.line)})" if self.line else named


@dataclass(frozen=True, eq=False)
class CallRecord:
    """A forward pass.

    Attributes:
        module: The network.
        calls: In the order of execution; also those that compute with weights alone.
        input: The images; the first dimension is the batch.
        output: What the network returned, every tensor a `Value`.
        number_reads: ``file:line`` of every place where the forward made Python numbers or
            decisions of activations, ``""`` where there is no line: another image may take
            another path.
    """

    module: nn.Module
    calls: tuple[Call, ...]
    input: Value
    output: Any
    number_reads: tuple[str, ...] = ()

    @cached_property
    def _writers(self) -> dict[int, Call]:
        return {value.index: call for call in self.calls for value in call.writes}

    @cached_property
    def _readers(self) -> dict[int, tuple[Call, ...]]:
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for index in dict.fromkeys(value.index for value in call.reads):
                found.setdefault(index, []).append(call)
        return {index: tuple(calls) for index, calls in found.items()}

    def writer(self, value: Value) -> Call | None:
        """Return the call that made `value`; `None` for the input, weights and constants."""
        return self._writers.get(value.index)

    def readers(self, value: Value) -> tuple[Call, ...]:
        """Return the calls that read `value`, in order."""
        return self._readers.get(value.index, ())

    def weights_of(self, value: Value) -> tuple[Value, ...]:
        """Return the parameters and buffers that `value` is or was computed from, each once.

        Of a result of the input: nothing is followed through it, so only what is named.
        """
        found: dict[str, Value] = {}
        pending, seen = [value], set()
        while pending:
            current = pending.pop()
            if current.index in seen or current.is_result:
                continue
            seen.add(current.index)
            if current.name:
                found[current.name] = current
            writer = self.writer(current)
            if writer is not None:
                pending.extend(reversed(writer.reads))
        return tuple(found.values())


def values_in(structure: object) -> Iterator[Value]:
    """Yield every value in nested tuples, lists and mappings, in order."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from values_in(item)
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from values_in(item)


def short_line(line: str) -> str:
    """Return ``file:line`` relative to the working directory where it lies below it."""
    path, _, number = line.rpartition(":")
    here = Path.cwd()
    name = Path(path)
    return f"{name.relative_to(here) if name.is_relative_to(here) else name}:{number}"
