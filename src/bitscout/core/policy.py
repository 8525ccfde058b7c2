# SPDX-License-Identifier: Apache-2.0
"""Which bit-width every layer gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bitscout.errors import PolicyError

__all__ = ["LayerBits", "QuantPolicy"]

MIN_BITS, MAX_BITS = 2, 8


@dataclass(frozen=True, slots=True)
class LayerBits:
    """The two bit-widths of one layer.

    Attributes:
        weight_bits: Bits of each weight, in ``[2, 8]``.
        act_bits: Bits of each element of the layer's *input*, in ``[2, 8]``.

    Raises:
        PolicyError: If a bit-width is not an integer in ``[2, 8]``.
    """

    weight_bits: int
    act_bits: int = 8

    def __post_init__(self) -> None:
        """Reject bit-widths outside the supported range."""
        for field in ("weight_bits", "act_bits"):
            bits = getattr(self, field)
            if not isinstance(bits, int) or isinstance(bits, bool):
                msg = f"`{field}` must be an integer in [{MIN_BITS}, {MAX_BITS}], got {bits!r}."
                raise PolicyError(msg)
            if not MIN_BITS <= bits <= MAX_BITS:
                msg = f"`{field}` must be in [{MIN_BITS}, {MAX_BITS}], got {bits}."
                raise PolicyError(msg)


class QuantPolicy(Mapping[str, LayerBits]):
    """Immutable map from layer name to `LayerBits`.

    Equality and hash ignore the order of the layers.

    Example:
        >>> policy = QuantPolicy.uniform(["stem", "head"], weight_bits=4)
        >>> policy["stem"]
        LayerBits(weight_bits=4, act_bits=8)
        >>> QuantPolicy.from_json(policy.to_json()) == policy
        True
    """

    __slots__ = ("_bits",)

    def __init__(self, bits: Mapping[str, LayerBits]) -> None:
        self._bits: dict[str, LayerBits] = dict(bits)

    @classmethod
    def uniform(cls, names: Iterable[str], weight_bits: int, act_bits: int = 8) -> QuantPolicy:
        """Return the policy that gives every layer in `names` the same bit-widths."""
        return cls({name: LayerBits(weight_bits, act_bits) for name in names})

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> QuantPolicy:
        """Return the policy written by `to_json`.

        Raises:
            PolicyError: If a value is not a pair ``[weight_bits, act_bits]``, naming the layer.
        """
        bits: dict[str, LayerBits] = {}
        for name, pair in document.items():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                msg = f"Policy of layer {name!r} must be [weight_bits, act_bits], got {pair!r}."
                raise PolicyError(msg)
            try:
                bits[name] = LayerBits(*pair)
            except PolicyError as error:
                msg = f"Policy of layer {name!r}: {error}"
                raise PolicyError(msg) from error
        return cls(bits)

    def to_json(self) -> dict[str, list[int]]:
        """Return ``{layer: [weight_bits, act_bits]}`` in layer order."""
        return {name: [bits.weight_bits, bits.act_bits] for name, bits in self._bits.items()}

    def check_covers(self, names: Iterable[str]) -> None:
        """Check that the policy names exactly the layers in `names`.

        Raises:
            PolicyError: Listing the layers left out and the names that are no layers.
        """
        expected = list(names)
        missing = [name for name in expected if name not in self._bits]
        known = set(expected)
        unknown = [name for name in self._bits if name not in known]
        if missing or unknown:
            parts = [
                f"{what}: {', '.join(which)}"
                for what, which in (("left out", missing), ("not in the network", unknown))
                if which
            ]
            msg = (
                f"The policy does not match the network's {len(expected)} layers. "
                f"{'; '.join(parts)}. Give every layer one entry."
            )
            raise PolicyError(msg)

    def __getitem__(self, name: str) -> LayerBits:
        """Return the bit-widths of layer `name`."""
        return self._bits[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the layer names."""
        return iter(self._bits)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._bits)

    def __hash__(self) -> int:
        return hash(frozenset(self._bits.items()))

    def __repr__(self) -> str:
        return f"QuantPolicy({self.to_json()})"
