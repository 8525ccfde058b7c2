# SPDX-License-Identifier: Apache-2.0
"""From any module to its layers and the operations between them.

The module runs once on zeros while every PyTorch function it calls is watched. Against a symbolic
trace (`torch.fx`) this follows ordinary Python: branches, loops and shapes computed in
``forward``. Against module hooks it sees what is written as a function: ``a + b``, ``torch.cat``,
``x.mean((2, 3))``. The price is that one path is seen, the one an input of this shape takes.

The graph is for looking: the module stays itself. An operation the graph has no word for is an
error, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bitscout.core import Layer, LayerGraph, Node, Op
from bitscout.errors import UnsupportedError
from bitscout.networks.trace_ops import OPS, PASSING, WINDOWED

__all__ = ["trace"]

_BATCH_NORM = "batch_norm"


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> LayerGraph:
    """Return every layer of `module` with its shapes, and the operations that connect them.

    The module is run once in evaluation mode, without gradients, on its own device, and is left
    as it was. A batch norm right after a layer counts as folded: it gives the layer a bias.

    Nodes are named by the module that computes them; an operation written in the ``forward`` of
    a larger module by that module's path and the operation, ``stage1.0.add``.

    Args:
        module: Any network of two-dimensional convolutions, linear layers, batch norms,
            activations, poolings, residual additions and channel concatenations.
        input_shape: Shape of one input without the batch, ``(C, H, W)`` or ``(features,)``.

    Raises:
        UnsupportedError: If the module cannot run on this shape, or does something the graph
            cannot express; the message names the operation and the module.
    """
    tensor = next(module.parameters(), torch.zeros(()))
    image = torch.zeros((1, *input_shape), dtype=tensor.dtype, device=tensor.device)
    watcher = _Watcher(image)
    with torch.no_grad(), _evaluation_mode(module), _hooks(module, watcher), watcher:
        try:
            module(image)
        except RuntimeError as error:
            msg = f"The network does not run on an input of shape {input_shape}: {error}"
            raise UnsupportedError(msg) from error
    return LayerGraph(tuple(watcher.layers.values()), tuple(watcher.nodes.values()))


class _Watcher(TorchFunctionMode):
    """Writes down what each function does to the tensors that come from the input."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self.nodes: dict[str, Node] = {}
        self.modules: list[tuple[str, nn.Module]] = []
        # By `id` of a tensor: the node it comes from, and the layer where it is its raw output.
        self._source: dict[int, str] = {}
        self._raw: dict[int, str] = {}
        # Height and width before padding, of padded tensors.
        self._unpadded: dict[int, tuple[int, int]] = {}
        # NOTE: keeping every tensor alive is what makes its `id` a name for it.
        self._alive: list[Tensor] = []
        self._add_node("input", "input", (), image)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever `func` returns
        """Call `func` and write down what it did."""
        kwargs = kwargs or {}
        read = [t for t in _tensors((*args, *kwargs.values())) if id(t) in self._source]
        n_dims = read[0].dim() if read else 0
        result = func(*args, **kwargs)
        if read and any(True for _ in _tensors((result,))):
            name = getattr(func, "__name__", str(func))
            window = args[1] if len(args) > 1 else kwargs.get("kernel_size")
            self._record(name, read, result, n_dims, window)
        return result

    def _record(
        self, name: str, read: list[Tensor], result: object, n_dims: int, window: object
    ) -> None:
        """Add what ``result = name(*read)`` means.

        Args:
            name: Of the function.
            read: The tensors that come from the input.
            result: What it gave.
            n_dims: Of the first tensor, before the call.
            window: Second argument; the window of a function with one.
        """
        op = OPS.get(name)
        if not isinstance(result, Tensor):
            raise self._unsupported(name, "gives several tensors")
        if name == _BATCH_NORM:
            self._fold(read[0], result)
        elif name in PASSING and len(read) == 1:
            self._pass_on(read[0], result)
        elif op is None:
            raise self._unsupported(name, "has no place in a layer graph")
        elif op in ("conv", "linear"):
            self._add_layer(op, read, result)
        elif op == "flatten" and n_dims == result.dim():
            self._pass_on(read[0], result)
        else:
            self._check_operation(name, op, read, result, n_dims)
            kernel = _window(window) if name in WINDOWED else None
            self._add_node(self._free_name(op), op, self._sources(read), result, kernel)

    def _check_operation(
        self, name: str, op: Op, read: list[Tensor], result: Tensor, n_dims: int
    ) -> None:
        """Reject uses of a known function that the graph's operation does not mean."""
        batch, *shape = result.shape
        pixels_in, pixels_out = n_dims - 2, len(shape) - 1
        problem = ""
        if op == "add" and (len(read) != 2 or read[0].shape != read[1].shape):
            problem = "adds something else than two results of the same shape"
        elif op == "flatten" and (pixels_out or batch != 1 or result.numel() != shape[0]):
            problem = "reshapes to something else than (n, features)"
        elif op in ("avg_pool", "max_pool") and (
            pixels_in != 2 or pixels_out not in (0, 2) or shape[0] != read[0].shape[1]
        ):
            problem = "does not pool over height and width"
        elif op == "concat" and shape[0] != sum(tensor.shape[1] for tensor in read):
            problem = "joins something else than channels"
        if problem:
            raise self._unsupported(name, problem)

    def _add_layer(self, kind: Literal["conv", "linear"], read: list[Tensor], y: Tensor) -> None:
        path, module = self._module
        x = read[0]
        if path in self.layers:
            raise self._unsupported(kind, "is called twice: its two uses would share one name")
        if isinstance(module, nn.Conv2d) and len(read) == 1 and x.dim() == 4:
            self.layers[path] = Layer(
                name=path,
                kind="conv",
                in_channels=module.in_channels,
                out_channels=module.out_channels,
                kernel=_pair(module.kernel_size),
                stride=_pair(module.stride),
                groups=module.groups,
                input_size=self._unpadded.get(id(x), _pair(x.shape[2:])),
                output_size=_pair(y.shape[2:]),
                has_bias=module.bias is not None,
                dilation=_pair(module.dilation),
            )
        elif isinstance(module, nn.Linear) and len(read) == 1 and x.dim() == 2:
            self.layers[path] = Layer(
                path,
                "linear",
                module.in_features,
                module.out_features,
                has_bias=module.bias is not None,
            )
        else:
            raise self._unsupported(
                kind, "is no Conv2d on (n, C, H, W) and no Linear on (n, features)"
            )
        self._add_node(path, kind, self._sources(read), y)
        self._raw[id(y)] = path

    def _fold(self, x: Tensor, y: Tensor) -> None:
        layer = self._raw.get(id(x))
        if layer is None:
            problem = "does not follow a layer directly, so it cannot be folded into one"
            raise self._unsupported(_BATCH_NORM, problem)
        self.layers[layer] = replace(self.layers[layer], has_bias=True)
        self._pass_on(x, y)

    def _pass_on(self, x: Tensor, y: Tensor) -> None:
        """Let `y` stand for the node `x` came from; the padding `x` has is not counted."""
        self._name(y, self._source[id(x)])
        if x.dim() == 4 and y.shape != x.shape:
            self._unpadded[id(y)] = self._unpadded.get(id(x), _pair(x.shape[2:]))

    def _add_node(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        y: Tensor,
        kernel: tuple[int, int] | None = None,
    ) -> None:
        self.nodes[name] = Node(name, op, inputs, tuple(y.shape[1:]), kernel)
        self._name(y, name)

    def _name(self, y: Tensor, source: str) -> None:
        self._alive.append(y)
        self._source[id(y)] = source
        # A tensor changed in place is no longer the raw output of its layer.
        self._raw.pop(id(y), None)

    def _sources(self, read: list[Tensor]) -> tuple[str, ...]:
        return tuple(self._source[id(tensor)] for tensor in read)

    def _free_name(self, op: Op) -> str:
        path, module = self._module
        is_leaf = next(module.children(), None) is None
        name = path if is_leaf and path else f"{path}.{op}".lstrip(".")
        taken = sum(other == name or other.startswith(f"{name}_") for other in self.nodes)
        return f"{name}_{taken}" if name in self.nodes else name

    @property
    def _module(self) -> tuple[str, nn.Module]:
        return self.modules[-1]

    def _unsupported(self, name: str, problem: str) -> UnsupportedError:
        path, module = self._module
        where = f"{type(module).__name__} {path!r}" if path else f"the {type(module).__name__}"
        msg = (
            f"Cannot trace `{name}` in {where}: it {problem}. Use Conv2d, Linear, BatchNorm "
            "directly after them, activations, average or max pooling, flatten, addition of two "
            "results, and concatenation of channels."
        )
        return UnsupportedError(msg)


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and back to the mode each part was in."""
    was_training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in was_training.items():
            part.training = training


@contextmanager
def _hooks(module: nn.Module, watcher: _Watcher) -> Iterator[None]:
    """Keep ``watcher.modules`` the stack of modules that are running, with their paths."""
    handles = []
    for path, part in module.named_modules():
        entry = (path, part)

        def enter(_module: nn.Module, _args: object, entry: tuple[str, nn.Module] = entry) -> None:
            watcher.modules.append(entry)

        def leave(_module: nn.Module, _args: object, _output: object) -> None:
            watcher.modules.pop()

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _window(size: Any) -> tuple[int, int]:  # noqa: ANN401  # as PyTorch's poolings take it
    """Return height and width from one number, or a sequence of one or two."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return int(sizes[0]), int(sizes[-1])


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)
