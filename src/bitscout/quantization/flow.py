# SPDX-License-Identifier: Apache-2.0
"""Which leaf module's output reaches which leaf module, seen in one forward pass.

No graph capture: a module with any Python in its ``forward`` can be recorded. A tensor's *value*
is what it holds between two writes: an in-place ReLU returns the same tensor object with a new
value. Functions called outside leaf modules (``x + y``, ``F.relu``) are recorded as readers and
writers too, with the place in the source they were called from, so that nothing reads a value
unseen. What follows from the network's input is *derived*; weights and constants are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bitscout.quantization.places import Place, Tally, kind_of

__all__ = ["Call", "Flow", "Span", "evaluating", "is_opaque", "put_module", "record_flow"]

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
        function: Name of the function; ``""`` for a module.
        place: Where the function was called.
        args: Its positional arguments, tensors as they were.
        kwargs: Its named arguments, likewise.
        result: What it gave; `None` for a module.
    """

    name: str | None
    module: nn.Module | None
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    function: str = ""
    place: Place | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    result: object = None

    def value_of(self, tensor: Tensor) -> int | None:
        """Return the value that `tensor`, an argument, had when it was read."""
        tensors = _tensors((self.args, self.kwargs))
        found = (v for t, v in zip(tensors, self.reads, strict=True) if t is tensor)
        return next(found, None)


class Span(NamedTuple):
    """What one call of a module read and returned, as values."""

    reads: tuple[int, ...]
    returns: tuple[int, ...]


@dataclass
class Flow:
    """Everything one forward pass did.

    Attributes:
        calls: In the order of execution.
        outputs: Values the whole network returned.
        result: What it returned.
        derived: Values that were computed from the network's input, and the input itself.
        spans: By the path of every module that is no leaf, the values that each of its calls
            read and returned.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)
    result: object = None
    derived: set[int] = field(default_factory=set)
    spans: dict[str, list[Span]] = field(default_factory=dict)

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
        self.tally = Tally()
        self._values: dict[int, int] = {}
        self._kept: list[Tensor] = []  # Alive to the end: an id is reused only after death.

    def _value(self, tensor: Tensor) -> int:
        return self._values.get(id(tensor)) or self._new_value(tensor)

    def _new_value(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        self._values[id(tensor)] = len(self._kept)
        return len(self._kept)

    def reads(self, arguments: object) -> tuple[int, ...]:
        return tuple(self._value(tensor) for tensor in _tensors(arguments))

    def add(self, call: Call, result: object) -> None:
        writes = tuple(self._new_value(tensor) for tensor in _tensors(result))
        if not self.flow.derived.isdisjoint(call.reads):
            self.flow.derived.update(writes)
        self.flow.calls.append(replace(call, writes=writes))

    def start(self, example_input: Tensor) -> None:
        self.flow.derived.add(self._value(example_input))

    def finish(self, result: object) -> Flow:
        self.flow.result = result
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
        kind = kind_of(func, args, kwargs)
        place = recorder.tally.place(kind or "")
        recorder.depth += 1  # A function may call others: one record is enough.
        try:
            result = func(*args, **kwargs)
        finally:
            recorder.depth -= 1
        if func.__name__ not in _LOOKS_ONLY or _tensors(result):  # `x.T` is a `__get__` too
            call = Call(None, None, reads, (), kind or func.__name__, place, args, kwargs, result)
            recorder.add(call, result)
        return result


def record_flow(module: nn.Module, example_input: Tensor, is_leaf: _LeafTest) -> Flow:
    """Run `module` once, in evaluation mode, and return what flowed where.

    Args:
        module: Any network that takes one tensor. Left as it was.
        example_input: One batch the network accepts.
        is_leaf: Which modules to see as one call. PyTorch's own modules without children are,
            unless they are convolutions, linears or batch norms.
    """
    recorder = _Recorder()
    handles = []
    pending: list[tuple[int, ...]] = []

    def before(path: str, is_one: bool, _module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        if not recorder.depth:
            recorder.tally.enter(path)
            pending.append(recorder.reads((args, kwargs)))
        recorder.depth += is_one

    def after(
        path: str,
        is_one: bool,
        part: nn.Module,
        args: Any,  # noqa: ANN401
        kwargs: Any,  # noqa: ANN401
        result: Any,  # noqa: ANN401
    ) -> None:
        del args, kwargs
        recorder.depth -= is_one
        if recorder.depth:
            return
        recorder.tally.leave()
        reads = pending.pop()
        if is_one:
            recorder.add(Call(path, part, reads, ()), result)
        else:
            span = Span(reads, recorder.reads(result))
            recorder.flow.spans.setdefault(path, []).append(span)

    for name, child in module.named_modules():
        is_one = is_leaf(child) or is_opaque(child)
        for register, hook in (
            (child.register_forward_pre_hook, before),
            (child.register_forward_hook, after),
        ):
            handles.append(register(partial(hook, name, is_one), with_kwargs=True))
    try:
        with evaluating(module), torch.no_grad(), _FunctionRecorder(recorder):
            recorder.start(example_input)
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


def is_opaque(module: nn.Module) -> bool:
    """Whether nothing inside of `module` needs to be seen."""
    is_torch = type(module).__module__.startswith("torch.nn.modules.")
    has_children = next(module.children(), None) is not None
    return is_torch and not has_children and not isinstance(module, _WATCHED)


# What these do may differ from what their type says: see `bitscout.quantization.survey`.
_WATCHED = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)
_LeafTest = Callable[[nn.Module], bool]
