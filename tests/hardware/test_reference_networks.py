# SPDX-License-Identifier: Apache-2.0
"""Reference networks: published counts, and equality with traces of PyTorch modules."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitscout.errors import ConfigError
from bitscout.hardware import REFERENCE_NETWORKS, reference_network
from bitscout.hardware.reference_networks import (
    alexnet,
    mobilenet_v1,
    mobilenet_v2,
    resnet18,
    resnet20,
    resnet50,
    vgg16,
)
from bitscout.networks import resnet, trace

# Written with torchvision's structure and names; built on the meta device, which has no numbers.


def conv_bn(*args, **kwargs):
    return nn.Sequential(nn.Conv2d(*args, bias=False, **kwargs), nn.BatchNorm2d(args[1]))


class Block(nn.Module):
    """Basic block (kernels 3, 3) or bottleneck (1, 3, 1), with the stride in the first 3x3."""

    def __init__(self, inputs, widths, kernels, stride):
        super().__init__()
        channels = inputs
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), 1):
            here = stride if i == kernels.index(3) + 1 else 1
            conv = nn.Conv2d(channels, width, kernel, here, kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            channels = width
        self.n_convs = len(kernels)
        self.downsample = (
            conv_bn(inputs, channels, 1, stride) if stride > 1 or inputs != channels else None
        )

    def forward(self, x):
        y = x
        for i in range(1, self.n_convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.n_convs else y
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y)


class ResNet(nn.Module):
    def __init__(self, repetitions, kernels, expansion):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, n_blocks in enumerate(repetitions):
            width, blocks = 64 * 2**stage, []
            widths = [width] * (len(kernels) - 1) + [width * expansion]
            for i in range(n_blocks):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Block(channels, widths, kernels, stride))
                channels = width * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Features(nn.Module):
    """`features`, a pool, flatten, `classifier`: AlexNet, VGG and the MobileNets."""

    def __init__(self, features, classifier, size=None):
        super().__init__()
        self.features, self.classifier = features, classifier
        self.avgpool = nn.AdaptiveAvgPool2d(size) if size else None

    def forward(self, x):
        x = self.features(x)
        x = self.avgpool(x) if self.avgpool else F.adaptive_avg_pool2d(x, 1)
        return self.classifier(torch.flatten(x, 1))


def torch_alexnet():
    act = nn.ReLU()
    convs = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), act, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), act, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), act, nn.Conv2d(384, 256, 3, padding=1), act),
        *(nn.Conv2d(256, 256, 3, padding=1), act, nn.MaxPool2d(3, 2)),
    )
    drop = nn.Dropout()
    linears = (drop, nn.Linear(9216, 4096), act, drop, nn.Linear(4096, 4096), act)
    return Features(convs, nn.Sequential(*linears, nn.Linear(4096, 1000)), 6)


def torch_vgg16():
    modules, channels = [], 3
    for width in (64, 64, 0, 128, 128, 0, *(256,) * 3, 0, *(512,) * 3, 0, *(512,) * 3, 0):
        if width:
            modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        else:
            modules.append(nn.MaxPool2d(2, 2))
        channels = width or channels
    act, drop = nn.ReLU(), nn.Dropout()
    linears = (nn.Linear(25088, 4096), act, drop, nn.Linear(4096, 4096), act, drop)
    return Features(nn.Sequential(*modules), nn.Sequential(*linears, nn.Linear(4096, 1000)), 7)


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        expand = [conv_bn(inputs, hidden, 1)] if expansion > 1 else []
        depthwise = conv_bn(hidden, hidden, 3, stride, padding=1, groups=hidden)
        self.conv = nn.Sequential(*expand, depthwise, *conv_bn(hidden, outputs, 1))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.is_residual else self.conv(x)


def torch_mobilenet_v2(stem, stages, head):
    modules, channels = [conv_bn(3, stem, 3, 2, 1)], stem
    for expansion, outputs, count, stride in stages:
        for i in range(count):
            modules.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
            channels = outputs
    modules.append(conv_bn(channels, head, 1))
    return Features(nn.Sequential(*modules), nn.Sequential(nn.Dropout(), nn.Linear(head, 1000)))


def torch_mobilenet_v1():
    modules, channels = [conv_bn(3, 32, 3, 2, 1)], 32
    widths = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    for outputs, stride in zip(widths, (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), strict=True):
        block = nn.Sequential()
        depthwise = conv_bn(channels, channels, 3, stride, padding=1, groups=channels)
        block.add_module("depthwise", depthwise)
        block.add_module("pointwise", conv_bn(channels, outputs, 1))
        modules.append(block)
        channels = outputs
    return Features(nn.Sequential(*modules), nn.Linear(1024, 1000))


class OptionA(nn.Module):
    """Every second pixel, new channels zero."""

    def __init__(self, n_new):
        super().__init__()
        self.n_new = n_new

    def forward(self, x):
        return F.pad(F.max_pool2d(x, 1, 2), (0, 0, 0, 0, 0, self.n_new))


def torch_resnet20(n_new):
    """`networks.resnet` with option-A shortcuts."""
    net = resnet(20)
    for stage, count in zip((net.stage2, net.stage3), n_new, strict=True):
        stage[0].shortcut = OptionA(count)
    return net


FULL = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
FULL += ((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Channels of the 0.75 network, which torchvision's rule gives; 24 * 0.75 = 18 becomes 24.
NARROW = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 24, 3, 2), (6, 48, 4, 2))
NARROW += ((6, 72, 3, 1), (6, 120, 3, 2), (6, 240, 1, 1))
MODULES = {
    "resnet18": (resnet18, lambda: ResNet((2, 2, 2, 2), (3, 3), 1)),
    "resnet50": (resnet50, lambda: ResNet((3, 4, 6, 3), (1, 3, 1), 4)),
    "alexnet": (alexnet, torch_alexnet),
    "vgg16": (vgg16, torch_vgg16),
    "mobilenet_v1": (mobilenet_v1, torch_mobilenet_v1),
    "mobilenet_v2": (mobilenet_v2, lambda: torch_mobilenet_v2(32, FULL, 1280)),
    "mobilenet_v2 x 0.75": (
        lambda shape: mobilenet_v2(shape, width=0.75),
        lambda: torch_mobilenet_v2(24, NARROW, 1280),
    ),
}


@pytest.mark.parametrize("size", [(224, 224), (193, 129)])
@pytest.mark.parametrize(("table", "build"), MODULES.values(), ids=MODULES)
def test_tables_are_the_traces_of_modules(table, build, size):
    with torch.device("meta"):
        traced = trace(build(), (3, *size))
    # torchvision's AlexNet and VGG have biases, the others get theirs from batch norms.
    assert table((3, *size)).layers == traced.layers
    assert table((3, *size)).nodes == traced.nodes


def test_resnet20_is_networks_resnet_with_parameter_free_shortcuts():
    graph, traced = resnet20(), trace(torch_resnet20((16, 32)), (3, 32, 32))
    assert graph.layers == traced.layers
    assert graph.nodes == traced.nodes


@pytest.mark.parametrize(
    ("name", "n_layers", "weights_m", "macs_m"),
    [
        ("vgg16", 16, 138.3441, 15470.3),
        ("resnet18", 21, 11.6789, 1814.1),
        ("resnet50", 54, 25.5029, 4089.2),
        ("mobilenet_v1", 28, 4.2091, 568.7),
        ("mobilenet_v2", 53, 3.4698, 300.8),
        # He et al., Table 6: 0.27 million parameters.
        ("resnet20", 20, 0.2683, 40.6),
        # torchvision's documentation: 61 100 840 parameters, of which 10 344 are biases.
        ("alexnet", 8, 61.0905, 714.2),
    ],
)
def test_counts_are_the_published_ones(name, n_layers, weights_m, macs_m):
    graph = reference_network(name)
    assert len(graph) == n_layers
    assert round(graph.n_weights / 1e6, 4) == weights_m
    assert round(graph.macs / 1e6, 1) == macs_m


def test_resnet20_of_table_iv_of_kmeans_tpe_is_416832_bits():
    graph = resnet20(widths=(16, 24, 48))
    bits = [8, *[3] * 6, 3, 3, 2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 8]
    assert sum(layer.n_weights * b for layer, b in zip(graph, bits, strict=True)) == 416_832


@pytest.mark.parametrize("name", REFERENCE_NETWORKS)
def test_inputs_and_classes_can_be_chosen(name):
    graph = reference_network(name, (1, 96, 80), 7)
    assert graph.nodes[0].shape == (1, 96, 80)
    assert graph.nodes[-1].shape == (7,)
    assert graph.layers[0].in_channels == 1
    assert all(layer.has_bias for layer in graph)


def test_mobilenet_v1_gets_narrower():
    half = mobilenet_v1(width=0.5)
    assert half["features.13.pointwise.0"].out_channels == 512
    # Table 6 of Howard et al.: 149 million multiply-adds, 1.3 million parameters.
    assert round(half.macs / 1e6) == 149
    assert round(half.n_weights / 1e6, 1) == 1.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference_network("resnet-18"), "is called 'resnet-18'. Did you mean 'resnet18'"),
        (lambda: reference_network("bert"), "Known: alexnet, mobilenet_v1"),
        (lambda: vgg16((3, 31, 32)), "3x31x32 is too small for vgg16: 1x2 pixels reach `feat"),
        (lambda: alexnet((3, 62, 62)), "too small for alexnet: 2x2 pixels reach `features.12`"),
        (lambda: resnet18((3, 0, 4)), r"must be channels, height and width, each at least 1, got"),
        (lambda: resnet18((224, 224)), r"channels, height and width, each at least 1, got \(224"),
        (lambda: resnet50(n_classes=0), "Layer 'fc' needs positive sizes"),
        (lambda: resnet20(widths=(16, 8, 64)), "none smaller than the one before it"),
        (lambda: resnet20(widths=(16, 32)), r"one number for each of 3 stages.* got \(16, 32\)"),
        (lambda: mobilenet_v1(width=0), "`width` of mobilenet_v1 must be a positive number"),
        (lambda: mobilenet_v2(width=float("nan")), "must be a positive number, got nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_explained(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("mobilenet_v1:width=0.5", {"width": 0.5}, mobilenet_v1(width=0.5)),
        ("mobilenet_v2:width=0.75", {"width": 0.75}, mobilenet_v2(width=0.75)),
        ("resnet20:widths=16+24+48", {"widths": (16, 24, 48)}, resnet20(widths=(16, 24, 48))),
        ("vgg16:n_classes=7", {"n_classes": 7}, vgg16(n_classes=7)),
        (
            "resnet20:n_classes=3,widths='8+8+8'",
            {"n_classes": 3, "widths": (8, 8, 8)},
            resnet20(n_classes=3, widths=(8, 8, 8)),
        ),
    ],
)
def test_options_are_passed_on_as_values_and_as_text(text, options, expected):
    assert reference_network(text) == expected
    assert reference_network(text.partition(":")[0], **options) == expected
    small = reference_network(text, (3, 64, 64))
    assert small.nodes[0].shape == (3, 64, 64)
    assert small.n_weights <= expected.n_weights


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("resnet18:width=2", {}, "resnet18 has no option 'width'. It has n_classes."),
        ("mobilenet_v1", {"widths": (1,)}, "no option 'widths'. It has n_classes, width."),
        ("mobilenet_v1:input_shape=3", {}, "no option 'input_shape'"),
        ("mobilenet_v1:width=half", {}, "`width` of mobilenet_v1 must be a number, got 'half'"),
        ("resnet20:widths=8,8,8", {}, "name:key=value"),
        ("resnet20:widths=8+8+x", {}, "must be whole numbers .*, got '8.8.x'"),
        ("resnet20", {"widths": 8}, "`widths` of resnet20 must be whole numbers .*, got 8"),
        ("mobilenet_v1", {"width": (1,)}, r"`width` of .* must be a number, got \(1,\)"),
        ("resnet20:widths=8+8", {}, "one number for each of 3 stages"),
        ("resnet2:widths=8", {}, "called 'resnet2'. Did you mean 'resnet20'"),
        ("mobilenet_v1:width=nan", {}, "must be a positive number, got nan"),
    ],
)
def test_options_that_are_wrong_are_refused(text, options, message):
    with pytest.raises(ConfigError, match=message):
        reference_network(text, **options)
