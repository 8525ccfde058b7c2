# SPDX-License-Identifier: Apache-2.0
"""One point of a search space: an architecture and a quantization policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bitscout.core.policy import QuantPolicy
from bitscout.errors import ConfigError

__all__ = ["Candidate", "Value", "Values", "canonical_json"]

Value = int | float | str
Values = Mapping[str, Value]


def canonical_json(document: object) -> str:
    """Return the one JSON text of `document`: sorted keys, no spaces, shortest floats.

    Raises:
        ConfigError: If the document holds NaN, an infinity, or something JSON cannot hold.

    Example:
        >>> canonical_json({"b": 0.1, "a": [1, True]})
        '{"a":[1,true],"b":0.1}'
    """
    try:
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
        )
    except (TypeError, ValueError) as error:
        msg = f"Cannot write {document!r} as JSON: {error}."
        raise ConfigError(msg) from error


@dataclass(frozen=True)
class Candidate:
    """An architecture, given by the values of the space's choices, and a policy.

    Attributes:
        values: Value of every choice, inactive choices already canonical.
        policy: Bit-widths of every layer of the network these values describe.
    """

    values: Values
    policy: QuantPolicy

    def __post_init__(self) -> None:
        """Freeze the values."""
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def to_json(self) -> dict[str, Any]:
        """Return ``{"values": ..., "policy": ...}``."""
        return {"values": dict(self.values), "policy": self.policy.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Candidate:
        """Return the candidate written by `to_json`.

        Raises:
            ConfigError: If ``values`` or ``policy`` is missing.
        """
        for key in ("values", "policy"):
            if not isinstance(document.get(key), Mapping):
                msg = f"A candidate needs an object under {key!r}, got {sorted(document)}."
                raise ConfigError(msg)
        return cls(document["values"], QuantPolicy.from_json(document["policy"]))

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON.

        The same in every process and on every machine; 64 bits make a collision among
        10,000 trials a one in 10**11 event.
        """
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)
