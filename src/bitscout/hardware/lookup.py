# SPDX-License-Identifier: Apache-2.0
"""Costs of every layer of a space at every pair of bit-widths, so that a candidate's are a sum.

Notation, used by every function in this module:

    row    position of a layer, without its name, among the table's different layers
    L      layers of a network; the last dimension of what is looked up, `*` is any shape before it
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitscout.core import LayerArrays, LayerGraph, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.layer_index import LayerIndex
from bitscout.hardware.model import HardwareModel, LayerModel
from bitscout.hardware.tabulate import bit_widths, describe_layers, evaluate

__all__ = ["BoundTable", "LookupTable"]

IntArray = NDArray[np.int64]
Costs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A layer model precomputed; immutable, `covering` returns a larger one.

    Attributes:
        model: What it was computed with.
        layers: Different layers, shape ``(n,)``.
        weight_bits: Tabulated bit-widths of weights, ascending.
        act_bits: Tabulated bit-widths of activations, ascending.
        costs: The model's quantities, shape ``(n, n_weight_bits, n_act_bits)``, integers where
            the model's are; 0 where `is_known` is False.
        is_known: Where the model has a rule; a layer may, say, fit the device at few bits only.

    Example:
        >>> from bitscout.core import Layer
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Bits(LayerModel):
        ...     quantities = {"weight_bits": "bit"}
        ...
        ...     def costs(self, layers, weight_bits, act_bits):
        ...         return {"weight_bits": layers.n_weights * weight_bits}
        >>> graph = LayerGraph((Layer("a", "linear", 10, 10), Layer("b", "linear", 10, 2)))
        >>> table = LookupTable.build(Bits(), LayerArrays.of(graph)).bind(graph)
        >>> table.policy_totals(QuantPolicy.uniform(["a", "b"], 4))
        {'weight_bits': 480}
        >>> table.totals([[4, 4], [2, 8]], [8, 8])
        {'weight_bits': array([480, 360])}
    """

    model: LayerModel
    layers: LayerArrays
    weight_bits: tuple[int, ...]
    act_bits: tuple[int, ...]
    costs: Costs
    is_known: NDArray[np.bool_]

    @classmethod
    def build(
        cls,
        model: HardwareModel,
        layers: LayerArrays,
        weight_bits: Iterable[int] | None = None,
        act_bits: Iterable[int] | None = None,
    ) -> LookupTable:
        """Return the table of `layers` at every pair of bits.

        Args:
            model: What computes the costs.
            layers: Any shape; equal ones are computed once.
            weight_bits: Bit-widths to tabulate; by default all that the model supports.
            act_bits: The same for activations.

        Raises:
            UnsupportedError: If the model's costs do not add up over layers, or it has no rule
                for a layer or for bits that are asked for.
        """
        table = cls.build_with_holes(model, layers, weight_bits, act_bits)
        if not table.is_known.all():
            names = describe_layers(table.layers)
            for weight, act in product(table.weight_bits, table.act_bits):
                model.check(names, table.layers, (weight, act))
        return table

    @classmethod
    def build_with_holes(
        cls,
        model: HardwareModel,
        layers: LayerArrays,
        weight_bits: Iterable[int] | None = None,
        act_bits: Iterable[int] | None = None,
    ) -> LookupTable:
        """Return `build`'s table, with holes where the model has no rule; see `has_rule`.

        For the layers a space may have: some may not fit the hardware, and the others do.

        Raises:
            UnsupportedError: If the model's costs do not add up over layers.
        """
        if not isinstance(model, LayerModel):
            msg = (
                f"Hardware {model.name!r} sees the whole network, so its costs are no sum over "
                "layers and no table can hold them. Ask it for a report of each network."
            )
            raise UnsupportedError(msg)
        widths = (
            bit_widths("weight_bits", model.weight_bits if weight_bits is None else weight_bits),
            bit_widths("act_bits", model.act_bits if act_bits is None else act_bits),
        )
        distinct, _ = layers.flat().unique()
        shape = (len(distinct), len(widths[0]), len(widths[1]))
        row, weight, act = (index.ravel() for index in np.indices(shape))
        every = distinct[row]
        pairs = (np.array(widths[0])[weight], np.array(widths[1])[act])
        costs, is_known = evaluate(model, every, *pairs)
        cubes = {name: values.reshape(shape) for name, values in costs.items()}
        return cls(model, distinct, *widths, cubes, is_known.reshape(shape))

    def covering(self, layers: LayerArrays, *, with_holes: bool = False) -> LookupTable:
        """Return a table that has `layers` too: this one if nothing is missing.

        Rows keep their numbers. Costs are computed for the missing layers only.

        Args:
            layers: Of any shape.
            with_holes: Leave a hole where there is no rule, as `build_with_holes`.

        Raises:
            UnsupportedError: If the model has no rule for a missing layer, without holes.
        """
        missing = self.missing(layers)
        if not len(missing):
            return self
        build = LookupTable.build_with_holes if with_holes else LookupTable.build
        more = build(self.model, missing, self.weight_bits, self.act_bits)
        return LookupTable(
            self.model,
            LayerArrays(np.concatenate([self.layers.table, more.layers.table])),
            self.weight_bits,
            self.act_bits,
            {name: np.concatenate([self.costs[name], more.costs[name]]) for name in self.costs},
            np.concatenate([self.is_known, more.is_known]),
        )

    def rows(
        self, layers: LayerArrays, present: ArrayLike | None = None, names: Sequence[str] = ()
    ) -> IntArray:
        """Return the row of each layer, shape ``(*, L)``; ``len(self.layers)`` where absent.

        Args:
            layers: Shape ``(*, L)``.
            present: Shape ``(*, L)``; False for what only fills the array. Default: all True.
            names: ``L`` names for the message.

        Raises:
            ConfigError: If a layer is not in the table.
        """
        is_present = None if present is None else np.broadcast_to(present, layers.shape)
        rows = self._index.find(layers, is_present)
        if rows.min(initial=0) < 0:
            absent = np.argwhere(rows < 0)
            first = tuple(absent[0])
            which = f"{names[first[-1]]!r}, a " if names else ""
            msg = (
                f"The table of hardware {self.model.name!r} lacks {len(absent)} of the layers, "
                f"the first is {which}{describe_layers(layers[first][None])[0]}. Build it for "
                "these layers, or extend it with `covering`."
            )
            raise ConfigError(msg)
        return rows

    def totals(
        self,
        layers: LayerArrays,
        weight_bits: ArrayLike,
        act_bits: ArrayLike,
        present: ArrayLike | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return what networks cost, each quantity with shape ``(*)``.

        The three arrays broadcast: one network at many bit-widths is `layers` of shape ``(L,)``
        and bits of shape ``(n, L)``; different networks are padded to the longest.

        Args:
            layers: Shape ``(*, L)``.
            weight_bits: Integers, shape ``(*, L)``; any value where a layer is absent.
            act_bits: Integers, shape ``(*, L)``.
            present: Shape of `layers`; False for what only fills the array. Default: all True.

        Raises:
            ConfigError: If a layer or its bits are not in the table.
            UnsupportedError: If the model has no rule for the bits.
        """
        return self._totals(self.rows(layers, present), weight_bits, act_bits)

    def has_rule(
        self,
        layers: LayerArrays,
        weight_bits: ArrayLike,
        act_bits: ArrayLike,
        present: ArrayLike | None = None,
    ) -> NDArray[np.bool_]:
        """Return whether the model has a rule for every layer of each network, shape ``(*)``.

        The arguments, and what is refused, are those of `totals`.
        """
        return np.asarray(self.n_without_rule(layers, weight_bits, act_bits, present) == 0)

    def n_without_rule(
        self,
        layers: LayerArrays,
        weight_bits: ArrayLike,
        act_bits: ArrayLike,
        present: ArrayLike | None = None,
    ) -> IntArray:
        """Return how many layers of each network the model has no rule for, shape ``(*)``.

        The arguments, and what is refused, are those of `totals`.
        """
        entry = self._entries(self.rows(layers, present), weight_bits, act_bits)
        if self._known is None:
            return np.zeros(entry.shape[:-1], dtype=np.int64)
        return np.asarray((~self._known[entry]).sum(axis=-1), dtype=np.int64)

    def bind(self, graph: LayerGraph) -> BoundTable:
        """Return the costs of one network at any bit-widths, its layers found once.

        Raises:
            ConfigError: If a layer is not in the table.
        """
        return BoundTable(self, graph.names, self.rows(LayerArrays.of(graph), names=graph.names))

    def missing(self, layers: LayerArrays) -> LayerArrays:
        """Return the different ones of `layers`, of any shape, that are not in the table."""
        distinct, _ = layers.flat().unique()
        return distinct[self._index.find(distinct) < 0]

    @cached_property
    def signature(self) -> str:
        """A digest of everything the costs depend on: model, layers, bits."""
        digest = hashlib.sha256(
            f"{self.model.signature}{self.weight_bits}{self.act_bits}".encode()
        )
        digest.update(np.ascontiguousarray(self.layers.table, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _index(self) -> LayerIndex:
        return LayerIndex(self.layers)

    @cached_property
    def _places(self) -> dict[str, IntArray]:
        """Position of each bit-width among the tabulated ones, -1 where it is not tabulated.

        The last entry is -1, and stands for everything that lies outside on either side.
        """
        places = {}
        for what, tabulated in (("weight", self.weight_bits), ("activation", self.act_bits)):
            places[what] = np.full(tabulated[-1] + 2, -1, dtype=np.int64)
            places[what][list(tabulated)] = np.arange(len(tabulated))
        return places

    @cached_property
    def _known(self) -> NDArray[np.bool_] | None:
        """`is_known` in the order of `_blocks`, `None` where it is True everywhere."""
        if self.is_known.all():
            return None
        pad = np.ones(len(self.weight_bits) * len(self.act_bits), dtype=np.bool_)
        return np.concatenate([self.is_known.ravel(), pad])

    @cached_property
    def _blocks(self) -> tuple[tuple[tuple[str, ...], NDArray[Any]], ...]:
        """Costs by ``(row * n_weight_bits + weight) * n_act_bits + act``, one block for each type.

        A block has shape ``(n_entries, n_quantities)``, so that a layer's costs lie together; its
        last entries are zeros, for layers that are absent.
        """
        blocks = []
        for dtype in dict.fromkeys(cube.dtype for cube in self.costs.values()):
            names = tuple(name for name, cube in self.costs.items() if cube.dtype == dtype)
            block = np.stack([self.costs[name].ravel() for name in names], axis=-1)
            pad = np.zeros((len(self.weight_bits) * len(self.act_bits), len(names)), dtype)
            blocks.append((names, np.concatenate([block, pad])))
        return tuple(blocks)

    def _totals(
        self, rows: IntArray, weight_bits: ArrayLike, act_bits: ArrayLike
    ) -> dict[str, NDArray[Any]]:
        """Return totals of layers that were located by `rows`."""
        entry = self._entries(rows, weight_bits, act_bits)
        if self._known is not None and not (is_known := self._known[entry]).all():
            self._refuse_unknown(int(entry[~is_known][0]))
        found = [(names, block.take(entry, axis=0)) for names, block in self._blocks]
        if type(self.model).totals is LayerModel.totals:  # Sums: all quantities at once.
            sums = [(names, costs.sum(axis=-2)) for names, costs in found]
            each = {n: costs[..., i] for names, costs in sums for i, n in enumerate(names)}
            return {name: np.asarray(each[name]) for name in self.costs}
        each = {n: costs[..., i] for names, costs in found for i, n in enumerate(names)}
        totals = self.model.totals({name: each[name] for name in self.costs})
        return {name: np.asarray(total) for name, total in totals.items()}

    def _entries(self, rows: IntArray, weight_bits: ArrayLike, act_bits: ArrayLike) -> IntArray:
        """Return the place of each layer's costs in `_blocks`."""
        weight = self._positions("weight", rows, weight_bits)
        act = self._positions("activation", rows, act_bits)
        return (rows * len(self.weight_bits) + weight) * len(self.act_bits) + act

    def _positions(self, what: str, rows: IntArray, given: ArrayLike) -> IntArray:
        """Return where each of the bits is tabulated; 0 for absent layers."""
        bits = np.asarray(given)
        if bits.dtype.kind not in "iu":
            msg = f"Bit-widths must be integers, got {bits.dtype} for {what} bits."
            raise ConfigError(msg)
        places = self._places[what]
        inside = np.minimum(np.maximum(bits.astype(np.int64, copy=False), -1), len(places) - 1)
        found: IntArray = places[inside]
        if found.min(initial=0) >= 0:
            return found
        is_wrong = (found < 0) & (rows < len(self.layers))
        if is_wrong.any():
            first = tuple(np.argwhere(is_wrong)[0])
            row = np.broadcast_to(rows, is_wrong.shape)[first]
            self._refuse_bits(what, int(np.broadcast_to(bits, is_wrong.shape)[first]), row)
        return np.where(found < 0, 0, found)

    def _refuse_bits(self, what: str, bits: int, row: int) -> None:
        layer = self.layers[row : row + 1]
        pair = (bits, self.act_bits[0]) if what == "weight" else (self.weight_bits[0], bits)
        self.model.check(describe_layers(layer), layer, pair)
        tabulated = self.weight_bits if what == "weight" else self.act_bits
        msg = (
            f"The table of hardware {self.model.name!r} has {what} bits "
            f"{', '.join(map(str, tabulated))}, got {bits}. Build it for these bits."
        )
        raise ConfigError(msg)

    def _refuse_unknown(self, entry: int) -> None:
        """Let the model say why it has no rule for an entry."""
        row, weight, act = np.unravel_index(entry, self.is_known.shape)
        layer = self.layers[row : row + 1]
        bits = (np.array([self.weight_bits[weight]]), np.array([self.act_bits[act]]))
        self.model.check(describe_layers(layer), layer, bits)
        self.model.checked_costs(layer, *bits)


@dataclass(frozen=True, eq=False)
class BoundTable:
    """A table for the layers of one network.

    Attributes:
        table: The table.
        names: Names of the layers, ``L``.
        rows: Row of each layer in the table, shape ``(L,)``.
    """

    table: LookupTable
    names: tuple[str, ...]
    rows: IntArray

    @property
    def costs(self) -> dict[str, NDArray[Any]]:
        """Each quantity of each layer, shape ``(L, n_weight_bits, n_act_bits)``."""
        return {name: values[self.rows] for name, values in self.table.costs.items()}

    def totals(self, weight_bits: ArrayLike, act_bits: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return what the network costs at many bit-widths, each quantity with shape ``(*)``.

        Args:
            weight_bits: Integers, shape ``(*, L)``.
            act_bits: Integers, shape ``(*, L)``.

        Raises:
            ConfigError: If bits are not in the table.
            UnsupportedError: If the model has no rule for them.
        """
        return self.table._totals(self.rows, weight_bits, act_bits)

    def policy_totals(self, policy: QuantPolicy) -> dict[str, float]:
        """Return what the network costs at the bit-widths of `policy`.

        Raises:
            PolicyError: If the policy does not name exactly the layers of the network.
            ConfigError: If bits are not in the table.
            UnsupportedError: If the model has no rule for them.
        """
        policy.check_covers(self.names)
        bits = [policy[name] for name in self.names]
        weight_bits = np.array([pair.weight_bits for pair in bits], dtype=np.int64)
        act_bits = np.array([pair.act_bits for pair in bits], dtype=np.int64)
        return {name: total.item() for name, total in self.totals(weight_bits, act_bits).items()}
