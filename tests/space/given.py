# SPDX-License-Identifier: Apache-2.0
"""Descriptions of networks, written by hand."""

from __future__ import annotations

from bitscout.core import Layer
from bitscout.space import ChannelGroup, GivenLayer, ModelDescription, Segment


def resnet20() -> ModelDescription:
    """ResNet-20 for CIFAR-10 with parameter-free shortcuts, as a residual network is grouped."""
    groups = [ChannelGroup("input", 3, fixed="These are the channels of the image.")]
    layers: list[GivenLayer] = []

    def layer(name, read, written, size, stride, block, stage, kernel=3):
        a, b = groups[read], groups[written]
        layers.append(
            GivenLayer(
                Layer(
                    name,
                    "conv",
                    a.channels,
                    b.channels,
                    (kernel, kernel),
                    (stride, stride),
                    input_size=(size * stride, size * stride),
                    output_size=(size, size),
                ),
                (Segment(read),),
                (Segment(written),),
                block,
                stage,
            )
        )

    stream = 0
    for stage, (channels, size) in enumerate(((16, 32), (32, 16), (64, 8)), start=1):
        groups.append(ChannelGroup("conv1" if stage == 1 else f"layer{stage}.0.conv2", channels))
        if stage == 1:
            layer("conv1", 0, 1, 32, 1, "conv1", "stage1")
            stream = 1
        out = len(groups) - 1
        for block in range(3):
            name = f"layer{stage}.{block}"
            groups.append(ChannelGroup(f"{name}.conv1", channels))
            inner = len(groups) - 1
            stride = 2 if stage > 1 and block == 0 else 1
            layer(f"{name}.conv1", stream, inner, size, stride, name, f"stage{stage}")
            layer(f"{name}.conv2", inner, out, size, 1, name, f"stage{stage}")
            stream = out
    groups.append(ChannelGroup("fc", 10, fixed="These are the classes."))
    fc = Layer("fc", "linear", 64, 10)
    last = (Segment(len(groups) - 1),)
    layers.append(GivenLayer(fc, (Segment(stream),), last, "fc", "stage3"))
    return ModelDescription("resnet20", tuple(groups), tuple(layers))


def two_branches() -> ModelDescription:
    """A stem, a grouped and a depthwise branch, their concatenation, flattened to a classifier."""
    groups = (
        ChannelGroup("input", 3, fixed="These are the channels of the image."),
        ChannelGroup("stem", 8, multiple=4),
        ChannelGroup("grouped", 12, multiple=4),
        ChannelGroup("fc", 5, fixed="These are the classes."),
    )
    size = {"input_size": (4, 4), "output_size": (4, 4)}
    layers = (
        GivenLayer(
            Layer("stem", "conv", 3, 8, (3, 3), **size),
            (Segment(0),),
            (Segment(1),),
            "stem",
            "stage1",
        ),
        GivenLayer(
            Layer("grouped", "conv", 8, 12, (3, 3), groups=4, **size),
            (Segment(1),),
            (Segment(2),),
            "grouped",
            "stage1",
        ),
        GivenLayer(
            Layer("depthwise", "conv", 8, 8, (3, 3), groups=8, **size),
            (Segment(1),),
            (Segment(1),),
            "depthwise",
            "stage1",
        ),
        GivenLayer(
            Layer("fc", "linear", 20 * 16, 5),
            (Segment(2, 16), Segment(1, 16)),
            (Segment(3),),
            "fc",
            "stage1",
        ),
    )
    return ModelDescription("two_branches", groups, layers)
