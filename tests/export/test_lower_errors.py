"""What has no exact integer form is refused by name, place and remedy."""

import re
from pathlib import Path

import pytest
import torch
from tests.export.lowered import images_like, quantized
from torch import nn
from torch.nn import functional as F

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import ConfigError, TrainingError, UnsupportedError
from bitscout.export.lowering import lower
from bitscout.quantization import prepare


class Around(nn.Module):
    """A function between a convolution and a linear layer."""

    def __init__(self, function, *, has_head=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = function
        self.head = nn.Linear(100, 3) if has_head else None

    def forward(self, x):
        x = self.middle(self.conv(x))
        return self.head(x.flatten(1)) if self.head else x


def message(net, x=None):
    x = images_like((3, 5, 5)) if x is None else x
    module = quantized(net, x)
    with pytest.raises(UnsupportedError) as caught:
        lower(module, x)
    return str(caught.value)


def chunked(x):
    a, b = x.chunk(2, 1)
    return torch.cat([b, a], 1)


def decided(x):
    return x if x.sum() > 0 else x.clone()


def assigned(x):
    y = x.clone()
    y[:, 0] = 0
    return y


def changed_through_a_view(x):
    F.relu_(x.view(len(x), -1))
    return x


FUNCTIONS = {
    "sigmoid": (torch.sigmoid, "`sigmoid`", "it has no integer form. Use Conv2d"),
    "SiLU": (nn.SiLU(), "`silu` in SiLU 'middle'", "no integer form"),
    "hardswish": (nn.Hardswish(), "`hardswish` in Hardswish 'middle'", "no integer form"),
    "softmax": (nn.Softmax(1), "`softmax` in Softmax 'middle'", "no integer form"),
    "product": (lambda x: x * x, "`mul`", "no integer form"),
    "difference": (lambda x: x - F.relu(x), "`sub`", "no integer form"),
    "number added": (lambda x: x + 1, "`add`", "belongs in the bias"),
    "scaled sum": (lambda x: torch.add(x, x, alpha=2), "`add`", "Add two results"),
    "sum into a tensor": (lambda x: torch.add(x, x, out=None), "`add`", "way not known here"),
    "tensor added": (lambda x: x + torch.ones(4, 1, 1), "`add`", "Put it into the bias"),
    "mean of channels": (lambda x: x.mean(1), "`mean`", "Use dim=(2, 3)"),
    "mixed images": (lambda x: x.view(-1, 50).view(len(x), -1), "`view`", "Flatten to (n,"),
    "partly flattened": (lambda x: x.flatten(2), "`flatten`", "(4, 5, 5) to (4, 25)"),
    "chunk": (chunked, "`chunk`", "several tensors"),
    "slice": (lambda x: x[:, :2], "`getitem`", "no integer form"),
    "transpose": (lambda x: x.mT, "`.mT`", "no integer form"),
    "decision": (decided, "`bool`", "makes a decision of activations"),
    "number read": (lambda x: x.clamp(max=float(x.detach().max())), "`float`", "a Python number"),
    "reflect padding": (lambda x: F.pad(x, (1,) * 4, "reflect"), "`pad`", "than zeros"),
    "negative padding": (lambda x: F.pad(x, (-1, 1)), "`pad`", "Pad with zeros"),
    "reflecting layer": (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        "QuantConv2d 'middle'",
        "Use padding_mode='zeros'",
    ),
    "zeros before a max pool": (
        nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 1)),
        "QuantLinear 'head'",
        "Use the padding of the pool",
    ),
    "zeros before an average pool": (
        nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)),
        "QuantAvgPool 'middle.1'",
        "only a convolution can take over",
    ),
    "assignment": (assigned, "what Around", "assigning to a part of it"),
    "change through a view": (changed_through_a_view, "what Around", "through a view of it"),
    "random dropout": (lambda x: F.dropout(x, 0.3), "`dropout`", "training=self.training"),
    "whole numbers": (lambda x: x.to(torch.int32).float(), "`to`", "Stay in float32"),
    "clamp without zero": (lambda x: x.clamp(0.5, 2), "QuantLinear 'head'", "with 0 in it"),
    "sum of different shapes": (
        lambda x: x + F.adaptive_max_pool2d(x, 1),
        "`add`",
        "adds shapes (4, 5, 5) and (4, 1, 1)",
    ),
    "dilated pool": (
        lambda x: F.max_pool2d(x, 2, dilation=2),
        "`max_pool2d`",
        "Use a plain max pool",
    ),
    "concatenated rows": (lambda x: torch.cat([x, x], 2), "`cat`", "Use dim=1"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unsupported_function_is_named_with_its_place_and_what_to_do(name):
    function, what, remedy = FUNCTIONS[name]
    net = Around(function)
    features = net.middle(net.conv(torch.ones(2, 3, 5, 5))).flatten(1).shape[1]
    net.head = nn.Linear(features, 3)
    text = message(net)
    assert text.startswith("Cannot lower ")
    assert what in text
    assert remedy in text
    assert re.search(rf"\({re.escape(str(Path(__file__)))}:\d+\)", text)


def test_the_line_is_that_of_the_call():
    net = Around(
        lambda x: torch.tanh(x)  # this line
    )
    line = next(
        number
        for number, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if text.endswith("torch.tanh(x)  # this line")
    )
    assert f"{Path(__file__)}:{line})" in message(net)


OUTPUTS = {
    "tuple": (lambda x: (x, x), "returns 2 values"),
    "dict": (lambda x: {"scores": x}, "returns a dict"),
    "constant": (lambda x: torch.ones(len(x), 3), "does not depend on its input"),
    "ReLU6": (F.relu6, "it is clamped to [0, 6]"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_network_must_return_one_tensor_of_integers(name):
    function, problem = OUTPUTS[name]
    assert problem in message(Around(function, has_head=False))


def test_a_linear_layer_reads_vectors():
    assert "Flatten to (n, features)" in message(Around(nn.Linear(5, 2), has_head=False))


def test_transposed_convolutions_are_refused_when_they_are_prepared():
    with pytest.raises(UnsupportedError, match="'middle' is a ConvTranspose2d"):
        quantized(Around(nn.ConvTranspose2d(4, 4, 1)), images_like((3, 5, 5)))


def test_a_real_network_is_refused():
    with pytest.raises(UnsupportedError, match=r"call `bitscout.quantization.post_training"):
        lower(nn.Conv2d(3, 2, 3), images_like((3, 5, 5)))


def test_a_network_that_was_not_calibrated_is_refused():
    x = images_like((3, 5, 5))
    module = prepare(nn.Conv2d(3, 2, 3), QuantPolicy({"": LayerBits(8, 8)}), x)
    with pytest.raises(ConfigError, match=r"'QuantConv2d' was never calibrated.*Call `calibrate`"):
        lower(module, x)


def test_images_of_another_shape_are_refused():
    module = quantized(nn.Conv2d(3, 2, 3), images_like((3, 5, 5)))
    with pytest.raises(
        UnsupportedError, match=r"does not run on an input of shape \(2, 4, 5, 5\)"
    ):
        lower(module, images_like((4, 5, 5)))


DAMAGE = {
    "weight": (lambda m: m[0].weight.data[0].fill_(float("nan")), "'0.weight' holds NaN"),
    "bias": (lambda m: m[0].bias.data.fill_(float("inf")), "'0.bias' holds NaN or infinite"),
    "step": (lambda m: m[0].input_quantizer.scale.fill_(float("nan")), "'0.input_quantizer"),
    "weight step": (lambda m: m[0].weight_quantizer.scale.fill_(-1), "step of its weight is -1"),
    "zero weight step": (lambda m: m[0].weight_quantizer.scale.fill_(0), "its weight is 0"),
    "zero step": (lambda m: m[0].input_quantizer.scale.fill_(0), "a step of its input is 0"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_numbers_no_integer_can_have_are_refused(name):
    damage, problem = DAMAGE[name]
    x = images_like((3, 5, 5))
    module = quantized(nn.Sequential(nn.Conv2d(3, 2, 3)), x)
    damage(module)
    with pytest.raises(TrainingError, match=re.escape(problem)):
        lower(module, x)
