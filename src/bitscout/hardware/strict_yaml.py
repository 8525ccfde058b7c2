# SPDX-License-Identifier: Apache-2.0
"""YAML as a person means it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from bitscout.errors import shown

__all__ = ["load_yaml"]


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-3 as text, and takes the last of two values of the same key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of `node`, whose keys must differ."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    msg = f"the key {shown(key.value)} is there twice, again in line {line}"
                    raise yaml.YAMLError(msg)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:  # noqa: ANN401  # any document
    """Return the document in `text`, with the numbers of YAML 1.2.

    Raises:
        yaml.YAMLError: If it is no YAML, or a mapping has a key twice.

    Example:
        >>> load_yaml("{clock_hz: 1e8, name: '1e8'}")
        {'clock_hz': 100000000.0, 'name': '1e8'}
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader
