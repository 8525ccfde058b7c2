# SPDX-License-Identifier: Apache-2.0
"""From a trained fake-quantized network to its integer graph.

Nothing is approximated: weights, biases and ranges are taken as they are, and an operation whose
integers would not be exactly what the network computes in real numbers is refused by name.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from bitscout.errors import TrainingError, UnsupportedError
from bitscout.export.assemble import Assembler
from bitscout.export.bounds import check_no_overflow
from bitscout.export.expressions import (
    Clamped,
    Expr,
    Flat,
    Image,
    Joined,
    MaxPooled,
    Padded,
    Term,
    Total,
)
from bitscout.export.functions import HANDLERS, Averaged
from bitscout.export.graph import Conv, Grid, IntegerGraph, Linear
from bitscout.export.record import Call, Recording, Value, record
from bitscout.quantization import (
    ActivationQuantizer,
    QuantAdd,
    QuantAvgPool,
    QuantConv2d,
    QuantizedLayer,
    QuantLinear,
    QuantModule,
)

__all__ = ["lower"]

_ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
_ADVICE = (
    "Use Conv2d, Linear, BatchNorm directly behind them, ReLU, ReLU6, addition, concatenation of "
    "channels, max, average and adaptive pools, flatten, dropout and identity."
)


def lower(module: nn.Module, example_input: Tensor) -> IntegerGraph:
    """Return the integer graph of a prepared, calibrated and perhaps fine-tuned network.

    Args:
        module: Result of `bitscout.quantization.post_training_quantize`, or of `prepare` and
            `calibrate`. Not changed.
        example_input: Images the network accepts, shape ``(N, C, H, W)`` or ``(N, features)``;
            only their shape counts.

    Raises:
        UnsupportedError: Naming an operation that has no exact integer form, with its line of
            source and what to do, or a layer whose sums could overflow an int32.
        ConfigError: If the network was never calibrated.
        TrainingError: If a weight or a step is not finite.
    """
    if not any(isinstance(child, QuantModule) for child in module.modules()):
        msg = "There is no quantized module in this network: call `prepare` and `calibrate` first."
        raise UnsupportedError(msg)
    # Two images, so that a reshape that mixes images shows.
    images = example_input[:1].expand(2, *example_input.shape[1:])
    _check_finite(module)
    graph = _Lowering(record(module, images)).run()
    check_no_overflow(graph)
    return graph


class _Lowering:
    """Follow a recording, call by call."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._graph = Assembler()
        self._exprs: dict[int, Expr] = {}

    def run(self) -> IntegerGraph:
        image = self._recording.input
        self._exprs[image.index] = Image(image.shape)
        for call in self._recording.calls:
            try:
                expr = self._lower(call)
            except UnsupportedError as error:
                msg = f"Cannot lower {call.describe()}: {error}"
                raise UnsupportedError(msg) from error
            self._exprs[call.result.index] = expr
        output = self._recording.output
        if not isinstance(output, Value):
            msg = "The network must return one tensor that depends on its input."
            raise UnsupportedError(msg)
        return self._graph.finish(self._exprs[output.index], "")

    def _lower(self, call: Call) -> Expr:
        if not isinstance(call.result, Value):
            _refuse(f"it gives several tensors. {_ADVICE}")
        if not call.function:
            return self._lower_module(call)
        args = self._replace(call.args)
        kwargs = {key: self._replace(item) for key, item in call.kwargs.items()}
        if call.function in _ADDITIONS:
            return self._add(call, *args, **kwargs)
        handler = HANDLERS.get(call.function)
        if handler is None:
            _refuse(f"it has no integer form. {_ADVICE}")
        try:
            expr = handler(call.result.shape, *args, **kwargs)
        except TypeError as error:
            _refuse(f"it is called in a way not known here ({error}).")
        if isinstance(expr, Averaged):
            return self._average(expr, self._name(call))
        return expr

    def _replace(self, structure: object) -> Any:  # noqa: ANN401  # as the arguments
        """Return arguments with expressions for values; other tensors stay, and are refused."""
        if isinstance(structure, Value):
            return self._exprs[structure.index]
        if isinstance(structure, tuple):
            return tuple(self._replace(item) for item in structure)
        if isinstance(structure, Tensor):
            _refuse("it takes a tensor that does not come from the input.")
        return structure

    def _add(self, call: Call, a: object, b: object, alpha: float = 1) -> Expr:
        if isinstance(a, _EXPRS) and isinstance(b, int | float) and b == 0:
            return a  # `sum([a, b])` begins so.
        if not isinstance(a, _EXPRS) or not isinstance(b, _EXPRS) or alpha != 1:
            _refuse("it adds something else than two results.")
        if a.shape != b.shape:
            _refuse(f"it adds shapes {a.shape} and {b.shape}. Make them equal.")
        name = self._name(call)
        terms = self._graph.total(a, name).terms + self._graph.total(b, name).terms
        return Total(a.shape, terms)

    def _average(self, average: Averaged, name: str) -> Total:
        terms = []
        for term in self._graph.total(average.source, name).terms:
            if term.divisor.ndim:
                _refuse("it averages averages of windows that differ in size.")
            tensor = self._graph.sum_pool(term, _map(average.shape), average.windows, name)
            terms.append(Term(tensor, term.scale, term.divisor * average.divisor))
        total = Total(_map(average.shape), tuple(terms))
        if len(average.shape) == 3:
            return total
        return self._graph.total(Flat(average.shape, total), name)

    def _name(self, call: Call) -> str:
        """Return a name for what a function makes: the module's path, and the function."""
        is_leaf = next(call.module.children(), None) is None
        name = call.function.strip("_")
        return call.path if is_leaf and call.path else f"{call.path}.{name}".lstrip(".")

    def _lower_module(self, call: Call) -> Expr:
        sources = [self._replace(arg) for arg in call.args]
        if call.kwargs or not all(isinstance(source, _EXPRS) for source in sources):
            _refuse("it does not read results of the network alone.")
        match call.module:
            case QuantConv2d() as layer:
                return self._conv(layer, sources[0], call)
            case QuantLinear() as layer:
                return self._linear(layer, sources[0], call)
            case QuantAdd() as add:
                return self._quantized_add(add, sources, call)
            case QuantAvgPool() as pool:
                return self._quantized_pool(pool, sources[0], call)
        msg = f"it has no integer form. {_ADVICE}"
        raise UnsupportedError(msg)

    def _conv(self, layer: QuantConv2d, source: Expr, call: Call) -> Total:
        if layer.padding_mode != "zeros":
            _refuse(f"it pads by {layer.padding_mode!r}. Use padding_mode='zeros'.")
        left, right, top, bottom = layer.explicit_padding
        pads = [layer.padding[0] + top, layer.padding[1] + left]
        pads += [layer.padding[0] + bottom, layer.padding[1] + right]
        # Zeros are zeros on either side of a ReLU.
        source, outer = _without_padding(source)
        pads = [inner + more for inner, more in zip(pads, outer, strict=True)]
        name = self._graph.free_name(layer.name or "conv")
        x = self._quantize(source, layer.input_quantizer, f"{name}.input")
        scale, grid = self._sums(layer)
        top, left, bottom, right = pads
        tensor = self._graph.add(
            Conv(
                name=name,
                inputs=(x,),
                shape=_map(call.result.shape),
                grid=grid,
                weight=layer.weight_codes().cpu().numpy(),
                weight_bits=layer.weight_quantizer.bit_width,
                weight_scale=scale,
                bias=_bias(layer),
                stride=layer.stride,
                pads=(top, left, bottom, right),
                dilation=layer.dilation,
                groups=layer.groups,
            )
        )
        return Total(call.result.shape, (Term(tensor, grid.scale),))

    def _linear(self, layer: QuantLinear, source: Expr, call: Call) -> Total:
        if len(source.shape) != 1:
            msg = f"it reads shape {source.shape}. Flatten to (n, features) before a Linear."
            raise UnsupportedError(msg)
        name = self._graph.free_name(layer.name or "linear")
        x = self._quantize(source, layer.input_quantizer, f"{name}.input")
        scale, grid = self._sums(layer)
        tensor = self._graph.add(
            Linear(
                name=name,
                inputs=(x,),
                shape=call.result.shape,
                grid=grid,
                weight=layer.weight_codes().cpu().numpy(),
                weight_bits=layer.weight_quantizer.bit_width,
                weight_scale=scale,
                bias=_bias(layer),
            )
        )
        return Total(call.result.shape, (Term(tensor, grid.scale),))

    def _sums(self, layer: QuantizedLayer) -> tuple[npt.NDArray[np.float64], Grid]:
        weight_scale = layer.weight_quantizer.steps().detach().double().cpu().numpy()
        return weight_scale, Grid.sums(layer.bias_steps().cpu().numpy())

    def _quantized_add(self, add: QuantAdd, sources: list[Expr], call: Call) -> Total:
        if sources[0].shape != sources[1].shape:
            shapes = f"{sources[0].shape} and {sources[1].shape}"
            _refuse(f"it adds shapes {shapes}. Make them equal.")
        tensors = [
            self._quantize(source, quantizer, f"{add.name or 'add'}.{side}")
            for source, quantizer, side in zip(sources, add.input_quantizers(), "ab", strict=True)
        ]
        terms = tuple(Term(name, self._graph[name].grid.scale) for name in tensors)
        return Total(call.result.shape, terms)

    def _quantized_pool(self, pool: QuantAvgPool, source: Expr, call: Call) -> Total:
        name = pool.name or "pool"
        x = self._quantize(source, pool.input_quantizer, f"{name}.input")
        codes = Total(source.shape, (Term(x, self._graph[x].grid.scale),))
        inner = pool.pool
        shape = call.result.shape
        if isinstance(inner, nn.AdaptiveAvgPool2d):
            average = HANDLERS["adaptive_avg_pool2d"](shape, codes)
        else:
            average = HANDLERS["avg_pool2d"](
                shape,
                codes,
                inner.kernel_size,
                inner.stride,
                inner.padding,
                inner.ceil_mode,
                inner.count_include_pad,
                inner.divisor_override,
            )
        assert isinstance(average, Averaged)
        return self._average(average, name)

    def _quantize(self, expr: Expr, quantizer: ActivationQuantizer, name: str) -> str:
        step, low, high = quantizer.grid()
        if not (math.isfinite(step) and step > 0):
            _refuse(f"its input has a step of {step}. Calibrate again.")
        grid = Grid(np.array(step), quantizer.bit_width, low, high)
        return self._graph.quantize(expr, grid, name)


def _refuse(problem: str) -> NoReturn:
    """Raise; `run` adds what was called, and where."""
    raise UnsupportedError(problem)


def _map(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a pool's result before its pixel dimensions are dropped."""
    return shape if len(shape) == 3 else (*shape, 1, 1)


def _without_padding(expr: Expr) -> tuple[Expr, tuple[int, int, int, int]]:
    """Take padding off what a convolution reads; a ReLU leaves zeros as they are."""
    if isinstance(expr, Padded):
        source, inner = _without_padding(expr.source)
        top, left, bottom, right = (a + b for a, b in zip(expr.pads, inner, strict=True))
        return source, (top, left, bottom, right)
    if isinstance(expr, Clamped) and expr.low <= 0 <= expr.high:
        source, pads = _without_padding(expr.source)
        if any(pads):
            return Clamped(source.shape, source, expr.low, expr.high), pads
    return expr, (0, 0, 0, 0)


def _bias(layer: QuantizedLayer) -> npt.NDArray[np.int64] | None:
    codes = layer.bias_codes()
    return None if codes is None else codes.cpu().numpy()


def _check_finite(module: nn.Module) -> None:
    """Refuse what a diverged training leaves behind."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            msg = (
                f"{name!r} holds NaN or infinite values, so it has no integer codes. Look for a "
                "diverged training, or a damaged file of weights."
            )
            raise TrainingError(msg)


_EXPRS = (Image, Total, Clamped, MaxPooled, Joined, Flat, Padded)
