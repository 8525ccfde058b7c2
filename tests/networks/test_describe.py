# SPDX-License-Identifier: Apache-2.0
"""Descriptions of networks of many kinds: nothing left out, and the ties of the published ones."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from tests.networks.zoo import IMAGE, ZOO, make
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.errors import ConfigError, UnsupportedError
from bitscout.networks import build_model, check_classes, describe, trace
from bitscout.networks.blocks_and_stages import block_labels, stage_labels
from bitscout.networks.network_graph import network_graph
from bitscout.networks.record_calls import record_calls
from bitscout.quantization import layer_sites, post_training_quantize


def ties(network, shape):
    """Return block and stage of every layer, without looking for channel groups."""
    graph = network_graph(record_calls(network, shape))
    blocks = block_labels(graph)
    return blocks, stage_labels(graph, blocks)


@pytest.fixture(scope="module", params=ZOO)
def described(request):
    network = make(request.param)
    return network, describe(network, IMAGE, name=request.param)


def test_every_layer_is_accounted_for_with_the_shapes_that_hooks_see(described):
    network, description = described
    seen, handles = {}, []
    for path, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):

            def note(part, args, y, path=path):
                x = args[0]
                is_linear = isinstance(part, nn.Linear)
                positions = 1 if is_linear else y[0, 0].numel()
                if is_linear and x.dim() > 2:
                    positions = x[0, ..., 0].numel()
                inputs = x.shape[-1] if is_linear else x.shape[1]
                seen[path] = (inputs, y.shape[-1 if is_linear else 1], positions)

            handles.append(part.register_forward_hook(note))
    network(torch.zeros(1, *IMAGE))
    for handle in handles:
        handle.remove()
    layers = {given.layer.name: given.layer for given in description.layers}
    found = {
        name: (layer.in_channels, layer.out_channels, layer.output_size[0] * layer.output_size[1])
        for name, layer in layers.items()
    }
    assert seen.items() <= found.items()
    searched = [given.layer for given in description.layers if given.state == "searched"]
    assert sum(layer.n_weights for layer in searched) == sum(
        p.numel()
        for n, p in network.named_parameters()
        if n.rpartition(".")[0] in layers and p.dim() > 1
    )


def test_descriptions_agree_with_the_trace_and_with_what_can_be_quantized(described):
    network, description = described
    graph = trace(network, IMAGE)
    norms = [given.layer.name for given in description.layers if given.state == "fixed"]
    at = description.at(description.widths).layers
    assert tuple(layer for layer in at if layer.name not in norms) == graph.layers
    sites = layer_sites(network, torch.zeros(2, *IMAGE))
    assert {given.layer.name for given in description.layers} == {*sites, *norms}
    assert {given.state for given in description.layers} <= {"searched", "fixed"}


def test_norms_that_no_layer_absorbs_are_layers_of_8_bits(described):
    network, description = described
    late = {
        "pre-activation": ["blocks.0.bn1", "blocks.1.bn1", "bn"],
        "dense": ["features.1.norm", "features.2.norm", "features.3", "features.7.norm"],
    }
    norms = {g.layer.name: g.layer for g in description.layers if g.state == "fixed"}
    assert list(norms) == late.get(description.name, [])
    names = [g.layer.name for g in description.layers]
    policy = QuantPolicy({name: LayerBits(4, 8) for name in names if name not in norms})
    quantized = post_training_quantize(network, policy, torch.randn(2, *IMAGE))
    for name, layer in norms.items():
        module = quantized.get_submodule(name)
        assert module.weight.numel() == layer.n_weights
        assert module.bias.numel() == layer.n_biases


def test_a_step_of_a_search_runs_on_every_network(described):
    network, description = described
    policy = QuantPolicy({given.layer.name: LayerBits(4, 8) for given in description.layers})
    images = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(0))
    quantized = post_training_quantize(network, policy, images)
    assert quantized(images).isfinite().all()


def test_parameters_are_layers_folded_or_named_in_a_note(described):
    network, description = described
    layers = {given.layer.name for given in description.layers}
    real = " ".join(note for note in description.notes if "floating point" in note)
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        is_norm = isinstance(owner, nn.BatchNorm1d | nn.BatchNorm2d)
        is_listed = name in real or "more" in real
        assert name.rpartition(".")[0] in layers or is_norm or is_listed, (name, parameter.shape)


@pytest.mark.parametrize(
    ("name", "n_blocks", "n_stages"),
    [
        # Section 2.8 of the specification: bit variables, the first and last layer included.
        ("resnet20", 9 + 2, 3),
        ("resnet18", 8 + 2, 5),
        ("mobilenet_v1", 13 + 2, 5),
        # 16 residual blocks.
        ("resnet50", 16 + 2, 5),
        # 10 residual blocks, 7 without a shortcut: one, or an expansion and a pair; stem, head.
        ("mobilenet_v2", 10 + 1 + 6 * 2 + 3, 5),
    ],
)
def test_published_networks_have_their_blocks_and_stages(name, n_blocks, n_stages):
    size = 32 if name == "resnet20" else 64
    blocks, stages = ties(build_model(name), (3, size, size))
    assert len(set(blocks.values())) == n_blocks
    assert len(set(stages.values())) == n_stages


def test_blocks_of_a_residual_network_have_its_modules_names():
    blocks, stages = ties(build_model("resnet18"), (3, 64, 64))
    layers = Counter(blocks.values())
    assert layers["layer1.0"] == 2
    assert layers["layer2.0"] == 3  # The convolution of the shortcut is one of them.
    assert set(stages.values()) == {f"stage{n}" for n in range(1, 6)}
    assert stages["fc"] == stages["layer4.1.conv2"] == "stage5"
    # Before the strided convolution, but in its block.
    assert ties(build_model("resnet50"), (3, 64, 64))[1]["layer2.0.conv1"] == "stage3"


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("shake-shake", {"layers.0": 2, "layers.2": 2, "stem.0": 1, "fc": 1}),
        ("squeeze-excitation", {"block1": 3, "block2": 3, "stem.0": 1, "head": 1}),
        ("transformer", {"attn": 2, "mlp": 2, "patch_embed": 1, "head": 1}),
        ("dual-path", {"layers.0": 3, "layers.1": 3, "stem.0": 1, "linear": 1}),
        ("modules", {"layers.0": 1, "layers": 2, "layers.9": 1, "head.2": 1}),
    ],
)
def test_layers_on_the_paths_of_an_addition_are_a_block(name, blocks):
    assert Counter(ties(make(name), IMAGE)[0].values()) == blocks


def test_branches_from_one_place_are_one_block_wherever_they_are_added():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            return (x + self.a(x) + self.b(x) + self.c(x)).mean((2, 3))

    assert set(ties(Branches(), IMAGE)[0].values()) == {"a"}


def test_the_innermost_of_nested_additions_counts():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))

        def forward(self, x):
            y = self.a(x)
            z = self.b(y)
            z = z + self.c(z)
            return (y + self.d(z)).mean((2, 3))

    blocks, _ = ties(Nested(), IMAGE)
    assert blocks == {"a": "a", "b": "b", "c": "c", "d": "b"}


def test_a_gate_and_a_branch_do_not_begin_a_stage():
    class Reduction(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.short = nn.Conv2d(4, 4, 3, 2, 1)
            self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)
            self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.up = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.stem(x)
            x = torch.cat((self.short(x), self.second(self.first(x))), 1)
            x = x * self.gate(F.adaptive_avg_pool2d(x, 1))
            x = F.interpolate(self.last(x), scale_factor=2)
            return self.up(x).mean((2, 3))

    _, stages = ties(Reduction(), IMAGE)
    assert stages == {
        **{"stem": "stage1", "first": "stage1"},
        **{"short": "stage2", "second": "stage2", "gate": "stage2", "last": "stage2"},
        "up": "stage3",
    }


def test_a_block_that_looks_at_lower_resolutions_stays_in_its_stage():
    class Calibrated(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.low, self.high = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.gate, self.last = nn.Linear(3, 3), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            x = self.stem(x)
            gate = F.interpolate(self.low(F.avg_pool2d(x, 2)), scale_factor=2).sigmoid()
            x = self.high(x * (x + gate).sigmoid())
            pooled = self.gate(x.mean((2, 3))) + self.gate(x.amax((2, 3)))
            return self.last(x * pooled[:, :, None, None]).mean((2, 3))

    blocks, stages = ties(Calibrated(), IMAGE)
    assert blocks["low"] == "low"
    assert set(stages.values()) == {"stage1"}


class Tail(nn.Module):
    """A convolution that can be searched, and something else."""

    def __init__(self, other, shape=lambda x: x):
        super().__init__()
        self.conv, self.other, self.shape = nn.Conv2d(3, 4, 1), other, shape

    def forward(self, x):
        x = self.other(self.shape(self.conv(x)))
        return (x[0] if isinstance(x, tuple) else x).flatten(1)


class Parameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 2))

    def forward(self, x):
        return x @ self.matrix


class Dynamic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight * x.mean())


def tokens(x):
    return x.flatten(2).transpose(1, 2)


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (Tail(nn.ConvTranspose2d(4, 2, 2, 2)), ["conv_transpose2d", "upsampling and a Conv2d"]),
        (Tail(nn.Conv1d(4, 2, 3), lambda x: x.flatten(2)), ["conv1d", "(k, 1) kernel"]),
        (Tail(nn.Conv3d(1, 2, 1), lambda x: x[:, None]), ["conv3d"]),
        (Tail(nn.LSTM(4, 2, batch_first=True), tokens), ["lstm", "Conv2d and Linear"]),
        (Tail(SelfAttention(4, 2, batch_first=True), tokens), ["Linear layers, matmul"]),
        (Tail(Parameter()), ["matmul", "test_describe.py:", "use a Linear"]),
        (Tail(Dynamic()), ["depends on", "test_describe.py"]),
    ],
)
def test_what_cannot_be_quantized_is_a_layer_with_a_reason(network, parts):
    description = describe(network, IMAGE)
    states = {given.layer.name: given.state for given in description.layers}
    assert states["conv"] == "searched"
    reasons = [given.reason for given in description.layers if given.state == "unsupported"]
    assert reasons
    for part in ("other", *parts):
        assert part in reasons[0]


def test_multiply_accumulates_of_other_convolutions_are_right():
    network = Tail(nn.ConvTranspose2d(4, 6, 2, 2, groups=2))
    layer = describe(network, IMAGE).layers[1].layer
    assert layer.n_weights == network.other.weight.numel()
    assert layer.macs == layer.n_weights * 8 * 8


def test_shared_weights_are_named():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten())
    network[2].weight = network[0].weight
    with pytest.raises(ConfigError, match=r"No layer .* '0' shares its weights with '2'"):
        describe(network, IMAGE)


def test_a_layer_that_runs_twice_is_searched_once():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    description = describe(nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten()), IMAGE)
    (given,) = description.layers
    assert (given.state, given.layer.macs) == ("searched", 2 * 9 * 9 * 64)


def test_layers_that_do_not_run_are_noted():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.auxiliary = nn.Linear(192, 10), nn.Linear(192, 10)

        def forward(self, x):
            y = self.fc(x.flatten(1))
            return (y, self.auxiliary(x.flatten(1))) if self.training else y

    description = describe(Auxiliary(), IMAGE)
    assert [given.layer.name for given in description.layers] == ["fc"]
    assert "Linear 'auxiliary' does not run in evaluation mode" in description.notes[0]


def test_decisions_of_activations_are_noted():
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 10)

        def forward(self, x):
            y = self.fc(x.flatten(1))
            return y if y.sum() > 0 else -y

    (note,) = describe(Decides(), IMAGE).notes
    assert "decisions of activations" in note and "test_describe.py:" in note


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Flatten(), ConfigError, "No layer of mine can be searched. It has no convolution"),
        (
            nn.Sequential(nn.ConvTranspose2d(3, 2, 8), nn.Flatten()),
            ConfigError,
            "No layer of mine can be searched. `conv_transpose2d` in ConvTranspose2d '0'",
        ),
        (nn.Conv2d(3, 3, 1), UnsupportedError, r"got a tensor of shape \(2, 3, 8, 8\). Wrap it"),
        (Tail(nn.Linear(7, 1)), UnsupportedError, "Linear 'other' .*test_describe.py:"),
    ],
)
def test_what_cannot_be_described_is_an_error(network, error, message):
    with pytest.raises(error, match=message):
        describe(network, IMAGE, name="mine")


def test_several_outputs_are_refused():
    class Two(nn.Module):
        def forward(self, x):
            return {"logits": x, "features": x}

    with pytest.raises(UnsupportedError, match=r"got a dict\. Wrap it in a module"):
        describe(Two(), IMAGE)


def test_another_number_of_classes_is_refused():
    network = make("plain")
    check_classes(network, IMAGE, 10)
    with pytest.raises(ConfigError, match=r"has 10 outputs, but the data has 100 classes"):
        check_classes(network, IMAGE, 100)
