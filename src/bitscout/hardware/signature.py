# SPDX-License-Identifier: Apache-2.0
"""A digest of everything a hardware model's answers depend on."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bitscout.core import canonical_json

__all__ = ["model_signature", "plain_values"]


def model_signature(model: type, values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that differ when `values` or the source of `model` do."""
    document = canonical_json({"class": model.__qualname__, "values": plain_values(values)})
    return hashlib.sha256((document + _source_digest(model)).encode()).hexdigest()[:16]


def plain_values(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return `value` with mappings and sequences as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return value


@cache
def _source_digest(model: type) -> str:
    """Return a digest of the source the model is computed with."""
    module = sys.modules[model.__module__]
    own_package = Path(__file__).parent
    file = getattr(module, "__file__", None)
    if file is not None and own_package in Path(file).parents:
        paths = sorted(p for p in own_package.rglob("*") if p.suffix in (".py", ".csv"))
        texts = [path.read_text(encoding="utf-8") for path in paths]
    else:
        try:
            texts = [inspect.getsource(module if file is not None else model)]
        except (OSError, TypeError):
            texts = [model.__qualname__]  # Typed into a prompt: it has no source to compare.
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
