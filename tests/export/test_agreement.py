"""The network against its integers, layer by layer and as a check."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.graphs import residual_net, tiny_net
from tests.export.lowered import images_like, quantized, random_policy
from torch import nn

from bitscout.export.agreement import (
    LayerAgreement,
    layer_agreement,
    real_outputs,
    to_integers,
    total_agreement,
)
from bitscout.export.checks.fake_quant import check_fake_quant
from bitscout.export.checks.result import CheckInputs
from bitscout.export.float32 import rounded_in_float32
from bitscout.export.lowering import lower_with_reads
from bitscout.export.outputs import lowest_bits
from bitscout.export.reference import Reference
from bitscout.networks import resnet


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = resnet(depth=8, n_classes=5, in_channels=4, base_width=4, generator_seed=0)
        self.stem = nn.Sequential(nn.ZeroPad2d((1, 0, 0, 2)), nn.Conv2d(3, 4, 3))
        generator = torch.Generator().manual_seed(0)
        nn.init.kaiming_normal_(self.stem[1].weight, generator=generator)
        nn.init.zeros_(self.stem[1].bias)

    def forward(self, x):
        return self.net(self.stem(x))


def lowered_network(**config):
    x = images_like((3, 9, 9), 40)
    net = Padded()
    module = quantized(net, x, policy=random_policy(net, 0, low=4), **config)
    return module, lower_with_reads(module, x), x.numpy()


def inputs_of(lowered, images):
    reference = Reference(lowered.graph)
    return CheckInputs(images, reference.quantize(images), reference.run(images), Path("unused"))


def test_every_read_of_every_module_is_compared():
    module, lowered, images = lowered_network()
    layers = layer_agreement(module, lowered, images)
    names = [layer.name for layer in layers]
    assert len(names) == len(set(names)) == sum(map(len, lowered.reads.values())) + 1
    for layer in layers[:-1]:
        path, _, operand = layer.name.rpartition(".")
        reads = lowered.reads.get(layer.name) or lowered.reads[path][int(operand) :]
        size = int(np.prod(lowered.graph[reads[0].tensor].shape))
        assert layer.values == len(images) * size
    assert names[-1] == "output"
    assert all(layer.mismatches == 0 for layer in layers)


def test_a_changed_weight_shows_in_the_layers_that_read_its_result_and_nowhere_else():
    module, lowered, images = lowered_network()
    path = next(p for p in lowered.reads if p.endswith("stage2.0.first.conv"))
    layer = module.get_submodule(path)
    with torch.no_grad():
        layer.weight.neg_()
    changed = {x.name for x in layer_agreement(module, lowered, images) if x.mismatches}
    assert changed == {path.replace("first", "second")}


def test_a_network_without_exact_steps_differs_by_less_than_one_in_ten_thousand():
    module, lowered, images = lowered_network(exact_steps=False)
    total = total_agreement(layer_agreement(module, lowered, images))
    assert rounded_in_float32(lowered.graph)
    assert total.is_good


@pytest.mark.parametrize(
    ("mismatches", "max_steps", "is_good"),
    [(0, 0, True), (9, 1, True), (10, 1, False), (1, 2, False)],
)
def test_the_criterion_is_one_in_ten_thousand_and_one_step(mismatches, max_steps, is_good):
    assert LayerAgreement("x", 100_000, mismatches, max_steps).is_good is is_good


def test_integers_and_scores_are_inverse():
    for one_step in (True, False):
        b, graph = tiny_net(one_step=one_step)
        integers = Reference(graph).run(b.images(5))
        np.testing.assert_array_equal(to_integers(graph, graph.scores(integers)), integers)


def test_the_check_passes_for_the_network_it_was_made_from():
    module, lowered, images = lowered_network()
    whole, layers = check_fake_quant(module, lowered, inputs_of(lowered, images))
    assert (whole.state, whole.grid, whole.mismatches) == ("passed", "exact", 0)
    assert whole.outputs == 5 * len(images)
    assert whole.argmax_agreement == 1.0
    assert (layers.state, layers.mismatches, layers.max_lsb) == ("passed", 0, 0)
    assert layers.outputs > 100 * whole.outputs


def test_real_outputs_are_compared_where_integers_differ_and_float32_rounds():
    module, lowered, images = lowered_network(exact_steps=False)
    inputs = inputs_of(lowered, images)
    outputs = inputs.outputs.copy()
    outputs[0] += 1 + np.abs(outputs).max()
    whole, layers = check_fake_quant(module, lowered, replace(inputs, outputs=outputs))
    assert (whole.grid, whole.state) == ("8 bit", "failed")
    assert "exact_steps: true" in whole.reason
    assert whole.details["rounding_operations"] > 0
    assert (layers.grid, layers.state) == ("exact", "passed")


def test_one_different_integer_fails_where_float32_is_exact():
    module, lowered, images = lowered_network()
    inputs = inputs_of(lowered, images)
    outputs = inputs.outputs.copy()
    outputs[0, 0] += 1
    whole, _ = check_fake_quant(module, lowered, replace(inputs, outputs=outputs))
    assert (whole.grid, whole.state, whole.mismatches) == ("exact", "failed", 1)


def test_the_check_fails_for_another_network():
    module, lowered, images = lowered_network()
    with torch.no_grad():
        module.stem[1].bias.add_(1.0)
    whole, layers = check_fake_quant(module, lowered, inputs_of(lowered, images))
    assert whole.state == layers.state == "failed"
    assert "activations differ; in " in layers.reason


def test_outputs_do_not_depend_on_the_batch():
    module, lowered, images = lowered_network()
    whole = real_outputs(module, lowered.graph, images)
    parts = [real_outputs(module, lowered.graph, images[i : i + 7]) for i in range(0, 40, 7)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_power_of_two_steps_of_small_layers_are_exact_in_float32():
    assert rounded_in_float32(tiny_net(power_of_two=True, one_step=False)[1]) == ()
    assert rounded_in_float32(tiny_net()[1]) != ()


def test_sums_beyond_24_bits_are_not_exact():
    _, graph = residual_net(power_of_two=True)
    conv = graph.layers[0]
    wide = replace(conv, bias=np.full(conv.shape[0], 2**24))
    ops = tuple(wide if op is conv else op for op in graph)
    assert conv.name not in rounded_in_float32(graph)
    assert conv.name in rounded_in_float32(type(graph)(ops, graph.output))


def test_the_lowest_bit_divides_and_twice_it_does_not():
    values = np.random.default_rng(0).uniform(1e-6, 1e6, 1000)
    bits = lowest_bits(values)
    assert (values % bits == 0).all()
    assert (values % (2 * bits) != 0).all()
