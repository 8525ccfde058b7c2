# SPDX-License-Identifier: Apache-2.0
"""Following a recording, call by call, to an integer graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from torch import Tensor

from bitscout.errors import UnsupportedError
from bitscout.export.assemble import Assembler
from bitscout.export.expressions import (
    Clamped,
    Expr,
    Flat,
    Image,
    Joined,
    MaxPooled,
    Padded,
    Term,
    Total,
    Widened,
)
from bitscout.export.functions import HANDLERS
from bitscout.export.graph import IntegerGraph
from bitscout.export.layers import Read, lower_module
from bitscout.export.outputs import finish
from bitscout.export.pools import Averaged
from bitscout.export.recording import Call, Recording, Value
from bitscout.quantization import QuantizedLayer, QuantModule

__all__ = ["Follower"]

Shape = tuple[int, ...]

_EXPRS = (Image, Total, Clamped, MaxPooled, Joined, Flat, Padded, Widened)
_ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}
_QUOTIENTS = {"div", "div_", "__truediv__", "__itruediv__", "true_divide"}
_ADVICE = (
    "Use Conv2d, Linear, BatchNorm directly behind them, ReLU, ReLU6, addition, concatenation of "
    "channels, max, average and adaptive pools, flatten, dropout and identity."
)


class Follower:
    """Turns a recording into a graph; use one for one recording.

    Attributes:
        reads: The tensors every quantized module reads, by its path, complete after `run`.
    """

    def __init__(self, recording: Recording) -> None:
        self.reads: dict[str, tuple[Read, ...]] = {}
        self._recording = recording
        self._graph = Assembler()
        self._exprs: dict[int, Expr] = {}
        self._ran: set[str] = set()

    def run(self) -> IntegerGraph:
        """Return the graph.

        Raises:
            UnsupportedError: Naming a call that has no exact integer form.
        """
        image = self._recording.input
        self._exprs[image.index] = Image(image.shape)
        for call in self._recording.calls:
            try:
                expr = self._lower(call)
            except UnsupportedError as error:
                msg = f"Cannot lower {call.describe()}: {error}"
                raise UnsupportedError(msg) from error
            self._exprs[call.result.index] = expr
        output = self._recording.output
        if not isinstance(output, Value):
            msg = (
                f"The network returns {_described(output)}; expected one tensor made of its "
                "input. Wrap it in a module that returns the one to export."
            )
            raise UnsupportedError(msg)
        try:
            return finish(self._graph, self._exprs[output.index])
        except UnsupportedError as error:
            msg = f"Cannot lower the output of the network: {error}"
            raise UnsupportedError(msg) from error

    def _lower(self, call: Call) -> Expr:
        if not isinstance(call.result, Value):
            _refuse(f"it gives several tensors, and those have no integer form. {_ADVICE}")
        if not call.function:
            return self._lower_module(call)
        args = self._replaced(call.args)
        kwargs = {key: self._replaced(item) for key, item in call.kwargs.items()}
        handler = self._own_handlers(call) or HANDLERS.get(call.function)
        if handler is None:
            _refuse(f"it has no integer form. {_ADVICE}")
        try:
            expr = handler(_settled(call.result.shape), *args, **kwargs)
        except TypeError as error:
            _refuse(f"it is called in a way not known here ({error}).")
        if isinstance(expr, Averaged):
            return self._average(expr, self._name(call))
        return expr

    def _own_handlers(self, call: Call) -> Callable[..., Expr] | None:
        """Return what lowers a function that needs the graph to be built."""
        if call.function in _ADDITIONS:
            return partial(self._add, call)
        if call.function in _PRODUCTS:
            return partial(self._multiply, call, 1)
        return partial(self._multiply, call, -1) if call.function in _QUOTIENTS else None

    def _lower_module(self, call: Call) -> Expr:
        sources = [self._replaced(arg) for arg in call.args]
        assert isinstance(call.module, QuantModule)
        if call.kwargs or not all(isinstance(source, _EXPRS) for source in sources):
            _refuse("it reads something that the network did not compute from its input.")
        expr, reads = lower_module(self._graph, call.module, sources, call.result.shape)
        self._keep_reads(call, reads)
        if isinstance(expr, Averaged):
            return self._average(expr, call.module.name or "pool")
        return expr

    def _keep_reads(self, call: Call, reads: tuple[Read, ...]) -> None:
        if call.path not in self._ran:
            self.reads[call.path] = reads
        elif isinstance(call.module, QuantizedLayer):
            _refuse(
                "it runs several times in one forward pass, and a file would hold its weights "
                "as often. Give every use a layer of its own."
            )
        else:
            self.reads.pop(call.path, None)  # Which of its uses reads what is not kept.
        self._ran.add(call.path)

    def _replaced(self, structure: object) -> Any:  # noqa: ANN401  # as the arguments
        """Return arguments with expressions for values; other tensors are refused."""
        if isinstance(structure, Value):
            return self._exprs[structure.index]
        if isinstance(structure, tuple):
            return tuple(self._replaced(item) for item in structure)
        if isinstance(structure, Tensor):
            _refuse(
                "it takes a tensor that does not come from the input, and constants have no "
                "integer form here. Put it into the bias of a layer."
            )
        return structure

    def _add(
        self, call: Call, shape: Shape, input: object, other: object, alpha: float = 1
    ) -> Expr:
        if isinstance(input, _EXPRS) and isinstance(other, int | float) and other == 0:
            return input  # `sum([a, b])` begins so.
        if not isinstance(input, _EXPRS) or not isinstance(other, _EXPRS) or alpha != 1:
            _refuse(
                "it adds a number, or a multiple of a tensor. Add two results of the network; a "
                "constant belongs in the bias of a layer."
            )
        if input.shape != other.shape:
            _refuse(f"it adds shapes {input.shape} and {other.shape}. Make them equal.")
        name = self._name(call)
        terms = self._graph.total(input, name).terms + self._graph.total(other, name).terms
        return Total(shape, terms)

    def _multiply(
        self, call: Call, power: int, shape: Shape, input: object, other: object
    ) -> Expr:
        """Return the product with a number, or (for a power of -1) the quotient."""
        factor, expr = (input, other) if isinstance(other, _EXPRS) else (other, input)
        is_number = isinstance(factor, int | float) and isinstance(expr, _EXPRS)
        if not is_number or (power < 0 and expr is other):
            _refuse(f"it has no integer form. {_ADVICE}")
        assert isinstance(factor, int | float)
        assert isinstance(expr, _EXPRS)
        if not 0 < factor < math.inf or math.frexp(factor)[0] != 0.5:
            _refuse(
                f"it scales by {factor:g}, and only by powers of two are products exact. Put the "
                "factor into the weights of a layer."
            )
        total = self._graph.total(expr, self._name(call))
        terms = (replace(term, scale=term.scale * factor**power) for term in total.terms)
        return Total(shape, tuple(terms))

    def _average(self, average: Averaged, name: str) -> Total:
        terms = []
        for term in self._graph.total(average.source, name).terms:
            if term.divisor.ndim:
                _refuse(
                    "it averages averages of windows that differ in size. Use an AvgPool2d or "
                    "AdaptiveAvgPool2d module, which quantizes what it reads."
                )
            tensor = self._graph.sum_pool(term, _map(average.shape), average.windows, name)
            terms.append(Term(tensor, term.scale, term.divisor * average.divisor))
        total = Total(_map(average.shape), tuple(terms))
        if len(average.shape) == 3:
            return total
        return self._graph.total(Flat(average.shape, total), name)

    def _name(self, call: Call) -> str:
        """Return a name for what a function makes: the module's path, and the function."""
        is_leaf = next(call.module.children(), None) is None
        name = call.function.strip("_")
        return call.path if is_leaf and call.path else f"{call.path}.{name}".lstrip(".")


def _settled(shape: Shape) -> Shape:
    """Return a shape without the last of its dimensions if that is one entry of a vector."""
    return shape[:1] if len(shape) == 2 and shape[1] == 1 else shape


def _refuse(problem: str) -> NoReturn:
    """Raise; `Follower.run` adds what was called, and where."""
    raise UnsupportedError(problem)


def _described(output: object) -> str:
    if isinstance(output, tuple):
        return f"{len(output)} values"
    return (
        "a tensor that does not depend on its input"
        if isinstance(output, Tensor)
        else (f"a {type(output).__name__}")
    )


def _map(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a pool's result before its pixel dimensions are dropped."""
    return shape if len(shape) == 3 else (*shape, 1, 1)
