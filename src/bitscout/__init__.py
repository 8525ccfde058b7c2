# SPDX-License-Identifier: Apache-2.0
"""Joint search of architecture, width and bit-width for small quantized neural networks.

    import bitscout

    result = bitscout.search("quickstart", out="runs/digits")
    for network in result.final:
        print(network.label, network.metrics)
    model = result.load(result.final[0].name)

The names below are imported when they are first used, so that ``import bitscout`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitscout.pipeline import NetworkCost, RunResult, cost, load_result, search
    from bitscout.space import BompSpace, SearchSpace
    from bitscout.training import ImageData, from_dataset, load_dataset

__all__ = [
    "BompSpace",
    "ImageData",
    "NetworkCost",
    "RunResult",
    "SearchSpace",
    "__version__",
    "cost",
    "from_dataset",
    "load_dataset",
    "load_result",
    "search",
]

__version__ = "0.1.0"

_HOMES = {
    "BompSpace": "bitscout.space",
    "ImageData": "bitscout.training",
    "NetworkCost": "bitscout.pipeline",
    "RunResult": "bitscout.pipeline",
    "SearchSpace": "bitscout.space",
    "cost": "bitscout.pipeline",
    "from_dataset": "bitscout.training",
    "load_dataset": "bitscout.training",
    "load_result": "bitscout.pipeline",
    "search": "bitscout.pipeline",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module's names are of any type
    """Import `name` from its home (PEP 562)."""
    if name not in _HOMES:
        msg = f"module 'bitscout' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
