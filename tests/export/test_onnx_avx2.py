"""The exported file on processors without VNNI: docs/adr/0007-onnx-on-avx2.md."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.export.graphs import GraphBuilder

from bitscout.export.onnx_qdq import onnx_model, storage, write_onnx
from bitscout.export.reference import Reference

RUNNER = Path(__file__).parent / "onnx_runner.py"


def wide_net(seed):
    """8-bit weights on bright 8-bit activations: pairs of products leave 16 bits."""
    b = GraphBuilder(seed, power_of_two=True)
    x = b.rescale(b.conv(b.input((3, 8, 8)), 32, 3, bits=8), spread=200)
    x = b.rescale(b.conv(x, 32, 1, bits=8), signed=True, spread=100)
    x = b.rescale(b.conv(x, 32, 1, bits=7), spread=200)
    x = b.rescale(b.sum_pool(x), divisor=64, spread=200)
    return b, b.build(b.linear(b.flatten(x), 10, bits=8), one_step=False)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (qemu-user)")
def test_a_processor_without_vnni_computes_the_same_where_the_naive_file_is_wrong(
    tmp_path, monkeypatch
):
    b, graph = wide_net(0)
    images = b.images(8)
    np.save(tmp_path / "images.npy", images)
    write_onnx(graph, tmp_path / "ours.onnx")
    write_onnx(graph, tmp_path / "packed.onnx", "packed")
    monkeypatch.setattr(storage, "can_saturate", lambda *args: False)
    write_onnx(graph, tmp_path / "naive.onnx")

    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, str(RUNNER), str(tmp_path)]
    subprocess.run([*command, "ours", "packed", "naive"], check=True, capture_output=True)

    expected = graph.scores(Reference(graph).run(images))
    wrong = {
        name: (np.load(tmp_path / f"{name}.npy") != expected).sum(axis=(1, 2)).tolist()
        for name in ("ours", "packed", "naive")
    }
    assert wrong["ours"] == wrong["packed"] == [0, 0, 0, 0]
    # Otherwise this test would show nothing.
    assert wrong["naive"][:2] == [0, 0]
    assert min(wrong["naive"][2:]) > expected.size / 2


@pytest.mark.parametrize(
    ("weights", "largest_code", "expected"),
    [
        ([127, 2], 255, True),  # 32895
        ([127, 1], 255, False),  # 32640
        ([-127, -2], 255, True),
        ([-127, -1], 255, False),
        ([127, -127], 255, False),  # They cancel.
        ([127], 255, False),
        ([127, 127], 129, False),  # 32766
        ([127, 127], 130, True),
        ([5, 100, 3, -100, 29], 255, True),  # Not neighbours, but might become ones.
        ([63] * 9, 255, False),
    ],
)
def test_a_pair_of_products_beyond_16_bits_is_foreseen(weights, largest_code, expected):
    weight = np.array([[0] * len(weights), weights], dtype=np.int8)

    assert storage.can_saturate(weight, largest_code) is expected
    assert storage.can_saturate(weight.reshape(2, -1, 1, 1), largest_code) is expected


def test_only_layers_that_could_saturate_get_unsigned_weights():
    _, graph = wide_net(0)

    nodes = storage.Nodes()
    forms = [storage.store_weight(nodes, layer, "int8", 255).form for layer in graph.layers]

    assert forms == ["uint8", "uint8", "int8", "uint8"]
    assert storage.store_weight(nodes, graph.layers[0], "int8", 15).form == "int8"


def test_signed_activations_count_as_the_file_has_them():
    b = GraphBuilder(0)
    x = b.rescale(b.conv(b.input((4, 4, 4), signed=True), 8, bits=8), bits=4, signed=True)
    graph = b.build(b.conv(x, 8, bits=8), one_step=False)

    said = {entry.key: entry.value for entry in onnx_model(graph).metadata_props}
    forms = [layer["stored_as"] for layer in json.loads(said["bitscout.layers"]).values()]

    # Codes up to 127 + 128, and up to 7 + 8.
    assert forms == ["uint8", "int8"]
