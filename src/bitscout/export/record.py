# SPDX-License-Identifier: Apache-2.0
"""What a prepared network does, call by call, seen in one forward pass.

The network runs once while its quantized modules and every PyTorch function outside of them are
written down, with their arguments and the line of source they were called from. This follows any
Python a ``forward`` holds, so it records what `torch.fx` and `torch.export` can trace and more;
like `torch.export` it sees the one path that an input of this shape takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bitscout import quantization
from bitscout.errors import BitscoutError, UnsupportedError
from bitscout.export.recording import Call, Recording, Value
from bitscout.quantization import QuantModule
from bitscout.quantization.flow import evaluating

__all__ = ["record"]

_TORCH = str(Path(torch.__file__).parent)
# Where functions are sent to quantized modules, see `function_sites` there.
_QUANTIZATION = str(Path(quantization.__file__).parent)
# What turns tensors into Python numbers: from there on the network depends on the image.
_READS_NUMBERS = {"item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"}


def record(module: nn.Module, images: Tensor) -> Recording:
    """Run `module` once in evaluation mode, without gradients, and return what it did.

    Args:
        module: A network with quantized modules in it. Left as it was.
        images: A batch the network accepts.

    Raises:
        UnsupportedError: If the network does not run on the images, or reads their values.
    """
    recorder = _Recorder()
    result = None
    # Tensors of inference mode do not count the writes to them.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        evaluating(module),
        _hooks(module, recorder),
    ):
        images = images.clone()
        value = recorder.new_value(images)
        try:
            with recorder:
                result = module(images)
        except BitscoutError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            msg = f"The network does not run on an input of shape {tuple(images.shape)}: {error}"
            raise UnsupportedError(msg) from error
    return Recording(tuple(recorder.calls), value, recorder.replaced(result))


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.modules: list[tuple[str, nn.Module]] = []
        self.depth = 0  # > 0 inside a quantized module
        # The version of a tensor counts the writes to its memory, by any of its views.
        self._values: dict[int, tuple[Value, int]] = {}
        self._alive: list[Tensor] = []  # An id names a tensor only as long as it lives.

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever `func` returns
        """Call `func` and write it down if it makes a tensor from one that is known."""
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        name = _name(func)
        read = self.replaced(args), self.replaced(kwargs)
        is_known = any(True for _ in _find(read, Value))
        if is_known and name in _READS_NUMBERS:
            self._refuse_numbers(name)
        result = func(*args, **kwargs)
        if is_known and any(True for _ in _find(result, Tensor)):
            self.add(name, *read, result)
        return result

    def add(self, function: str, args: Any, kwargs: Any, result: object) -> None:  # noqa: ANN401
        """Write down a call; its arguments are replaced already."""
        path, module = self.modules[-1]
        for tensor in _find(result, Tensor):
            self.new_value(tensor)
        self.calls.append(
            Call(function, module, path, _line(), args, kwargs, self.replaced(result))
        )

    def new_value(self, tensor: Tensor) -> Value:
        """Return a new value for a tensor that was made or changed."""
        self._alive.append(tensor)
        value = Value(len(self._alive), tuple(tensor.shape[1:]))
        self._values[id(tensor)] = value, tensor._version
        return value

    def replaced(self, structure: Any) -> Any:  # noqa: ANN401  # any arguments
        """Return `structure` with the tensors that come from the input as values."""
        if isinstance(structure, Tensor):
            return self._replaced_tensor(structure)
        if isinstance(structure, Mapping):
            return {key: self.replaced(item) for key, item in structure.items()}
        if isinstance(structure, list | tuple):
            return tuple(self.replaced(item) for item in structure)
        return structure

    def _replaced_tensor(self, tensor: Tensor) -> Value | Tensor:
        if id(tensor) not in self._values:
            return tensor
        value, version = self._values[id(tensor)]
        if tensor._version != version:
            msg = (
                f"Cannot lower what {self._where()} does: a tensor it reads was changed through "
                "a view of it, or by assigning to a part of it. Use the result of the change."
            )
            raise UnsupportedError(msg)
        return value

    def _refuse_numbers(self, name: str) -> None:
        what = "a decision" if name == "__bool__" else "a Python number"
        msg = (
            f"Cannot lower `{name.strip('_')}` in {self._where()}: it makes {what} of "
            "activations, so what the network computes depends on the image. Rewrite the "
            "forward without it."
        )
        raise UnsupportedError(msg)

    def _where(self) -> str:
        path, module = self.modules[-1] if self.modules else ("", None)
        line = _line()
        named = f" {path!r}" if path else ""
        return f"{type(module).__name__}{named}{f' ({line})' if line else ''}"


def _name(func: Callable[..., Any]) -> str:
    name: str = getattr(func, "__name__", str(func))
    # Reading an attribute, ``x.mT``.
    return f".{func.__self__.__name__}" if name == "__get__" else name  # type: ignore[attr-defined]


def _line() -> str:
    """Return ``file:line`` of the innermost frame that is neither ours nor PyTorch's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not record.__code__:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith((_TORCH, _QUANTIZATION, "<")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@contextmanager
def _hooks(module: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keep the stack of running modules, and see a quantized module as one call."""
    handles = []
    pending: list[tuple[Any, Any]] = []
    for path, part in module.named_modules():

        def enter(
            part: nn.Module,
            args: object,
            kwargs: object,
            *,
            path: str = path,
        ) -> None:
            recorder.modules.append((path, part))
            if isinstance(part, QuantModule):
                pending.append((recorder.replaced(args), recorder.replaced(kwargs)))
                recorder.depth += 1

        def leave(part: nn.Module, _args: object, _kwargs: object, result: object) -> None:
            if isinstance(part, QuantModule):
                recorder.depth -= 1
                recorder.add("", *pending.pop(), result)
            recorder.modules.pop()

        handles += [
            part.register_forward_pre_hook(enter, with_kwargs=True),
            part.register_forward_hook(leave, with_kwargs=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _find(structure: object, kind: type) -> Iterator[Any]:
    if isinstance(structure, kind):
        yield structure
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from _find(item, kind)
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from _find(item, kind)
