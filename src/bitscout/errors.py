# SPDX-License-Identifier: Apache-2.0
"""The exceptions `bitscout` raises on purpose.

Every message says what was expected, what came, and what to do. The command line prints the
message alone, without a traceback, and ends with the exception's ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar, Final

__all__ = [
    "BitscoutError",
    "ConfigError",
    "DataError",
    "ExportError",
    "InfeasibleError",
    "MeasurementError",
    "PolicyError",
    "RunError",
    "TrainingError",
    "UnsupportedError",
    "shown",
]

_LONGEST_SHOWN: Final = 120


class BitscoutError(Exception):
    """Base of every error a user can cause and mend."""

    exit_code: ClassVar[int] = 2


class ConfigError(BitscoutError, ValueError):
    """An argument or a configuration value is unknown, of the wrong type or out of range."""


class DataError(BitscoutError, ValueError):
    """A data set is missing, damaged, or does not have the announced form."""


class PolicyError(BitscoutError, ValueError):
    """A quantization policy does not match the layers of a network."""


class UnsupportedError(BitscoutError):
    """A layer, network or device is outside what the called part can do correctly."""


class ExportError(BitscoutError):
    """A network cannot be written as a file, or a file is not the network it claims to be."""


class RunError(BitscoutError):
    """A run directory cannot be created, read or continued."""


class TrainingError(BitscoutError):
    """A training diverged: its loss or its outputs are not finite."""


class MeasurementError(BitscoutError):
    """A command that measures a network failed, took too long, or gave no sensible answer."""


class InfeasibleError(BitscoutError):
    """Nothing in the search space fits the budget."""

    exit_code: ClassVar[int] = 3


def shown(value: object) -> str:
    """Return `value` for a message: as Python writes it, the middle left out where it is long.

    Example:
        >>> shown("8/8")
        "'8/8'"
        >>> len(shown("a" * 10**6))
        120
    """
    text = repr(value)
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = (_LONGEST_SHOWN - len(" ... ")) // 2
    return f"{text[: half + 1]} ... {text[-half:]}"
