# SPDX-License-Identifier: Apache-2.0
"""Which layers of a network can be quantized, and why the others cannot.

`layer_sites` is the one source of what is a layer: `prepare` takes a network if, and only if, no
layer here is refused, and a policy has exactly the names of those that are supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitscout.quantization.add import Add
from bitscout.quantization.arguments import bound, weighted
from bitscout.quantization.flow import Call, Flow, record_flow

__all__ = [
    "LayerSite",
    "is_batch_norm",
    "is_layer",
    "is_leaf",
    "layer_sites",
    "sites_of",
    "survey_flow",
]

_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_OTHER_LAYERS: Final[Mapping[type[nn.Module], str]] = {
    nn.Conv1d: "Reshape its input to (n, C, 1, length) and use a Conv2d with a (1, k) kernel.",
    nn.Conv3d: "Only two-dimensional convolutions have a quantized form.",
    nn.ConvTranspose1d: "Use an upsampling and a Conv2d.",
    nn.ConvTranspose2d: "Use an upsampling and a Conv2d.",
    nn.ConvTranspose3d: "Use an upsampling and a Conv2d.",
    nn.Bilinear: "Use Linear layers.",
    nn.RNN: "Only Conv2d and Linear have a quantized form.",
    nn.LSTM: "Only Conv2d and Linear have a quantized form.",
    nn.GRU: "Only Conv2d and Linear have a quantized form.",
}
_OTHER_FUNCTIONS: Final[Mapping[str, str]] = {
    "conv1d": "Use a Conv2d with a (1, k) kernel.",
    "conv3d": "Only two-dimensional convolutions have a quantized form.",
    "conv_transpose1d": "Use an upsampling and a Conv2d.",
    "conv_transpose2d": "Use an upsampling and a Conv2d.",
    "conv_transpose3d": "Use an upsampling and a Conv2d.",
    "bilinear": "Use Linear layers.",
}


@dataclass(frozen=True, eq=False)
class LayerSite:
    """A convolution or linear layer of a network.

    Attributes:
        name: Path of the module whose weights it uses, ``""`` for a lone layer.
        kind: ``"conv2d"``, ``"linear"``, or the class of another module.
        reason: Why it cannot be quantized and what to do, sentences; ``""`` where it can.
        stays_real: For a layer with a reason: whether `prepare` leaves it in floating point
            rather than refuse the network.
        uses: How often it runs in one forward pass.
        call: The recorded call of a convolution or linear function, where the module is not
            PyTorch's own `Conv2d` or `Linear` with plain weights; else `None`.
    """

    name: str
    kind: str
    reason: str = ""
    stays_real: bool = False
    uses: int = 1
    call: Call | None = None

    @property
    def is_supported(self) -> bool:
        """Whether `prepare` quantizes it."""
        return not self.reason


def layer_sites(module: nn.Module, example_input: Tensor) -> Mapping[str, LayerSite]:
    """Return every convolution and linear layer of `module` by name, quantizable or not.

    A layer is named by the path of the module whose ``forward`` computes it. The network runs
    once on `example_input`, in evaluation mode and without gradients, and is left as it was.

    Args:
        module: Any network that takes one tensor.
        example_input: One batch the network accepts.

    Returns:
        The layers in the order of `torch.nn.Module.named_modules`.
    """
    return sites_of(module, survey_flow(module, example_input))


def survey_flow(module: nn.Module, example_input: Tensor) -> Flow:
    """Return what `module` does, with everything visible that may have to be replaced."""
    return record_flow(module, example_input, is_leaf)


def sites_of(module: nn.Module, flow: Flow) -> dict[str, LayerSite]:
    """Return what `layer_sites` returns, from a recorded pass."""
    hosted: dict[str, list[Call]] = {}
    for call in flow.calls:
        is_weighted = call.function in ("conv2d", "linear", *_OTHER_FUNCTIONS)
        if is_weighted and call.reads and call.reads[0] in flow.derived:
            assert call.place is not None
            hosted.setdefault(call.place.host, []).append(call)
    attention = {
        f"{path}.out_proj".lstrip(".")
        for path, child in module.named_modules()
        if isinstance(child, nn.MultiheadAttention)
    }
    sites: dict[str, LayerSite] = {}
    for path, child in module.named_modules():
        if path in attention:
            sites[path] = _in_attention(path)
        elif is_layer(child):
            sites[path] = _plain(path, child, flow)
        elif path in hosted:
            sites[path] = _hosted(path, child, hosted[path], flow)
        elif isinstance(child, (nn.Conv2d, nn.Linear)) or type(child) in _OTHER_LAYERS:
            sites[path] = _other(path, child, flow)
    return sites


def is_layer(module: nn.Module) -> bool:
    """Whether `module` is a Conv2d or Linear that computes what its attributes say."""
    if isinstance(module, nn.Conv2d):
        own = (type(module).forward, type(module)._conv_forward)
        is_own = own == (nn.Conv2d.forward, nn.Conv2d._conv_forward)
    elif isinstance(module, nn.Linear):
        is_own = type(module).forward is nn.Linear.forward
    else:
        return False
    # Weight norm and its like compute the weight: it is an attribute, and not a parameter.
    return is_own and {"weight", "bias"} <= module._parameters.keys()


def is_batch_norm(module: nn.Module) -> bool:
    """Whether `module` is a batch norm that does nothing else, with statistics to fold."""
    return (
        isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        and type(module).forward is _BatchNorm.forward
        and module.running_mean is not None
        and module.running_var is not None
    )


def is_leaf(module: nn.Module) -> bool:
    """Whether quantization looks at `module` as one thing, whatever its type does inside."""
    return is_layer(module) or is_batch_norm(module) or isinstance(module, (Add, *_POOLS))


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        return "conv2d"
    return "linear" if isinstance(module, nn.Linear) else type(module).__name__


def _in_attention(path: str) -> LayerSite:
    reason = (
        f"Linear {path!r} belongs to a MultiheadAttention, which computes with its weights "
        f"itself; it stays in floating point. Write the attention with Linear layers."
    )
    return LayerSite(path, "linear", reason, stays_real=True, uses=0)


def _plain(path: str, module: nn.Module, flow: Flow) -> LayerSite:
    uses = len(flow.calls_of(path))
    if not uses:
        return _unused(path, module)
    return LayerSite(path, _kind(module), uses=uses)


def _unused(path: str, module: nn.Module) -> LayerSite:
    reason = (
        f"{type(module).__name__} {path!r} does not run in evaluation mode; it stays in floating "
        f"point. Remove it if it is of no use."
    )
    return LayerSite(path, _kind(module), reason, stays_real=True, uses=0)


def _other(path: str, module: nn.Module, flow: Flow) -> LayerSite:
    calls = flow.calls_of(path)
    if path in flow.spans:
        reason = (
            f"Module {path!r} is a {type(module).__name__} whose forward calls neither conv2d nor "
            f"linear on what it reads. Use {_kind(module)} or a module without such a base class."
        )
        return LayerSite(path, _kind(module), reason)
    if not calls:
        return _unused(path, module)
    remedy = _OTHER_LAYERS[type(module)]
    reason = (
        f"Module {path!r} is a {type(module).__name__}, which has no quantized form here. {remedy}"
    )
    return LayerSite(path, _kind(module), reason, uses=len(calls))


def _hosted(path: str, module: nn.Module, calls: list[Call], flow: Flow) -> LayerSite:
    """Return the layer of a module that calls a convolution or linear function itself."""
    first = calls[0]
    assert first.place is not None
    places = list(dict.fromkeys(call.place for call in calls))
    problem = ""
    if first.function in _OTHER_FUNCTIONS:
        problem = (
            f"calls {first.function}, which has no quantized form here. "
            f"{_OTHER_FUNCTIONS[first.function]}"
        )
    elif len(places) > 1:
        problem = (
            f"calls {len(places)} convolution or linear functions, and a layer is named by its "
            f"module. Give each a module of its own."
        )
    elif any(_depends_on_input(call, flow) for call in calls):
        problem = (
            f"calls {first.function} with a weight or bias that depends on the network's input. "
            f"Use weights that are the same for every image."
        )
    elif weighted(first) is None:
        problem = f"calls {first.function} in a way not known here. Use a Conv2d or Linear module."
    if problem:
        where = f"Module {path!r} ({type(module).__name__}, {first.place.source})"
        return LayerSite(path, first.function, f"{where} {problem}", uses=len(calls))
    return LayerSite(path, first.function, uses=len(calls), call=first)


def _depends_on_input(call: Call, flow: Flow) -> bool:
    arguments = bound(call)
    return any(
        call.value_of(arguments[key]) in flow.derived
        for key in ("weight", "bias")
        if isinstance(arguments.get(key), Tensor)
    )
