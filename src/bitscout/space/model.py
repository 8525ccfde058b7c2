# SPDX-License-Identifier: Apache-2.0
"""The space of a given network: bits of every layer, and widths of its channel groups.

The variables of k-means TPE [Azizi2023]_: a bit-width for each layer and a width multiplier for
each group of channels. The configurations the paper prints look tied (Table IV: bits in pairs,
widths constant per stage), which is `tie` and `width_tie` here; ResNet-20 then has 9 blocks, the
first and the last layer, and three stages: 14 choices.

References:
    .. [Azizi2023] S. Azizi, M. Nazemi, A. Fayyazi, M. Pedram. Sensitivity-Aware Mixed-Precision
       Quantization and Width Optimization of Deep Neural Networks Through Cluster-Based
       Tree-Structured Parzen Estimation. arXiv:2308.06422.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal, Protocol, final

import numpy as np
from numpy.typing import ArrayLike

from bitscout.core import (
    BIAS_BITS,
    LayerBits,
    LayerGraph,
    QuantPolicy,
    Values,
    canonical_json,
)
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.space.base import IndexArray, SearchSpace
from bitscout.space.choice import Choice
from bitscout.space.layer_table import LayerTable, LayerVariants
from bitscout.space.model_description import FIXED_BITS, ModelDescription
from bitscout.space.model_explain import ModelTies, explain_model
from bitscout.space.model_ties import bit_labels, width_labels
from bitscout.space.model_variants import enumerate_variants, layers_at
from bitscout.space.summary import LayerSummary, SpaceSummary

__all__ = ["ModelArchitecture", "ModelSpace", "NetworkBuilder", "Tie", "WidthTie"]

Tie = Literal["layer", "block", "stage"]
WidthTie = Literal["group", "stage"]

MIN_BITS, MAX_BITS = 2, 8


class NetworkBuilder(Protocol):
    """Makes the given network at other widths; what it makes is nothing to a space."""

    def build(self, widths: Sequence[int]) -> object:
        """Return the network with `widths`, one for each channel group."""
        ...


@dataclass(frozen=True)
class ModelArchitecture:
    """A given network at other widths, without its bits.

    Attributes:
        description: The network as given.
        widths: Channels of every group of the description.
        builder: What builds it; `None` where only its costs matter.
    """

    description: ModelDescription
    widths: tuple[int, ...]
    builder: NetworkBuilder | None = field(default=None, compare=False, repr=False)

    @property
    def is_narrower(self) -> bool:
        """Whether any width is less than the given network's."""
        given = self.description.widths
        return any(width < before for width, before in zip(self.widths, given, strict=True))

    @cached_property
    def key(self) -> str:
        """Name of the network and the widths that differ from the given ones."""
        groups = self.description.groups
        changed = {
            group.name: width
            for group, width in zip(groups, self.widths, strict=True)
            if width != group.channels
        }
        return canonical_json({"model": self.description.name, "widths": changed})

    @cached_property
    def _layers(self) -> LayerGraph:
        return self.description.at(self.widths)

    def layers(self) -> LayerGraph:
        """Return every layer and node, computed without building the network."""
        return self._layers


@final
@dataclass(frozen=True)
class ModelSpace(SearchSpace):
    """Bits and widths of a given network.

    Layers that cannot be quantized are in `unsupported`; a space with such layers can be
    explained, but has no policies: nothing is skipped silently.

    Attributes:
        description: The network.
        bits: Weight bits to choose from, increasing, in ``[2, 8]``.
        act_bits: Bits of each layer's input: ``"same"`` as its weights (as the paper), one number
            for all, or a list, which makes them choices of their own.
        widths: Width multipliers > 0, increasing.
        tie: Which layers share their bits: those of a residual ``"block"``, of a ``"stage"``, or
            none (``"layer"``). The first and the last layer always have their own.
        width_tie: Which channel groups share their multiplier: those of a ``"stage"`` or none.
        edge_bits: Bits of the first and the last layer; empty for the two largest of `bits`.
        subsets: Bits left to choose from by label of a tie (see `bit_layers`), as Hessian pruning
            leaves them; labels that are not named keep all.
        builder: What builds the networks; `None` where only their costs matter.

    Raises:
        ConfigError: If a list is empty, out of order or out of range, or nothing is left to
            choose.
    """

    description: ModelDescription
    bits: tuple[int, ...] = (2, 3, 4, 6, 8)
    act_bits: Literal["same"] | int | tuple[int, ...] = "same"
    widths: tuple[float, ...] = (0.75, 0.875, 1.0, 1.125, 1.25)
    tie: Tie = "block"
    width_tie: WidthTie = "stage"
    edge_bits: tuple[int, ...] = ()
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    builder: NetworkBuilder | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Reject lists that are no choice, and a space without one."""
        _check_bits("bits", self.bits)
        _check_bits("edge_bits", self.edge_bits, may_be_empty=True)
        for label, bits in self.subsets.items():
            _check_bits(f"subsets[{label!r}]", bits)
        if isinstance(self.act_bits, tuple):
            _check_bits("act_bits", self.act_bits)
        elif self.act_bits != "same":
            _check_bits("act_bits", (self.act_bits,))
        if not self.widths or min(self.widths) <= 0 or list(self.widths) != sorted(self.widths):
            msg = f"`widths` must be multipliers > 0 in increasing order, got {self.widths}."
            raise ConfigError(msg)
        if all(given.state == "fixed" for given in self.description.layers):
            msg = (
                f"{self.description.name} has no convolution and no linear layer: there is "
                "nothing to search. Give a network with weights."
            )
            raise ConfigError(msg)
        unknown = sorted(set(self.subsets) - set(self.bit_layers))
        if unknown:
            msg = f"`subsets` names {unknown[0]!r}; known: {', '.join(self.bit_layers)}."
            raise ConfigError(msg)
        if not self.choices and not self.unsupported:
            msg = (
                f"Every layer of {self.description.name} has one bit-width and one width: nothing "
                "is left to search. Give `bits` or `widths` two values."
            )
            raise ConfigError(msg)

    # --- what is chosen

    @cached_property
    def unsupported(self) -> dict[str, str]:
        """Layers that cannot be quantized, and why."""
        given = self.description.layers
        return {g.layer.name: g.reason for g in given if g.state == "unsupported"}

    def check_supported(self) -> None:
        """Check that every layer can be quantized.

        Raises:
            UnsupportedError: Naming the layers and what to do.
        """
        if self.unsupported:
            name, reason = next(iter(self.unsupported.items()))
            more = len(self.unsupported) - 1
            others = f" {more} more: `bitscout explain` lists them." if more else ""
            msg = (
                f"{self.description.name} cannot be quantized as a whole. Layer {name!r}: "
                f"{reason}{others}"
            )
            raise UnsupportedError(msg)

    @cached_property
    def bit_layers(self) -> dict[str, tuple[str, ...]]:
        """Layers that share a bit-width, by the label of their tie, in execution order."""
        return bit_labels(self.description, self.tie)

    @cached_property
    def width_groups(self) -> dict[str, tuple[int, ...]]:
        """Channel groups that share a multiplier, by the label of their tie."""
        return width_labels(self.description, self.width_tie)

    @cached_property
    def _edges(self) -> tuple[str, str]:
        names = list(self.bit_layers)
        return names[0], names[-1]

    def bits_of(self, label: str) -> tuple[int, ...]:
        """Return the weight bits that the layers of a tie may have."""
        if label in self._edges:
            edge = self.edge_bits or self.bits[-2:]
            left = tuple(bits for bits in self.subsets.get(label, edge) if bits in edge)
            return left or edge
        return self.subsets.get(label, self.bits)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Widths, weight bits and, where they are separate, activation bits."""
        table: list[Choice] = []
        for label in self.width_groups:
            table.append(
                Choice(f"{label}.width", self.widths, self._given_multiplier, "architecture")
            )
        for label in self.bit_layers:
            bits = self.bits_of(label)
            table.append(Choice(f"{label}.bits", bits, len(bits) - 1, "bits"))
        if isinstance(self.act_bits, tuple):
            last = len(self.act_bits) - 1
            for label in self.bit_layers:
                table.append(Choice(f"{label}.act_bits", self.act_bits, last, "bits"))
        return tuple(choice for choice in table if len(choice.values) > 1)

    @cached_property
    def _column(self) -> dict[str, int]:
        return {choice.name: column for column, choice in enumerate(self.choices)}

    # --- points

    def canonical_indices(self, indices: ArrayLike) -> IndexArray:
        """Let one multiplier stand for all that round to the same channels: 1, or the first."""
        points = self.check_indices(indices)
        for label, merged in self._merged_widths.items():
            column = self._column.get(f"{label}.width")
            if column is not None:
                points[:, column] = merged[points[:, column]]
        return points

    @cached_property
    def _given_multiplier(self) -> int:
        """Place of 1, or of the multiplier that is nearest to it."""
        return int(np.argmin([abs(width - 1.0) for width in self.widths]))

    @cached_property
    def _merged_widths(self) -> dict[str, IndexArray]:
        merged: dict[str, IndexArray] = {}
        default = self._given_multiplier
        for label, groups in self.width_groups.items():
            options = self._group_widths[:, list(groups)]
            same = (options[:, None, :] == options[None, :, :]).all(axis=-1)
            merged[label] = np.where(same[default], default, np.argmax(same, axis=1))
        return merged

    @cached_property
    def _group_widths(self) -> IndexArray:
        """Channels of each group at each multiplier, shape ``(n_multipliers, n_groups)``."""
        groups = self.description.groups
        rows = [[group.width(width) for group in groups] for width in self.widths]
        return np.array(rows, dtype=np.int64)

    def architecture(self, values: Values) -> ModelArchitecture:
        """Return the network at the widths of `values`; see `SearchSpace`."""
        widths = self._widths_at(self.encode(values)[None])[0]
        return ModelArchitecture(self.description, tuple(widths.tolist()), self.builder)

    def policy(self, values: Values) -> QuantPolicy:
        """Return the bits of every layer; see `SearchSpace`.

        Raises:
            UnsupportedError: If a layer cannot be quantized.
        """
        self.check_supported()
        weight, act = self._bits_at(self.encode(values)[None])
        names = [given.layer.name for given in self.description.layers]
        pairs = zip(weight[0].tolist(), act[0].tolist(), strict=True)
        return QuantPolicy(
            {name: LayerBits(*bits) for name, bits in zip(names, pairs, strict=True)}
        )

    def uniform_policy(self, values: Values, bits: int) -> QuantPolicy:
        """Return one bit-width everywhere but in the first and last layer.

        These have the most bits that the space gives them, as is usual for uniform networks.
        Activations have the bits of the weights where they do in this space, otherwise the most.
        """
        first, last = (self.bit_layers[label][0] for label in self._edges)
        most = {first: self.bits_of(first)[-1], last: self.bits_of(last)[-1]}
        act_bits = self.act_bits[-1] if isinstance(self.act_bits, tuple) else self.act_bits
        policy = {}
        for given in self.description.layers:
            name = given.layer.name
            weight = most.get(name, bits)
            act = weight if act_bits == "same" else act_bits
            is_fixed = given.state == "fixed"
            policy[name] = (
                LayerBits(FIXED_BITS, FIXED_BITS) if is_fixed else LayerBits(weight, act)
            )
        return QuantPolicy(policy)

    def _widths_at(self, points: IndexArray) -> IndexArray:
        """Return the channels of each group, shape ``(n, n_groups)``."""
        widths = np.tile(np.array(self.description.widths, dtype=np.int64), (len(points), 1))
        for label, groups in self.width_groups.items():
            column = self._column.get(f"{label}.width")
            given = np.full(len(points), self._given_multiplier)
            index = given if column is None else points[:, column]
            widths[:, list(groups)] = self._group_widths[index][:, list(groups)]
        return widths

    def _bits_at(self, points: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Return weight and activation bits of each layer, shapes ``(n, n_layers)``."""
        order = {given.layer.name: i for i, given in enumerate(self.description.layers)}
        weight = np.full((len(points), len(order)), FIXED_BITS, dtype=np.int64)
        act = weight.copy()
        for label, names in self.bit_layers.items():
            columns = [order[name] for name in names]
            chosen = self._chosen(points, f"{label}.bits", self.bits_of(label))
            weight[:, columns] = chosen[:, None]
            if isinstance(self.act_bits, tuple):
                chosen = self._chosen(points, f"{label}.act_bits", self.act_bits)
            elif self.act_bits != "same":
                chosen = np.full(len(points), self.act_bits)
            act[:, columns] = chosen[:, None]
        return weight, act

    def _chosen(self, points: IndexArray, name: str, values: Sequence[int]) -> IndexArray:
        column = self._column.get(name)
        index = np.zeros(len(points), np.int64) if column is None else points[:, column]
        return np.array(values, dtype=np.int64)[index]

    # --- sizes

    def weight_bits(self, indices: ArrayLike) -> IndexArray:
        """Return the bits of all weights of each network; see `SearchSpace.weight_bits`."""
        points = self.check_indices(indices)
        layers = layers_at(self.description, self._widths_at(points))
        return np.asarray((layers.n_weights * self._bits_at(points)[0]).sum(axis=1), np.int64)

    def size_bits(self, indices: ArrayLike) -> IndexArray:
        """Return `weight_bits` plus 32 bits for each bias; see `SearchSpace.size_bits`."""
        points = self.check_indices(indices)
        layers = layers_at(self.description, self._widths_at(points))
        bits = layers.n_weights * self._bits_at(points)[0] + BIAS_BITS * layers.n_biases
        return np.asarray(bits.sum(axis=1), np.int64)

    def tabulate(self, indices: ArrayLike) -> LayerTable:
        """Return the layers of each network; see `SearchSpace.tabulate`.

        NOTE: without skip connections; `is_chain` says that such tables are no whole networks.
        """
        points = self.check_indices(indices)
        layers = layers_at(self.description, self._widths_at(points))
        weight, act = self._bits_at(points)
        n = np.full(len(points), layers.shape[1], dtype=np.int64)
        no_skips = np.zeros((len(points), 0, 3), dtype=np.int64)
        return LayerTable(layers, weight, act, n, no_skips, np.zeros_like(n))

    @property
    def is_chain(self) -> bool:
        """False: given networks have any connections."""
        return False

    def layer_variants(self) -> LayerVariants:
        """Return every layer any network may have; see `SearchSpace.layer_variants`."""
        options = {
            group: self._group_widths[np.unique(self._merged_widths[label]), group].tolist()
            for label, groups in self.width_groups.items()
            for group in groups
        }
        labels = {g: label for label, groups in self.width_groups.items() for g in groups}
        layers, is_complete = enumerate_variants(self.description, options, labels)
        fixed = {FIXED_BITS for given in self.description.layers if given.state == "fixed"}
        weight = {bits for label in self.bit_layers for bits in self.bits_of(label)}
        if isinstance(self.act_bits, tuple):
            act = {*self.act_bits}
        else:
            act = weight if self.act_bits == "same" else {self.act_bits}
        bits = tuple(sorted(weight | fixed)), tuple(sorted(act | fixed))
        return LayerVariants(layers, *bits, is_complete)

    # --- words about it

    def describe(self) -> SpaceSummary:
        """Return the size of the space."""
        by_kind = {
            kind: [len(choice.values) for choice in self.choices if choice.kind == kind]
            for kind in ("architecture", "bits")
        }
        n_networks = prod(
            len(np.unique(merged))
            for label, merged in self._merged_widths.items()
            if f"{label}.width" in self._column
        )
        return SpaceSummary(
            n_dimensions=len(self.choices),
            n_bit_variables=len(by_kind["bits"]),
            n_architectures=prod(by_kind["architecture"]),
            n_policies=prod(by_kind["bits"]),
            n_layouts=prod(by_kind["architecture"]),
            n_networks=n_networks,
        )

    def explain_layers(self) -> tuple[LayerSummary, ...]:
        """Return one entry per layer of the network: searched, fixed or unsupported, and why."""
        ties = ModelTies(
            bit_label={n: label for label, names in self.bit_layers.items() for n in names},
            width_label={g: label for label, gs in self.width_groups.items() for g in gs},
            bits={label: self.bits_of(label) for label in self.bit_layers},
            act_bits=self.act_bits,
        )
        return explain_model(self.description, self.choices, ties)


def _check_bits(name: str, bits: Sequence[int], *, may_be_empty: bool = False) -> None:
    if not bits and may_be_empty:
        return
    if not bits or list(bits) != sorted(set(bits)) or bits[0] < MIN_BITS or bits[-1] > MAX_BITS:
        msg = (
            f"`{name}` must be increasing bit-widths in [{MIN_BITS}, {MAX_BITS}], "
            f"got {list(bits)}."
        )
        raise ConfigError(msg)
