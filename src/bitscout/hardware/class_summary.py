# SPDX-License-Identifier: Apache-2.0
"""What a class says about itself, without running its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

__all__ = ["class_summary"]


def class_summary(path: str) -> str | None:
    """Return the first line of the docstring of the class at `path`, read from its source.

    Args:
        path: ``package.module:Class``.

    Returns:
        `None` where there is no such source, class or docstring; a class that its module only
        imports is not looked for.

    Example:
        >>> class_summary("bitscout.hardware.report:LayerCost")
        'What one layer costs.'
    """
    module, _, name = path.partition(":")
    for file in _files(module):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):
            continue
        for entry in tree.body:
            if isinstance(entry, ast.ClassDef) and entry.name == name:
                lines = (ast.get_docstring(entry) or "").splitlines()
                return lines[0] if lines else None
    return None


def _files(module: str) -> Iterator[Path]:
    """Yield where the source of `module` may be; `find_spec` of a part would import its whole."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if not rest and spec.origin is not None:
        yield Path(spec.origin)
    for folder in spec.submodule_search_locations or () if rest else ():
        yield Path(folder, *rest[:-1], f"{rest[-1]}.py")
        yield Path(folder, *rest, "__init__.py")
