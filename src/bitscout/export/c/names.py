# SPDX-License-Identifier: Apache-2.0
"""Names in C, and the C files that come with the package."""

from __future__ import annotations

import re
from importlib import resources

from bitscout.export.graph import IntegerGraph

__all__ = ["comment", "input_names", "kernel_text"]


def kernel_text(file: str) -> str:
    """Return a file of C that comes with the package."""
    return (resources.files("bitscout.export.c") / "kernels" / file).read_text("ascii")


def input_names(graph: IntegerGraph) -> dict[str, str]:
    """Return the C parameter of every input: ``input``, or with several also what reads them."""
    if len(graph.inputs) == 1:
        return {graph.inputs[0].name: "input"}
    names: dict[str, str] = {}
    for op in graph.inputs:
        name = "input_" + re.sub(r"[^A-Za-z0-9]+", "_", op.name).strip("_").lower()
        names[op.name] = name if name not in names.values() else f"{name}_{len(names)}"
    return names


def comment(name: str) -> str:
    """Return a name without what would end a comment."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "_", name)
