# SPDX-License-Identifier: Apache-2.0
"""Which leaf module's output reaches which leaf module, seen in one forward pass.

No graph capture: a module with any Python in its ``forward`` can be recorded. A tensor's *value*
is what it holds between two writes: an in-place ReLU returns the same tensor object with a new
value. Functions called outside leaf modules (``x + y``, ``F.relu``) are recorded as anonymous
readers and writers, so that nothing reads a value unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Call", "Flow", "evaluating", "put_module", "record_flow"]

# Reading these is not reading the values.
_LOOKS_ONLY = {"__get__", "__len__", "dim", "is_contiguous", "numel", "size", "stride"}


@dataclass(frozen=True)
class Call:
    """One call of a leaf module, or of a function outside of all leaf modules.

    Attributes:
        name: Path of the module; `None` for a function.
        module: The module; `None` for a function.
        reads: Values read.
        writes: Values written.
    """

    name: str | None
    module: nn.Module | None
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass
class Flow:
    """Everything one forward pass did.

    Attributes:
        calls: In the order of execution.
        outputs: Values the whole network returned.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)

    def calls_of(self, name: str) -> list[Call]:
        """Return the calls of the module at path `name`."""
        return [call for call in self.calls if call.name == name]

    def readers(self, value: int) -> list[Call]:
        """Return the calls that read `value`."""
        return [call for call in self.calls if value in call.reads]

    def writer(self, value: int) -> Call | None:
        """Return the call that wrote `value`, `None` for an input of the network."""
        return next((call for call in self.calls if value in call.writes), None)


class _Recorder:
    def __init__(self) -> None:
        self.flow = Flow()
        self.depth = 0  # > 0 inside a leaf module
        self._values: dict[int, int] = {}
        self._kept: list[Tensor] = []  # Alive to the end: an id is reused only after death.

    def _value(self, tensor: Tensor) -> int:
        if id(tensor) not in self._values:
            self._kept.append(tensor)
            self._values[id(tensor)] = len(self._kept)
        return self._values[id(tensor)]

    def _new_value(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        self._values[id(tensor)] = len(self._kept)
        return len(self._kept)

    def reads(self, arguments: object) -> tuple[int, ...]:
        return tuple(self._value(tensor) for tensor in _tensors(arguments))

    def add(
        self, name: str | None, module: nn.Module | None, reads: tuple[int, ...], result: object
    ) -> None:
        writes = tuple(self._new_value(tensor) for tensor in _tensors(result))
        self.flow.calls.append(Call(name, module, reads, writes))

    def finish(self, result: object) -> Flow:
        self.flow.outputs = set(self.reads(result))
        return self.flow


class _FunctionRecorder(TorchFunctionMode):
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  # torch's own signature
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        recorder = self._recorder
        if recorder.depth:
            return func(*args, **kwargs)
        reads = recorder.reads((args, kwargs))
        recorder.depth += 1  # A function may call others: one record is enough.
        try:
            result = func(*args, **kwargs)
        finally:
            recorder.depth -= 1
        if func.__name__ not in _LOOKS_ONLY or _tensors(result):  # `x.T` is a `__get__` too
            recorder.add(None, None, reads, result)
        return result


def record_flow(module: nn.Module, example_input: Tensor, is_leaf: _LeafTest) -> Flow:
    """Run `module` once, in evaluation mode, and return what flowed where.

    Args:
        module: Any network that takes one tensor. Left as it was.
        example_input: One batch the network accepts.
        is_leaf: Which modules to see as one call. Modules without children always are.
    """
    recorder = _Recorder()
    handles = []
    pending: dict[int, list[tuple[int, ...]]] = {}

    def before(leaf: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        if not recorder.depth:
            pending.setdefault(id(leaf), []).append(recorder.reads((args, kwargs)))
        recorder.depth += 1

    def after(name: str, leaf: nn.Module, args: Any, kwargs: Any, result: Any) -> None:  # noqa: ANN401
        del args, kwargs
        recorder.depth -= 1
        if not recorder.depth:
            recorder.add(name, leaf, pending[id(leaf)].pop(), result)

    for name, child in module.named_modules():
        if is_leaf(child) or next(child.children(), None) is None:
            handles.append(child.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(child.register_forward_hook(partial(after, name), with_kwargs=True))
    try:
        with evaluating(module), torch.no_grad(), _FunctionRecorder(recorder):
            return recorder.finish(module(example_input))
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch `module` to evaluation mode, and every child back to its own mode afterwards."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def put_module(root: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replace `old` by `new` wherever it hangs below `root`; return the root."""
    if root is old:
        return new
    new.train(old.training)
    modules = root.named_modules(remove_duplicate=False)
    for path in [name for name, child in modules if child is old]:
        parent, _, key = path.rpartition(".")
        setattr(root.get_submodule(parent), key, new)
    return root


def _tensors(structure: object) -> list[Tensor]:
    if isinstance(structure, Tensor):
        return [structure]
    if isinstance(structure, Mapping):
        return [tensor for item in structure.values() for tensor in _tensors(item)]
    if isinstance(structure, list | tuple):
        return [tensor for item in structure for tensor in _tensors(item)]
    return []


_LeafTest = Callable[[nn.Module], bool]
