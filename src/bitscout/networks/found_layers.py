# SPDX-License-Identifier: Apache-2.0
"""The layers of a forward pass: every call that multiplies a result by weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

from bitscout.core import Layer, LayerKind
from bitscout.networks.calls import Call, CallRecord, Value
from bitscout.networks.function_kinds import CONVOLUTIONS, MATRIX_PRODUCTS

__all__ = ["FoundLayer", "find_layers", "with_use"]

_RECURRENT: Final = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))
_OTHERS: Final = frozenset(
    ("bilinear", "embedding", "embedding_bag", "multi_head_attention_forward", *_RECURRENT)
)
_REMEDIES: Final = {
    "conv1d": "reshape its input to (n, C, length, 1) and use a Conv2d with a (k, 1) kernel",
    "conv_transpose2d": "use an upsampling and a Conv2d",
    "multi_head_attention_forward": "write the attention with Linear layers, matmul and softmax",
    "convolution": "call the module from Python, not from torch.jit.script",
    "embedding": "only results of Conv2d and Linear can be searched",
}


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """A convolution, linear layer or something else with weights that run on results.

    Attributes:
        layer: Its shape. What is no Conv2d and no Linear has the shape of one with as many
            weights and multiply-accumulates.
        call: The call that runs it, the first if there are several.
        x: What it reads.
        y: What it writes.
        problem: Why it is none of the two kinds that can be quantized, and what to do; or ``""``.
        n_uses: How often it runs in one forward pass.
    """

    layer: Layer
    call: Call
    x: Value
    y: Value
    problem: str = ""
    n_uses: int = 1


def find_layers(
    record: CallRecord, call: Call, unpadded: tuple[int, int] | None
) -> list[FoundLayer]:
    """Return the layers that `call` runs: one, none, or several of a larger function.

    Args:
        record: The forward pass.
        call: Any call that makes results.
        unpadded: Height and width of its operand before padding, where it was padded.
    """
    read = call.results_read
    if not read or not call.writes:
        return []
    if call.function in ("conv2d", "linear"):
        return [_plain(record, call, unpadded)]
    if call.function in CONVOLUTIONS:
        return [_other_convolution(record, call)]
    if call.function in MATRIX_PRODUCTS or call.function in _OTHERS:
        return _products(record, call)
    return []


def with_use(found: FoundLayer, again: FoundLayer) -> FoundLayer:
    """Return a layer that runs once more: its output rows one below the other."""
    one, other = found.layer, again.layer
    layer = replace(
        one,
        output_size=_stacked(one.output_size, other.output_size),
        input_size=_stacked(one.input_size, other.input_size),
        kind="conv",  # On one position after the other, if it is linear.
    )
    return replace(found, layer=layer, n_uses=found.n_uses + 1)


def _stacked(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of two maps in one, with all of their pixels."""
    if one[1] == other[1]:
        return one[0] + other[0], one[1]
    return prod(one) + prod(other), 1


def _plain(record: CallRecord, call: Call, unpadded: tuple[int, int] | None) -> FoundLayer:
    x, weight, y = _value(call, 0, "input"), _value(call, 1, "weight"), call.writes[0]
    has_bias = call.argument(2, "bias") is not None
    if call.function == "linear":
        out_channels, in_channels = (
            (weight.shape[0], weight.shape[-1]) if len(weight.shape) > 1 else (1, weight.shape[0])
        )
        n_positions = prod(x.shape) // (in_channels * record.input.shape[0])
        kind: LayerKind = "linear" if len(x.shape) == 2 and n_positions <= 1 else "conv"
        size = _positions(x, record, n_positions)
        layer = Layer(
            call.path,
            kind,
            in_channels,
            out_channels,
            input_size=size,
            output_size=size,
            has_bias=has_bias,
        )
        return FoundLayer(layer, call, x, y)
    problem = ""
    if len(x.shape) != 4:
        problem = _problem(call, "runs on a tensor without a batch", "use (n, C, H, W)")
    groups = int(call.argument(6, "groups", 1))
    height, width = _size(y)
    repeats = max(1, y.shape[0] // record.input.shape[0]) if not problem else 1
    read_size = unpadded or _size(x)
    layer = Layer(
        call.path,
        "conv",
        weight.shape[1] * groups,
        weight.shape[0],
        kernel=_pair(weight.shape[2:]),
        stride=_pair(call.argument(3, "stride", 1)),
        groups=groups,
        input_size=(read_size[0] * repeats, read_size[1]),
        output_size=(height * repeats, width),
        has_bias=has_bias,
        dilation=_pair(call.argument(5, "dilation", 1)),
    )
    return FoundLayer(layer, call, x, y, problem)


def _other_convolution(record: CallRecord, call: Call) -> FoundLayer:
    """Return a convolution of another kind, as one with the same multiply-accumulates."""
    x, weight, y = _value(call, 0, "input"), _value(call, 1, "weight"), call.writes[0]
    is_transposed = "transpose" in call.function
    # Every weight is used once a pixel: of the output, or, transposed, of the input.
    pixels = prod((x if is_transposed else y).shape[2:])
    out_channels, in_channels = y.shape[1], x.shape[1]
    kernel = prod(weight.shape[2:])
    groups = max(1, out_channels * in_channels * kernel // prod(weight.shape))
    layer = Layer(
        call.path,
        "conv",
        in_channels,
        out_channels,
        kernel=(kernel, 1),
        groups=groups,
        input_size=(prod(x.shape[2:]), 1),
        output_size=(pixels, 1),
    )
    return FoundLayer(layer, call, x, y, _no_form(call))


def _products(record: CallRecord, call: Call) -> list[FoundLayer]:
    """Return every weight of a product as a layer, none of which can be quantized."""
    weights = [
        weight
        for operand in call.reads
        if operand.origin == "weights" and len(operand.shape) > 1
        for weight in record.weights_of(operand)
        if weight.is_parameter and len(weight.shape) > 1
    ]
    x, y = call.results_read[0], call.writes[0]
    positions = max(1, prod(x.shape[1:-1]))
    return [
        FoundLayer(
            Layer(
                _owner(weight, call.path, is_first=index == 0),
                "conv",
                prod(weight.shape[1:]),
                weight.shape[0],
                input_size=(positions, 1),
                output_size=(positions, 1),
            ),
            call,
            x,
            y,
            _no_form(call),
        )
        for index, weight in enumerate(dict.fromkeys(weights))
    ]


def _owner(weight: Value, path: str, *, is_first: bool) -> str:
    if is_first:
        return path
    owner = weight.name.rpartition(".")[0]
    return owner if owner != path else weight.name


def _no_form(call: Call) -> str:
    remedy = _REMEDIES.get(call.function)
    if remedy is None:
        is_product = call.function in MATRIX_PRODUCTS
        remedy = "use a Linear" if is_product else "use Conv2d and Linear layers"
    what = "multiplies by a parameter" if call.function in MATRIX_PRODUCTS else "has weights"
    return _problem(
        call, f"{what} and is neither a two-dimensional convolution nor a linear layer", remedy
    )


def _problem(call: Call, problem: str, remedy: str) -> str:
    return f"`{call.function}` in {call.where} {problem}: {remedy}."


def _value(call: Call, position: int, name: str) -> Value:
    value = call.argument(position, name)
    assert isinstance(value, Value)
    return value


def _positions(x: Value, record: CallRecord, n_positions: int) -> tuple[int, int]:
    """Return the positions a linear layer runs on as height and width."""
    if len(x.shape) == 4 and x.shape[0] == record.input.shape[0]:
        return x.shape[1], x.shape[2]
    return max(1, n_positions), 1


def _size(value: Value) -> tuple[int, int]:
    return value.shape[-2], value.shape[-1]


def _pair(size: Any) -> tuple[int, int]:  # noqa: ANN401  # as PyTorch's functions take it
    """Return height and width from one number, or a sequence of one or two."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return int(sizes[0]), int(sizes[-1])
