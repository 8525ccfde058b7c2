# SPDX-License-Identifier: Apache-2.0
"""What a person may write for the bits, input and settings of a network to be costed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, shown

__all__ = ["Bits", "check_batch", "read_bits", "read_input_shape", "read_settings"]

Bits = int | str | tuple[int, int] | Mapping[str, Any]


def check_batch(batch: object) -> None:
    """Check the inputs that are computed together; `None` leaves them to the hardware.

    Raises:
        ConfigError: If it is no whole number, or below 1.
    """
    if batch is None:
        return
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        msg = f"`batch` (--batch) must be a whole number, at least 1, got {shown(batch)}."
        raise ConfigError(msg)


def read_input_shape(given: str | Sequence[int] | None) -> tuple[int, ...] | None:
    """Return ``3x32x32`` or a sequence as sizes; `None` stays.

    Raises:
        ConfigError: If these are not one or three sizes of at least 1.
    """
    if given is None:
        return None
    try:
        sizes = tuple(
            int(size) for size in (given.lower().split("x") if isinstance(given, str) else given)
        )
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        msg = f"`input_shape` (--input) must be CxHxW, for instance 3x32x32, got {shown(given)}."
        raise ConfigError(msg)
    return sizes


def read_settings(settings: object) -> list[str]:
    """Return settings as ``key.path=value`` with values in YAML.

    Args:
        settings: A list of such texts, or a mapping from key paths to values.

    Raises:
        ConfigError: If they are neither.

    Example:
        >>> read_settings({"training.epochs": 5, "space.bits": [2, 4]})
        ['training.epochs=5', 'space.bits=[2, 4]']
    """
    if isinstance(settings, Mapping):
        # JSON is YAML; paths and the like are settings as text.
        return [
            f"{key}={json.dumps(value, default=str, ensure_ascii=False)}"
            for key, value in settings.items()
        ]
    entries = settings if isinstance(settings, list | tuple) else [None]
    texts = [entry for entry in entries if isinstance(entry, str) and "=" in entry]
    if len(texts) < len(entries):
        msg = (
            '`settings` (--set) must be a mapping {"training.epochs": 5} or a list of '
            f'"training.epochs=5", got {shown(settings)}.'
        )
        raise ConfigError(msg)
    return texts


def read_bits(bits: Bits, names: Sequence[str]) -> tuple[QuantPolicy, str]:
    """Return the bits of every layer, and words for them.

    Args:
        bits: ``8``, ``"6/4"``, ``(6, 4)``, a policy, or the path of one as JSON.
        names: The layers.

    Raises:
        ConfigError: If they are not understood, or the file cannot be read.
        PolicyError: If a layer of a policy has no such bits.
    """
    if isinstance(bits, str) and not re.fullmatch(r"[\d\s/.+-]*", bits):
        return _policy_file(Path(bits)), f"those of {bits}"
    if isinstance(bits, Mapping):
        given = bits if isinstance(bits, QuantPolicy) else QuantPolicy.from_json(bits)
        return given, "those of a policy"
    pair = _pair(bits)
    policy = QuantPolicy.uniform(names, pair.weight_bits, pair.act_bits)
    return policy, f"weights {pair.weight_bits}, activations {pair.act_bits}"


def _pair(bits: int | str | tuple[int, int]) -> LayerBits:
    try:
        parts = bits.split("/") if isinstance(bits, str) else bits
        numbers = [parts] if isinstance(parts, int) else [int(part) for part in parts]
        if len(numbers) not in (1, 2):
            raise ValueError  # One message for all.
        return LayerBits(numbers[0], numbers[-1])
    except (ValueError, TypeError) as error:
        msg = (
            "`bits` (--bits) must be W or W/A, whole numbers from 2 to 8, or a policy (the path "
            f"of one as JSON); got {shown(bits)}."
        )
        raise ConfigError(msg) from error


def _policy_file(path: Path) -> QuantPolicy:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = (
            f"Cannot read the policy {shown(str(path))}: {error.strerror or error}. `bits` "
            '(--bits) is W, W/A, or a JSON file {"layer": [weight_bits, act_bits]}.'
        )
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"The policy {path} is not JSON: {error}."
        raise ConfigError(msg) from error
    if not isinstance(document, dict):
        msg = f"The policy {path} must map each layer to [weight_bits, act_bits]."
        raise PolicyError(msg)
    try:
        return QuantPolicy.from_json(document)
    except PolicyError as error:
        msg = f"The policy {path}: {error}"
        raise PolicyError(msg) from error
