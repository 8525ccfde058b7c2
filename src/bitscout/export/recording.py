# SPDX-License-Identifier: Apache-2.0
"""What a recording of a forward pass holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Call", "Recording", "Value"]


@dataclass(frozen=True)
class Value:
    """A tensor of the recording, by number; one changed in place is another value.

    Attributes:
        index: Its number.
        shape: Without the batch.
    """

    index: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        function: Name of the function; empty for a quantized module.
        module: The quantized module, or the innermost one that called the function.
        path: Its path in the network.
        line: ``file:line`` of the source that called, empty if there is none.
        args: Positional arguments, every `Tensor` that comes from the input as a `Value`.
        kwargs: Named ones, likewise.
        result: What was returned, likewise.
    """

    function: str
    module: nn.Module
    path: str
    line: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    def describe(self) -> str:
        """Return what was called, where: for messages."""
        what = f"`{self.function.strip('_')}`" if self.function else "the"
        kind = type(self.module).__name__
        where = f"{' in' * bool(self.function)} {kind}{f' {self.path!r}' if self.path else ''}"
        return f"{what}{where}{f' ({self.line})' if self.line else ''}"


@dataclass(frozen=True)
class Recording:
    """A forward pass.

    Attributes:
        calls: In the order of execution.
        input: The image.
        output: What the network returned.
    """

    calls: tuple[Call, ...]
    input: Value
    output: Any
