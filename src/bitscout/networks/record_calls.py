# SPDX-License-Identifier: Apache-2.0
"""Watch one forward pass and write down every PyTorch function it calls.

Against a symbolic trace (`torch.fx`) this follows ordinary Python: branches, loops and shapes
computed in ``forward``; against `torch.export` it keeps modules, their paths and the line of
source. The price is that one path is seen, the one an input of this shape takes in evaluation
mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bitscout.errors import BitscoutError, UnsupportedError
from bitscout.networks.calls import (
    CHANGED_THROUGH_VIEW,
    Call,
    CallRecord,
    Origin,
    Value,
)
from bitscout.networks.source_lines import failed_line, running_line
from bitscout.quantization.flow import evaluating

__all__ = ["record_calls"]

# What turns tensors into Python numbers: from there on the network depends on the image.
_READS_NUMBERS: Final = frozenset(
    ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "equal")
)
# Other names of a function; what is not here loses its underscores alone.
_SYNONYMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("iadd", "radd"), "add"),
    **dict.fromkeys(("isub", "subtract"), "sub"),
    **dict.fromkeys(("imul", "rmul", "multiply"), "mul"),
    **dict.fromkeys(("truediv", "itruediv", "true_divide", "divide"), "div"),
    "rtruediv": "rdiv",
    **dict.fromkeys(("concat", "concatenate"), "cat"),
    "imatmul": "matmul",
    "negative": "neg",
    "clip": "clamp",
    "swapaxes": "transpose",
    "swapdims": "transpose",
}


def record_calls(
    module: nn.Module, input_shape: tuple[int, ...], *, batch_size: int = 2
) -> CallRecord:
    """Run `module` once and return every function it called.

    It runs in evaluation mode, without gradients, on its own device, on seeded noise, and is left
    as it was.

    Args:
        module: Any network that takes one tensor of images.
        input_shape: Shape of one input without the batch, ``(C, H, W)`` or ``(features,)``.
        batch_size: Number of inputs, >= 1. Two tell the batch from dimensions of size 1.

    Raises:
        UnsupportedError: If the module does not run on such an input; with the line of the user's
            code where it failed.
    """
    tensor = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    images = torch.randn((batch_size, *input_shape), generator=torch.Generator().manual_seed(0))
    images = images.to(device=tensor.device, dtype=tensor.dtype)
    recorder = _Recorder(module)
    # Tensors of inference mode do not count the writes to them.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        evaluating(module),
        _hooks(module, recorder),
    ):
        start = recorder.new_value(images, "input")
        try:
            with recorder, _CompiledCalls(recorder):
                result = module(images)
        except BitscoutError:
            raise
        except Exception as error:  # Anything may happen in foreign code.
            raise _failure(error, recorder, input_shape) from error
        output = recorder.replaced(result)
    return CallRecord(
        module, tuple(recorder.calls), start, output, tuple(dict.fromkeys(recorder.number_reads))
    )


class _Recorder(TorchFunctionMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.number_reads: list[str] = []
        self.modules: list[tuple[str, nn.Module]] = [("", network)]
        self.depth = 0  # > 0 inside a function
        self._n_values = 0
        # By `id`: its value, and its version, which counts the writes to its memory by any view.
        self._values: dict[int, tuple[Value, int]] = {}
        # By memory: the last value that was written in place there.
        self._written: dict[int, Value] = {}
        # NOTE: keeping every tensor alive is what makes its `id` a name for it.
        self._alive: list[Tensor] = []
        parameters = network.named_parameters(remove_duplicate=False)
        for tensors in (parameters, network.named_buffers(remove_duplicate=False)):
            for name, tensor in tensors:
                if id(tensor) not in self._values:
                    self.new_value(tensor, "weights", name)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever `func` returns
        """Call `func` and write it down if it makes a tensor."""
        if self.depth:
            return func(*args, **(kwargs or {}))
        raw_name = getattr(func, "__name__", str(func))
        return self.watch(func, _name(func, raw_name), raw_name, args, kwargs or {})

    def watch(
        self,
        func: Callable[..., Any],
        name: str,
        raw_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401  # whatever `func` returns
        """Call `func` and write it down as `name` if it makes a tensor."""
        tensors = list(_tensors((args, kwargs)))
        before = self.replaced(args), self.replaced(kwargs)
        known = [self._values[id(tensor)] for tensor in tensors]
        if raw_name in _READS_NUMBERS and any(value.is_result for value, _ in known):
            self.number_reads.append(running_line(record_calls.__code__))
        self.depth += 1  # A function may call others: one record is enough.
        try:
            result = func(*args, **kwargs)
        finally:
            self.depth -= 1
        changed = [
            t for t, (_, version) in zip(tensors, known, strict=True) if _is_new(t, version)
        ]
        made = [tensor for tensor in _tensors(result) if self._is_unknown(tensor)]
        if changed or made:
            origin = _origin(value for value, _ in known)
            self._add(name, before, (result, changed), origin)
        return result

    def _add(
        self,
        function: str,
        before: tuple[Any, Any],
        after: tuple[object, list[Tensor]],
        origin: Origin,
    ) -> None:
        result, changed = after
        for tensor in dict.fromkeys(changed):
            value = self.new_value(tensor, origin)
            self._written[_memory(tensor)] = value
        for tensor in _tensors(result):
            if self._is_unknown(tensor):
                self.new_value(tensor, origin)
        path, module = self.modules[-1]
        returned: Any = changed[0] if result is None and changed else result
        self.calls.append(
            Call(
                index=len(self.calls),
                function=function,
                args=before[0],
                kwargs=before[1],
                result=self.replaced(returned),
                path=path,
                module=module,
                line=running_line(record_calls.__code__),
                is_in_place=bool(changed),
            )
        )

    def new_value(self, tensor: Tensor, origin: Origin, name: str = "") -> Value:
        """Return a new value for a tensor that was made or changed."""
        self._alive.append(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        value = Value(self._n_values, tuple(tensor.shape), origin, name, is_parameter)
        self._n_values += 1
        self._values[id(tensor)] = value, tensor._version
        return value

    def replaced(self, structure: Any) -> Any:  # noqa: ANN401  # any arguments
        """Return `structure` with a value for each tensor."""
        if isinstance(structure, Tensor):
            return self._value(structure)
        if isinstance(structure, Mapping):
            return {key: self.replaced(item) for key, item in structure.items()}
        if isinstance(structure, list):  # As an index, a list is not a tuple.
            return [self.replaced(item) for item in structure]
        if isinstance(structure, tuple):
            return tuple(self.replaced(item) for item in structure)
        return structure

    def _value(self, tensor: Tensor) -> Value:
        known = self._values.get(id(tensor))
        if known is None:  # Made before the forward pass, and registered nowhere.
            return self.new_value(tensor, "constant")
        value, version = known
        if not _is_new(tensor, version):
            return value
        return self._through_view(tensor, value)

    def _through_view(self, tensor: Tensor, value: Value) -> Value:
        """Write down that `tensor` has changed because a view of it, or its base, has."""
        written = self._written.get(_memory(tensor))
        read = (value,) if written is None else (value, written)
        changed = self.new_value(tensor, _origin(read))
        path, module = self.modules[-1]
        self.calls.append(
            Call(
                len(self.calls),
                CHANGED_THROUGH_VIEW,
                read,
                {},
                changed,
                path,
                module,
                running_line(record_calls.__code__),
                True,
            )
        )
        return changed

    def _is_unknown(self, tensor: Tensor) -> bool:
        return id(tensor) not in self._values


class _CompiledCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Sees what no Python function calls: the operators of ``torch.jit.script``."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # torch's own signature
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call `func`, and write it down if nobody else does."""
        kwargs = kwargs or {}
        if self._recorder.depth:
            return func(*args, **kwargs)
        raw_name = func._schema.name.partition("::")[2]
        return self._recorder.watch(func, _plain_name(raw_name), raw_name, args, kwargs)


def _origin(values: Iterable[Value]) -> Origin:
    origins = {value.origin for value in values}
    if "input" in origins:
        return "input"
    return "weights" if "weights" in origins else "constant"


def _is_new(tensor: Tensor, version: int) -> bool:
    return tensor._version != version


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _name(func: Callable[..., Any], name: str) -> str:
    if name == "__get__":  # Reading an attribute, ``x.mT``.
        return f".{func.__self__.__name__}"  # type: ignore[attr-defined]
    return _plain_name(name)


def _plain_name(name: str) -> str:
    plain = name.strip("_")
    return _SYNONYMS.get(plain, plain)


def _failure(
    error: Exception, recorder: _Recorder, input_shape: tuple[int, ...]
) -> UnsupportedError:
    """Return an error that names the line of the user's code where `error` came up."""
    failed = failed_line(error)
    path, module = recorder.modules[-1]
    where = f"{type(module).__name__} {path!r}" if path else f"the {type(module).__name__}"
    line = f" ({failed})" if failed else ""
    shape = "x".join(map(str, input_shape))
    said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    msg = (
        f"The network does not run on an input of {shape}: in {where}{line}, "
        f"{type(error).__name__}: {said}. Give the input shape that the network expects, or "
        "mend its forward there."
    )
    return UnsupportedError(msg)


@contextmanager
def _hooks(module: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keep ``recorder.modules`` the stack of modules that are running, with their paths."""
    handles = []
    for path, part in module.named_modules():
        entry = (path, part)

        def enter(_module: nn.Module, _args: object, entry: tuple[str, nn.Module] = entry) -> None:
            recorder.modules.append(entry)

        def leave(_module: nn.Module, _args: object, _output: object) -> None:
            recorder.modules.pop()

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(structure: object) -> Iterator[Tensor]:
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from _tensors(item)
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from _tensors(item)
