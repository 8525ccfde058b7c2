# SPDX-License-Identifier: Apache-2.0
"""The search space of BOMP-NAS, Table I of [vanSon2023]_, over MobileNetV2-like networks.

Seven blocks of inverted residuals; each searches kernel, width multiplier, expansion and
repetitions (block 1 has expansion 1 and one repetition, block 7 one repetition), then a 1x1
convolution searches its filters. That is 26 architecture variables. Where the paper is silent:

- *Bits.* 5**23 policies mean 23 bit variables: stem, block 1 (depthwise, project), blocks 2 to 7
  (expand, depthwise, project), conv2 and classifier. All repetitions of a block share its three.
- *Stem.* 3x3, stride 1, ``32 * width of block 1`` filters.
- *Expansion.* Blocks 2 to 7 keep their expansion convolution even where the expansion is 1.
- *Resolution.* "Reduction occurs after bottlenecks 4 and 6": stride 2 in the first depthwise
  convolution of the next block that exists after either position. If blocks 5 and 6 are absent
  both fall on block 7, whose depthwise convolution then has stride 4.
- *Seed.* Bold print is lost; taken as MobileNetV2: kernel 3, expansion 6, repetitions
  1, 2, 3, 4, 3, 3, 1, the middle width, 1280 filters, 8 bits.

The paper's 4.73e39 networks are 4.73e35: its 3.97e19 architectures times its 1.19e16 policies.

References:
    .. [vanSon2023] D. van Son, F. de Putter, S. Vogel, H. Corporaal. BOMP-NAS: Bayesian
       Optimization Mixed Precision NAS. DATE 2023. https://arxiv.org/abs/2301.11810
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from bitscout.core import BIAS_BITS, LayerBits, QuantPolicy, Values
from bitscout.errors import ConfigError
from bitscout.space.base import IndexArray, SearchSpace
from bitscout.space.bomp_explain import explain_rows
from bitscout.space.bomp_layers import Feature, tabulate_layers
from bitscout.space.bomp_size import count_bits
from bitscout.space.bomp_table import (
    BASE_CHANNELS,
    BLOCK_BITS,
    BOMP_WIDTHS,
    POSITIONS,
    REDUCTION_AFTER,
    STEM_CHANNELS,
    bit_choice_of,
    check_integers,
    check_widths,
    table_rows,
)
from bitscout.space.bomp_variants import BlockOptions, enumerate_layers
from bitscout.space.choice import Choice
from bitscout.space.layer_table import LayerTable, LayerVariants
from bitscout.space.mobilenet_spec import BlockSpec, MobileNetSpec, round_channels
from bitscout.space.summary import LayerSummary, SpaceSummary

__all__ = ["BompSpace"]

_LISTS = ("widths", "input_shape", "bits", "kernels", "expansions", "repetitions", "filters")


@final
@dataclass(frozen=True)
class BompSpace(SearchSpace):
    """Table I of BOMP-NAS.

    A list with one value is not a choice but fixed: ``bits=(8,)`` leaves 26 dimensions.

    Two things do not change a network, and are set to their default in a canonical point: the
    choices of a block with 0 repetitions, its bits included, and a width that rounds to the same
    channels as the default (or as a smaller width), frequent with `channel_divisor` 8 and the
    widths of CIFAR-10.

    Attributes:
        widths: ``"cifar10"``, ``"cifar100"``, or width multipliers > 0, increasing; the middle
            one is the seed's.
        input_shape: Channels, height and width. Any size works: SAME padding keeps a pixel.
        n_classes: >= 2.
        channel_divisor: 8 rounds channels as Keras' MobileNetV2 does; 1 to whole numbers, which
            tells small widths apart.
        bits: Weight bits, increasing, in ``[2, 8]``.
        act_bits: Activation bits of every layer, in ``[2, 8]``.
        kernels: Depthwise kernels, increasing, >= 1.
        expansions: Expansion factors of blocks 2 to 7, increasing, >= 1.
        repetitions: Repetitions of blocks 2 to 6, increasing, >= 0, not 0 alone.
        filters: Filters of conv2, increasing, >= 1.

    Raises:
        ConfigError: If a list is empty, out of order or out of range, or nothing is left to
            choose.

    Example:
        >>> space = BompSpace()
        >>> space.describe().to_json()["log10_size"]
        35.675
        >>> len(space.layers(space.seed_values()))
        53
    """

    widths: str | tuple[float, ...] = "cifar10"
    input_shape: tuple[int, int, int] = (3, 32, 32)
    n_classes: int = 10
    channel_divisor: int = 8
    bits: tuple[int, ...] = (4, 5, 6, 7, 8)
    act_bits: int = 8
    kernels: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    expansions: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    repetitions: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    filters: tuple[int, ...] = (128, 256, 512, 1024, 1280)

    def __post_init__(self) -> None:
        """Make every list a tuple and reject impossible values."""
        if isinstance(self.widths, str) and self.widths not in BOMP_WIDTHS:
            msg = (
                f"`widths` must be one of {', '.join(BOMP_WIDTHS)} or a list of multipliers, "
                f"got {self.widths!r}."
            )
            raise ConfigError(msg)
        for name in _LISTS:
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        self._check_ranges()
        if not self.choices:
            msg = "Every list has one value: nothing is left to search. Give one list two values."
            raise ConfigError(msg)

    def _check_ranges(self) -> None:
        check_widths(self._width_values)
        shape: tuple[int, ...] = self.input_shape
        check_integers("input_shape", shape, 1)
        if len(shape) != 3:
            msg = f"`input_shape` must be (channels, height, width), got {shape}."
            raise ConfigError(msg)
        check_integers("n_classes", (self.n_classes,), 2)
        check_integers("channel_divisor", (self.channel_divisor,), 1)
        check_integers("bits", self.bits, 2, 8)
        check_integers("act_bits", (self.act_bits,), 2, 8)
        check_integers("kernels", self.kernels, 1)
        check_integers("expansions", self.expansions, 1)
        check_integers("repetitions", self.repetitions, 0)
        check_integers("filters", self.filters, 1)
        if self.repetitions == (0,):
            msg = "`repetitions` must hold a number >= 1: with 0 alone blocks 2 to 6 never exist."
            raise ConfigError(msg)

    # --- the table

    @property
    def _width_values(self) -> tuple[float, ...]:
        return BOMP_WIDTHS[self.widths] if isinstance(self.widths, str) else self.widths

    @cached_property
    def _table(self) -> dict[str, Choice]:
        """Every row of Table I by name, rows with one value included."""
        rows = table_rows(
            widths=self._width_values,
            bits=self.bits,
            kernels=self.kernels,
            expansions=self.expansions,
            repetitions=self.repetitions,
            filters=self.filters,
        )
        return {choice.name: choice for choice in rows}

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every choice with more than one value: 49 in Table I, the 23 bit variables last."""
        return tuple(choice for choice in self._table.values() if len(choice.values) > 1)

    @cached_property
    def _column(self) -> dict[str, int]:
        return {choice.name: column for column, choice in enumerate(self.choices)}

    @cached_property
    def _integers(self) -> dict[str, IndexArray]:
        """Values of each row of the table but the widths."""
        return {
            name: np.array(choice.values, dtype=np.int64)
            for name, choice in self._table.items()
            if not name.endswith(".width")
        }

    @cached_property
    def _channels(self) -> dict[int, IndexArray]:
        """Output channels of each block by width index, shape ``(n_widths,)``."""
        return {p: self._rounded(BASE_CHANNELS[p]) for p in POSITIONS}

    @cached_property
    def _stem_channels(self) -> IndexArray:
        return self._rounded(STEM_CHANNELS)

    def _rounded(self, base: int) -> IndexArray:
        widths = self._width_values
        return np.array([round_channels(width * base, self.channel_divisor) for width in widths])

    @cached_property
    def _merged_widths(self) -> dict[int, IndexArray]:
        """Index that stands for each width index: the default's if equal, else the first."""
        merged: dict[int, IndexArray] = {}
        for position, channels in self._channels.items():
            # The multiplier of block 1 shapes the stem as well.
            other = self._stem_channels if position == 1 else channels
            same = (channels == channels[:, None]) & (other == other[:, None])
            default = self._table[f"block{position}.width"].default
            merged[position] = np.where(same[default], default, np.argmax(same, axis=1))
        return merged

    # --- points

    def architecture(self, values: Values) -> MobileNetSpec:
        """Return the network `values` describe, without its bits; see `SearchSpace`."""
        row = {name: int(column[0]) for name, column in self._rows(self.encode(values)[None])}
        present = [p for p in POSITIONS if row[f"block{p}.repetitions"]]
        strides = dict.fromkeys(present, 1)
        for reduced in REDUCTION_AFTER:
            strides[min(p for p in present if p > reduced)] *= 2
        blocks = tuple(
            BlockSpec(
                position=p,
                kernel=row[f"block{p}.kernel"],
                out_channels=row[f"block{p}.channels"],
                expansion=row[f"block{p}.expansion"],
                repetitions=row[f"block{p}.repetitions"],
                stride=strides[p],
                has_expand="expand" in BLOCK_BITS[p],
            )
            for p in present
        )
        stem_channels, head_channels = row["stem.channels"], row["conv2.filters"]
        return MobileNetSpec(
            self.input_shape, self.n_classes, stem_channels, blocks, head_channels
        )

    def policy(self, values: Values) -> QuantPolicy:
        """Return the bits of every layer; all repetitions of a block share the block's."""
        row = {name: int(column[0]) for name, column in self._rows(self.encode(values)[None])}
        return QuantPolicy(
            {
                name: LayerBits(row[bit_choice_of(name)], self.act_bits)
                for name in self.layers(values).names
            }
        )

    def canonical_indices(self, indices: ArrayLike) -> IndexArray:
        """Set what does not change the network to its default; see `SearchSpace`."""
        points = self.check_indices(indices)
        for position in POSITIONS:
            column = self._column.get(f"block{position}.width")
            if column is not None:
                points[:, column] = self._merged_widths[position][points[:, column]]
        for position in POSITIONS:
            repetitions = self._column.get(f"block{position}.repetitions")
            # NOTE: repetitions increase and only their first value can be 0.
            if repetitions is None or self.choices[repetitions].values[0] != 0:
                continue
            absent = points[:, repetitions] == 0
            for column, choice in enumerate(self.choices):
                if choice.name.startswith(f"block{position}.") and column != repetitions:
                    points[absent, column] = choice.default
        return points

    # --- sizes

    def weight_bits(self, indices: ArrayLike) -> IndexArray:
        """Return the bits of all weights of each network; see `SearchSpace.weight_bits`."""
        return self._count(indices)[0]

    def size_bits(self, indices: ArrayLike) -> IndexArray:
        """Return `weight_bits` plus 32 bits for each bias; see `SearchSpace.size_bits`."""
        weight_bits, n_biases = self._count(indices)
        return weight_bits + BIAS_BITS * n_biases

    def tabulate(self, indices: ArrayLike) -> LayerTable:
        """Return the layers of each network; see `SearchSpace.tabulate`."""
        row = dict(self._rows(indices))
        return tabulate_layers(row, self.input_shape, self.n_classes, self.act_bits)

    def layer_variants(self) -> LayerVariants:
        """Return every layer any network may have; see `SearchSpace.layer_variants`."""
        widths = [self._channels[position].tolist() for position in POSITIONS]
        layers = enumerate_layers(
            Feature(*self.input_shape),
            list(zip(self._stem_channels.tolist(), widths[0], strict=True)),
            {
                position: BlockOptions(
                    channels=channels,
                    kernels=self._options(f"block{position}.kernel"),
                    expansions=self._options(f"block{position}.expansion"),
                    repetitions=self._options(f"block{position}.repetitions"),
                )
                for position, channels in zip(POSITIONS, widths, strict=True)
            },
            self._options("conv2.filters"),
            self.n_classes,
        )
        return LayerVariants(layers, tuple(sorted(self.bits)), (self.act_bits,))

    def _options(self, name: str) -> list[int]:
        return [int(value) for value in self._integers[name].tolist()]

    def _count(self, indices: ArrayLike) -> tuple[IndexArray, IndexArray]:
        return count_bits(dict(self._rows(indices)), self.input_shape[0], self.n_classes)

    def _rows(self, indices: ArrayLike) -> Iterator[tuple[str, IndexArray]]:
        """Yield every row of the table with its integers, shape ``(n,)``.

        A ``blockN.width`` comes as ``blockN.channels``, that of block 1 as ``stem.channels`` too.
        """
        points = self.check_indices(indices)
        zeros = np.zeros(len(points), np.int64)
        for name in self._table:
            column = self._column.get(name)
            index = zeros if column is None else points[:, column]
            if not name.endswith(".width"):
                yield name, self._integers[name][index]
                continue
            position = int(name[len("block")])
            yield f"block{position}.channels", self._channels[position][index]
            if position == 1:
                yield "stem.channels", self._stem_channels[index]

    # --- words about it

    def describe(self) -> SpaceSummary:
        """Return the size of the space as the paper counts it, and counted honestly."""
        layouts, networks = len(self.filters), len(self.filters)
        for position in POSITIONS:
            allowed = self._table[f"block{position}.repetitions"].values
            shapes = len(self.kernels) * len(self._table[f"block{position}.expansion"].values)
            shapes *= len(allowed) - (0 in allowed)
            n_widths = len(np.unique(self._merged_widths[position]))
            layouts *= shapes * len(self._width_values) + (0 in allowed)
            networks *= shapes * n_widths + (0 in allowed)
        by_kind = {
            kind: [len(choice.values) for choice in self.choices if choice.kind == kind]
            for kind in ("architecture", "bits")
        }
        return SpaceSummary(
            n_dimensions=len(self.choices),
            n_bit_variables=len(by_kind["bits"]),
            n_architectures=prod(by_kind["architecture"]),
            n_policies=prod(by_kind["bits"]),
            n_layouts=layouts,
            n_networks=networks,
        )

    def explain_layers(self) -> tuple[LayerSummary, ...]:
        """Return one entry per bit variable: the layers that share it, and their choices."""
        return explain_rows(self._table, self.act_bits)


def _as_tuple(name: str, values: object) -> object:
    """Return a list, as a configuration file gives it, as a tuple; a named table as it is."""
    if name == "widths" and isinstance(values, str):
        return values
    if not isinstance(values, list | tuple):
        msg = f"`{name}` must be a list, got {values!r}."
        raise ConfigError(msg)
    return tuple(values)
