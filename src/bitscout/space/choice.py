# SPDX-License-Identifier: Apache-2.0
"""One ordinal dimension of a search space."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from bitscout.core import Value
from bitscout.errors import ConfigError

__all__ = ["Choice", "ChoiceKind"]

ChoiceKind = Literal["architecture", "bits"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A named list of values in a meaningful order; searchers see the index only.

    Attributes:
        name: Key in a candidate's values, ``block2.kernel``.
        values: The allowed values, all different; numbers strictly increasing, because a searcher
            takes neighbouring indices for similar values.
        default: Index of the seed's value, also the value an inactive choice takes.
        kind: ``"architecture"`` or ``"bits"``.

    Raises:
        ConfigError: If there is no value, a value is repeated or out of order, or `default` is
            not an index.

    Example:
        >>> Choice("block2.kernel", (3, 5, 7), default=0, kind="architecture").index(5)
        1
    """

    name: str
    values: tuple[Value, ...]
    default: int
    kind: ChoiceKind

    def __post_init__(self) -> None:
        """Reject lists that are no ordinal choice."""
        if not self.values:
            msg = f"Choice `{self.name}` has no values: the space is empty. Give at least one."
            raise ConfigError(msg)
        repeated = [value for value, count in Counter(self.values).items() if count > 1]
        if repeated:
            msg = f"Choice `{self.name}` lists {repeated} more than once: {list(self.values)}."
            raise ConfigError(msg)
        numbers = [value for value in self.values if not isinstance(value, str)]
        if numbers != sorted(numbers):
            msg = (
                f"Choice `{self.name}` must list its values in increasing order, "
                f"got {list(self.values)}."
            )
            raise ConfigError(msg)
        if not 0 <= self.default < len(self.values):
            msg = (
                f"Choice `{self.name}`: `default` must be an index into {len(self.values)} "
                f"values, got {self.default}."
            )
            raise ConfigError(msg)

    def index(self, value: object) -> int:
        """Return the index of `value`.

        Raises:
            ConfigError: If `value` is not allowed.
        """
        # NOTE: `True == 1`, but a boolean here is a mistake in a configuration.
        if value in self.values and not isinstance(value, bool):
            return self.values.index(value)
        msg = f"`{self.name}` must be one of {list(self.values)}, got {value!r}."
        raise ConfigError(msg)
