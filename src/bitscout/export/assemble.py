# SPDX-License-Identifier: Apache-2.0
"""Turning expressions into the operations of an integer graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitscout.errors import UnsupportedError
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
    clamped_grid,
    not_quantized,
)
from bitscout.export.fixed_point import fixed_point
from bitscout.export.graph import (
    Concat,
    Flatten,
    Grid,
    Input,
    IntegerGraph,
    MaxPool,
    Op,
    PadChannels,
    Relu,
    Rescale,
    SumPool,
)
from bitscout.export.windows import Windows

__all__ = ["Assembler"]

_GridKey = tuple[int, float, int, int, int]


class Assembler:
    """Collects operations; a tensor that two readers want on one grid is made once."""

    def __init__(self) -> None:
        self._ops: dict[str, Op] = {}
        self._codes: dict[_GridKey, str] = {}
        self._totals: dict[int, Total] = {}
        # An id names an expression only as long as it lives.
        self._alive: list[Expr] = []

    def add(self, op: Op) -> str:
        """Add an operation; return its name."""
        assert op.name not in self._ops, op.name
        self._ops[op.name] = op
        return op.name

    def __getitem__(self, name: str) -> Op:
        """Return the operation called `name`."""
        return self._ops[name]

    def free_name(self, name: str) -> str:
        """Return `name`, or ``name_2``, ``name_3`` ... where that is taken."""
        free, count = name, 1
        while free in self._ops:
            count += 1
            free = f"{name}_{count}"
        return free

    def quantize(self, expr: Expr, grid: Grid, name: str) -> str:
        """Return the tensor of the codes of `expr` on `grid`.

        Args:
            expr: Any expression.
            grid: Of codes.
            name: For the operation, if it is new.

        Raises:
            UnsupportedError: If the expression cannot be had on this grid exactly.
        """
        key = (id(expr), float(grid.scale), grid.bit_width, grid.quant_min, grid.quant_max)
        if key not in self._codes:
            self._alive.append(expr)
            self._codes[key] = self._quantize(expr, grid, name)
        return self._codes[key]

    def _quantize(self, expr: Expr, grid: Grid, name: str) -> str:
        match expr:
            case Image():
                return self.add(Input(self.free_name(name), expr.shape, grid))
            case Total():
                return self.rescale(expr, grid, name)
            case Clamped():
                narrow = clamped_grid(grid, expr.low, expr.high)
                return self.quantize(expr.source, narrow, name)
            case MaxPooled():
                source = self.quantize(expr.source, grid, f"{name}.unpooled")
                return self._max_pool(source, expr, name)
            case Joined():
                parts = [
                    self._quantize_part(part, grid, f"{name}.{index}")
                    for index, part in enumerate(expr.parts)
                ]
                return self.add(Concat(self.free_name(name), tuple(parts), expr.shape, grid))
            case Flat():
                source = self.quantize(expr.source, grid, f"{name}.map")
                return self._flatten(source, expr, name)
            case Widened():
                source = self.quantize(expr.source, grid, f"{name}.narrow")
                used = self[source].grid
                return self.add(
                    PadChannels(self.free_name(name), (source,), expr.shape, used, expr.before)
                )
            case Padded():
                msg = (
                    "it reads zeros padded around a tensor (ZeroPad2d or `pad`), which only a "
                    "convolution can take over. Use the padding of the pool or layer itself."
                )
                raise UnsupportedError(msg)

    def _quantize_part(self, part: Expr, grid: Grid, name: str) -> str:
        """Return the codes of one part of a concatenation: all parts keep the whole range."""
        if isinstance(part, MaxPooled):
            return self._max_pool(self._quantize_part(part.source, grid, name), part, name)
        if isinstance(part, Flat):
            return self._flatten(self._quantize_part(part.source, grid, name), part, name)
        if not isinstance(part, Clamped):
            return self.quantize(part, grid, name)
        narrow = clamped_grid(grid, part.low, part.high)
        if (narrow.quant_min, narrow.quant_max) == (grid.quant_min, grid.quant_max):
            return self._quantize_part(part.source, grid, name)
        if narrow.quant_max == grid.quant_max and narrow.quant_min == grid.zero_point:
            source = self._quantize_part(part.source, grid, f"{name}.signed")
            return self.add(Relu(self.free_name(name), (source,), part.shape, grid))
        # The same codes, under the grid that all parts share: the factor is 1.
        source = self.quantize(part.source, narrow, f"{name}.clamped")
        return self.rescale(Total(part.shape, (Term(source, grid.scale),)), grid, name)

    def rescale(self, total: Total, grid: Grid, name: str) -> str:
        """Return the tensor of a sum of terms, rounded once to `grid`."""
        terms = total.terms
        if len(terms) > 1 and any(term.divisor.ndim for term in terms):
            msg = (
                "it reads a sum with an average in it whose windows differ in size. Use "
                "bitscout.quantization.Add for the sum, which quantizes what it adds."
            )
            raise UnsupportedError(msg)
        # One division for all operands, so that exact factors stay exact.
        divisor = np.asarray(np.lcm.reduce([term.divisor for term in terms]))
        scales = [term.scale * (divisor // term.divisor).max() for term in terms]
        ratios = np.stack(np.broadcast_arrays(*[np.atleast_1d(s / grid.scale) for s in scales]))
        multiplier, shift = fixed_point(ratios, int(divisor.max()))
        inputs = tuple(term.tensor for term in terms)
        return self.add(
            Rescale(self.free_name(name), inputs, total.shape, grid, multiplier, shift, divisor)
        )

    def _flatten(self, source: str, expr: Flat, name: str) -> str:
        return self.add(Flatten(self.free_name(name), (source,), expr.shape, self[source].grid))

    def _max_pool(self, source: str, expr: MaxPooled, name: str) -> str:
        used = self[source].grid
        return self.add(MaxPool(self.free_name(name), (source,), expr.shape, used, expr.windows))

    def total(self, expr: Expr, name: str) -> Total:
        """Return `expr` as a sum of integer tensors without rounding anything.

        Raises:
            UnsupportedError: If that is not possible: the network's input itself, a ReLU6, or the
                ReLU of a sum of two tensors, before anything has quantized them.
        """
        key = id(expr)
        if key not in self._totals:
            self._alive.append(expr)
            self._totals[key] = self._total(expr, name)
        return self._totals[key]

    def _total(self, expr: Expr, name: str) -> Total:
        match expr:
            case Total():
                return expr
            case Flat():
                terms = self.total(expr.source, name).terms
                return Total(expr.shape, tuple(self._flat_term(t, expr, name) for t in terms))
            case MaxPooled():
                term = self._single_term(expr.source, name)
                if term.divisor.ndim:
                    raise not_quantized(expr)
                tensor = self._max_pool(term.tensor, expr, f"{name}.max")
                return Total(expr.shape, (replace(term, tensor=tensor),))
            case Clamped() if expr.low == 0 and expr.high == np.inf:
                term = self._single_term(expr.source, name)
                grid = self[term.tensor].grid
                tensor = self.add(
                    Relu(self.free_name(f"{name}.relu"), (term.tensor,), expr.shape, grid)
                )
                return Total(expr.shape, (replace(term, tensor=tensor),))
            case Joined():
                return self._joined(expr, name)
            case _:
                raise not_quantized(expr)

    def _single_term(self, expr: Expr, name: str) -> Term:
        total = self.total(expr, name)
        if len(total.terms) > 1:
            raise not_quantized(expr)
        return total.terms[0]

    def _flat_term(self, term: Term, expr: Flat, name: str) -> Term:
        source = self[term.tensor]
        pixels = int(np.prod(source.shape[1:]))
        scale, grid = term.scale, source.grid
        if scale.ndim:
            scale = np.repeat(scale, pixels)
        if grid.scale.ndim:
            grid = Grid.sums(np.repeat(grid.scale, pixels))
        if term.divisor.ndim:
            scale = scale / np.tile(term.divisor.ravel(), source.shape[0])
        tensor = self.add(
            Flatten(self.free_name(f"{name}.flat"), (term.tensor,), expr.shape, grid)
        )
        divisor = np.array(1, dtype=np.int64) if term.divisor.ndim else term.divisor
        return Term(tensor, scale, divisor)

    def _joined(self, expr: Joined, name: str) -> Total:
        terms = [self._single_term(part, name) for part in expr.parts]
        sources = [self[term.tensor] for term in terms]
        if any(term.divisor.ndim for term in terms) or not all(s.grid.is_sums for s in sources):
            raise not_quantized(expr)
        scale = np.concatenate(
            [
                np.broadcast_to(term.scale / term.divisor, source.shape[:1])
                for term, source in zip(terms, sources, strict=True)
            ]
        )
        inputs = tuple(term.tensor for term in terms)
        tensor = self.add(
            Concat(self.free_name(f"{name}.concat"), inputs, expr.shape, Grid.sums(scale))
        )
        return Total(expr.shape, (Term(tensor, scale),))

    def sum_pool(self, term: Term, shape: tuple[int, ...], windows: Windows, name: str) -> str:
        """Add the sums over windows of a term's tensor; return the name."""
        grid = Grid.sums(self[term.tensor].grid.scale)
        return self.add(SumPool(self.free_name(name), (term.tensor,), shape, grid, windows))

    def ending_in(self, output: str) -> IntegerGraph:
        """Return the graph of what the tensor `output` depends on."""
        needed = {output}
        for op in reversed(self._ops.values()):
            if op.name in needed:
                needed.update(op.inputs)
        return IntegerGraph(tuple(op for op in self._ops.values() if op.name in needed), output)
