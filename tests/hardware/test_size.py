"""Sizes by hand."""

import pytest

from bitscout.core import Layer, LayerBits, LayerGraph, QuantPolicy
from bitscout.errors import PolicyError
from bitscout.hardware import size_report

GRAPH = LayerGraph(
    (
        Layer("conv", "conv", 3, 4, kernel=(3, 3), output_size=(8, 8)),
        Layer("head", "linear", 4, 10, has_bias=False),
    )
)
POLICY = QuantPolicy({"conv": LayerBits(5, 8), "head": LayerBits(3, 4)})


def test_totals_of_two_layers_by_hand():
    report = size_report(GRAPH, POLICY)
    assert report.weight_bits == 108 * 5 + 40 * 3
    assert report.bias_bits == 4 * 32
    assert report.size_bits == 540 + 120 + 128
    assert report.macs == 108 * 64 + 40
    assert report.bops == 108 * 64 * 5 * 8 + 40 * 3 * 4


def test_metrics_are_in_bytes():
    metrics = size_report(GRAPH, POLICY).metrics(val_accuracy=0.5)
    assert metrics.size_bytes == 788 / 8
    assert metrics.weight_bytes == 660 / 8
    assert metrics.val_accuracy == 0.5


def test_a_policy_for_another_network_is_refused():
    with pytest.raises(PolicyError, match="left out: head"):
        size_report(GRAPH, QuantPolicy.uniform(["conv"], 4))
