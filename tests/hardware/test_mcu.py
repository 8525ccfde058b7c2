# SPDX-License-Identifier: Apache-2.0
"""Microcontroller memory: uNAS's own figures, mixed bits by hand, and our exported code."""

import numpy as np
import pytest

from bitscout.core import Layer, LayerBits, LayerGraph, Node, QuantPolicy
from bitscout.errors import ConfigError, PolicyError, UnsupportedError
from bitscout.hardware import load_hardware, reference_network
from bitscout.hardware.mcu import Microcontroller
from bitscout.hardware.reference_networks.builder import GraphBuilder


def bytes_policy(graph):
    return QuantPolicy.uniform(graph.names, 8, 8)


def convolution_and_dense():
    net = GraphBuilder("golden 1", (3, 32, 32))
    net.conv("conv", 5, 3, padding=0)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def residual_and_pool():
    net = GraphBuilder("golden 2", (3, 32, 32))
    a = net.conv("a", 16, 3)
    net.conv("b", 16, 3)
    c = net.conv("c", 16, 3)
    net.add("add", a, c)
    net.pool("pool", "avg_pool", 8, stride=8)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def two_branches():
    net = GraphBuilder("golden 3", (8, 16, 16))
    a = net.conv("a", 8)
    net.conv("dw", 8, 3, groups=8)
    left = net.conv("left", 16)
    right = net.conv("right", 16, source=a)
    net.add("add", left, right)
    net.conv("reduce", 4, stride=2)
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


def inverted_residuals():
    net = GraphBuilder("golden 4", (3, 96, 96))
    net.conv("stem", 16, 3, stride=2)
    for i, (outputs, t, stride) in enumerate(
        ((8, 1, 1), (16, 6, 2), (16, 6, 1), (24, 6, 2), (24, 6, 1))
    ):
        source, inputs = net.last, net.channels
        if t > 1:
            net.conv(f"{i}.expand", inputs * t)
        net.conv(f"{i}.depthwise", inputs * t, 3, stride=stride, groups=inputs * t)
        net.conv(f"{i}.project", outputs)
        if stride == 1 and inputs == outputs:
            net.add(f"{i}.add", source, net.last)
    net.adaptive_pool("pool")
    net.flatten()
    net.linear("dense", 10)
    return net.graph()


@pytest.mark.parametrize(
    ("build", "peak", "peak_with_input", "flash", "work", "loads_compute"),
    [
        (convolution_and_dense, 4510, 7572, 45150, 166500, 504010),
        (residual_and_pool, 49152, 49152, 7658, 5196288, 15621642),
        (two_branches, 10240, 10240, 3078, 111104, 345866),
        (inverted_residuals, 138240, 138240, 20274, 8004336, 24486490),
    ],
)
def test_the_golden_graphs_of_unas(build, peak, peak_with_input, flash, work, loads_compute):
    graph = build()
    unas = load_hardware("mcu-unas:w_mem=1")
    total = unas.report(graph, bytes_policy(graph)).total
    assert total == {
        "flash_bytes": flash,
        "peak_memory_bytes": peak,
        "macs": graph.macs,
        "work": work,
        "loads_compute": loads_compute,
    }
    with_input = load_hardware("mcu-unas:include_input=true")
    assert with_input.peak_memory(graph, bytes_policy(graph)) == peak_with_input
