"""Packed files: the same graph comes back, the bytes are accounted for, damage is found."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tests.export.graphs import GraphBuilder, relu_net, residual_net, tiny_net, widened_net
from tests.export.random_graphs import random_net

from bitscout.errors import ExportError
from bitscout.export import packed_container
from bitscout.export.graph import (
    Concat,
    Conv,
    Grid,
    Input,
    IntegerGraph,
    MaxPool,
    Rescale,
    SumPool,
)
from bitscout.export.packed import load_packed, packed_account, save_packed
from bitscout.export.packed_container import from_bytes, to_bytes
from bitscout.export.packed_streams import (
    RECORDS_DICTIONARY,
    deflate,
    inflate,
    pack_steps,
    unpack_steps,
)
from bitscout.export.packed_structure import decode, encode, is_same
from bitscout.export.reference import Reference
from bitscout.export.windows import Windows

NETS = {
    "tiny": tiny_net,
    "several steps": lambda: tiny_net(1, one_step=False),
    "powers of two": lambda: tiny_net(2, power_of_two=True),
    "residual": lambda: residual_net(3, zero_point=3),
    "sums": lambda: relu_net(4),
    "more channels": lambda: widened_net(5),
}


def small_net():
    """One of each kind of value, so that every byte of its file can be tried."""
    b = GraphBuilder(0)
    x = b.input((1, 4, 4), bits=4)
    x = b.rescale(b.conv(x, 2, 3, bits=3), bits=4, spread=6)
    x = b.rescale(b.sum_pool(x), divisor=16)
    return b, b.build(b.linear(b.flatten(x), 2, bits=5))


def load_bytes(content, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    return load_packed(path)


@pytest.mark.parametrize("net", NETS)
def test_the_graph_comes_back_bit_for_bit_and_computes_the_same(net, tmp_path):
    builder, graph = NETS[net]()
    save_packed(graph, tmp_path / "net.safetensors")
    again = load_packed(tmp_path / "net.safetensors")
    assert_identical(again, graph)
    images = builder.images(4)
    expected = Reference(graph).run(images)
    np.testing.assert_array_equal(Reference(again).run(images), expected)


def assert_identical(actual, expected):
    """Field by field, not through the library's own comparison."""
    assert actual.output == expected.output
    assert [type(op) for op in actual] == [type(op) for op in expected]
    for a, b in zip(actual, expected, strict=True):
        assert vars(a).keys() == vars(b).keys()
        for key, value in vars(b).items():
            assert_identical_values(vars(a)[key], value, f"{b.name}.{key}")
        for key, value in vars(b.grid).items():
            assert_identical_values(vars(a.grid)[key], value, f"{b.name}.grid.{key}")


def assert_identical_values(actual, expected, name):
    if isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype, name
        assert actual.shape == expected.shape, name
        assert actual.tobytes() == expected.tobytes(), name
    elif not isinstance(expected, Grid):
        assert actual == expected, name


@given(st.integers(0, 2**32 - 1))
def test_random_graphs_come_back(seed):
    _, graph = random_net(seed)
    again = decode(from_bytes(to_bytes(encode(graph))))
    assert_identical(again, graph)
    assert is_same(again, graph)


def test_the_same_graph_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_packed(residual_net(7)[1], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_multipliers_that_do_not_follow_from_the_steps_are_kept():
    _, graph = residual_net(0)
    ops = list(graph.ops)
    index = next(i for i, op in enumerate(ops) if isinstance(op, Rescale) and len(op.inputs) > 1)
    ops[index] = replace(ops[index], multiplier=ops[index].multiplier + 1)
    assert_identical(
        decode(encode(replace(graph, ops=tuple(ops)))), replace(graph, ops=tuple(ops))
    )
    ops[index] = replace(ops[index], shift=ops[index].shift - 1)
    assert_identical(
        decode(encode(replace(graph, ops=tuple(ops)))), replace(graph, ops=tuple(ops))
    )


def test_steps_that_are_no_float32_numbers_are_kept():
    b = GraphBuilder(0)
    b.step = lambda low, high, shape=(): b.rng.uniform(low, high, shape)
    x = b.rescale(b.conv(b.input((2, 4, 4)), 3))
    graph = b.build(b.linear(b.flatten(x), 2))
    assert_identical(decode(encode(graph)), graph)


@pytest.mark.parametrize("scale", [1e-60, 1e60, 5e-324, 1e-45])
def test_steps_beyond_the_range_of_float32_are_kept(scale):
    image = Input("image", (1, 1, 1), Grid(np.array(scale), 8, 0, 255))
    graph = IntegerGraph((image,), "image")
    assert_identical(decode(encode(graph)), graph)


def test_a_grid_that_does_not_follow_is_kept():
    _, graph = relu_net()
    ops = tuple(
        replace(op, grid=replace(op.grid, quant_min=0)) if op.kind == "relu" else op
        for op in graph
    )
    # What pools a rectified tensor keeps its own grid.
    assert_identical(decode(encode(replace(graph, ops=ops))), replace(graph, ops=ops))


@pytest.mark.parametrize("net", NETS)
def test_the_payload_is_the_predicted_bits_rounded_up_per_tensor(net, tmp_path):
    _, graph = NETS[net]()
    path = tmp_path / "net.safetensors"
    account = save_packed(graph, path)
    per_layer = [-(-layer.weight.size * layer.weight_bits // 8) for layer in graph.layers]
    assert account.weight_bytes == sum(per_layer)
    assert account.bias_bytes * 8 == graph.bias_bits
    assert 0 <= account.payload_bytes * 8 - graph.size_bits < 8 * len(graph.layers)
    assert account.file_bytes == path.stat().st_size
    assert packed_account(path) == account


def test_the_account_is_that_of_the_safetensors_library(tmp_path):
    _, graph = tiny_net()
    path = tmp_path / "net.safetensors"
    account = save_packed(graph, path)
    with safetensors.safe_open(path, framework="np") as file:
        sizes = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
        assert file.metadata()["format"] == "bitscout-packed"
    assert sizes["weights"] == account.weight_bytes
    assert sizes["biases"] == account.bias_bytes
    assert sizes["steps"] == account.step_bytes
    assert sizes["structure"] == account.structure_bytes
    assert account.file_bytes == sum(sizes.values()) + account.header_bytes


def test_everything_that_is_no_payload_or_step_is_about_half_a_kilobyte(tmp_path):
    _, graph = tiny_net()
    account = save_packed(graph, tmp_path / "net.safetensors")
    assert account.structure_bytes + account.header_bytes < 600


def test_a_step_takes_four_bytes_at_most_and_an_exact_one_a_byte(tmp_path):
    for power_of_two, most in ((False, 4), (True, 1)):
        _, graph = tiny_net(power_of_two=power_of_two, one_step=False)
        account = save_packed(graph, tmp_path / "net.safetensors")
        # A step for every output channel and every tensor of codes.
        channels = sum(layer.shape[0] for layer in graph.layers)
        grids = sum(op.kind in ("input", "rescale") for op in graph)
        assert account.step_bytes <= most * (channels + grids)


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    _, graph = small_net()
    save_packed(graph, tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    harmless = 0
    for index in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[index] ^= 1 << bit
            try:
                again = decode(from_bytes(bytes(flipped)))
            except ExportError:
                continue
            # A space of the header's padding can become no other white space by one bit.
            harmless += 1
            assert is_same(again, graph)
    assert harmless == 0


def test_every_inverted_byte_is_found(tmp_path):
    _, graph = small_net()
    save_packed(graph, tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    for index in range(len(content)):
        damaged = content[:index] + bytes([content[index] ^ 0xFF]) + content[index + 1 :]
        with pytest.raises(ExportError, match="is not a packed network"):
            load_bytes(damaged, tmp_path)


def test_every_truncation_and_any_addition_is_found(tmp_path):
    _, graph = small_net()
    save_packed(graph, tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    for length in range(len(content)):
        with pytest.raises(ExportError, match="is not a packed network"):
            load_bytes(content[:length], tmp_path)
    with pytest.raises(ExportError, match="complete safetensors file"):
        load_bytes(content + b"\0", tmp_path)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(content):
    with pytest.raises(ExportError):
        from_bytes(content)


def test_a_file_of_another_program_is_refused(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file({"weights": np.zeros(3, dtype=np.float32)}, tmp_path / "x", metadata)
        with pytest.raises(ExportError, match="file of another program"):
            load_packed(tmp_path / "x")


@pytest.mark.parametrize("version", [b'"2"', b'"0"', b'"x"'])
def test_another_version_is_refused(version, tmp_path):
    content = to_bytes(encode(small_net()[1]))
    changed = content.replace(b'"format_version":"1"', b'"format_version":' + version)
    assert changed != content
    with pytest.raises(
        ExportError, match=r"expected version 1 of the format, got .* newer bitscout"
    ):
        load_bytes(changed, tmp_path)


def test_other_types_and_shapes_are_refused(tmp_path):
    metadata = {"format": "bitscout-packed", "format_version": "1", "sha256": ""}
    for array in (np.zeros(3, dtype=np.int16), np.zeros((2, 2), dtype=np.uint8)):
        save_file({"weights": array}, tmp_path / "x", metadata)
        with pytest.raises(ExportError, match="expected vectors of"):
            load_packed(tmp_path / "x")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        for read in (load_packed, packed_account):
            with pytest.raises(ExportError, match=r"expected a packed network, got: .*Name an"):
                read(path)


def rewritten(change):
    """A file with a right checksum and a structure that says something else."""
    arrays = encode(small_net()[1])
    structure = json.loads(inflate(arrays["structure"], "structure", RECORDS_DICTIONARY))
    # The first operation of each kind.
    records = {record["op"]: record for record in reversed(structure["operations"])}
    change(structure, records, arrays)
    arrays["structure"] = deflated(json.dumps(structure).encode())
    return to_bytes(arrays)


def deflated(text):
    return deflate(text, RECORDS_DICTIONARY)


def fields(kind, **changes):
    return lambda structure, records, arrays: records[kind].update(changes)


def steps(value):
    def change(structure, records, arrays):
        steps = unpack_steps(arrays["steps"])
        steps[1] = value
        arrays["steps"] = pack_steps(steps)

    return change


def shorter(name):
    def change(structure, records, arrays):
        arrays[name] = arrays[name][:-1]

    return change


def other_count_of_steps(change_count):
    def change(structure, records, arrays):
        steps = unpack_steps(arrays["steps"])
        arrays["steps"] = pack_steps(np.resize(steps, steps.size + change_count))

    return change


def longer(name):
    def change(structure, records, arrays):
        arrays[name] = np.append(arrays[name], arrays[name][:1])

    return change


CONTRADICTIONS = {
    "more weights": (fields("conv", weight=[4, 1, 3, 3]), "`weights` of 'conv1'|`biases`"),
    "fewer weights": (fields("linear", weight=[1, 2]), "last 6 bits"),
    "more features": (fields("linear", weight=[2, 3]), "`weights`|`weight`"),
    "fewer features": (fields("linear", weight=[1, 4]), r"to fit features of shape \(2,\)"),
    "more channels": (fields("conv", weight=[2, 2, 1, 3]), "1 channels in 1 groups|bits"),
    "huge": (fields("conv", weight=[2**20, 2**20, 2**20, 2**20]), "more values, got"),
    "larger": (fields("conv", weight=[2**21, 1, 3, 3]), "`weight` of 'conv1' to be 4 integers"),
    "empty": (fields("conv", weight=[0, 1, 3, 3]), "4 integers from 1"),
    "rank": (fields("conv", weight=[2, 9]), "`weight` of 'conv1' to be 4 integers"),
    "narrower": (fields("linear", bits=2), "bytes|values|bits"),
    "wider": (fields("linear", bits=8), "more values"),
    "one bit": (fields("conv", bits=1), "`bits` of 'conv1' to be an integer from 2 to 8, got 1"),
    "no bias": (fields("conv", bias=False), "values of 'biases'"),
    "odd bias": (fields("conv", bias=3), "`bias` of 'conv1' to be true"),
    "stride": (fields("conv", geometry=[0, 1, 1, 1, 1, 1, 1, 1, 1]), "positive strides"),
    "groups": (fields("conv", geometry=[1, 1, 1, 1, 1, 1, 1, 1, 2]), "2 groups"),
    "kernel": (fields("conv", geometry=[1, 1, 0, 0, 0, 0, 9, 1, 1]), "to fit an image"),
    "windows": (fields("sum_pool", kernel=[9, 9]), "windows that are not empty"),
    "pads": (fields("sum_pool", pads=[4, 0, 0, 0]), "`pads`"),
    "divisor": (fields("rescale", divisor=0), "`divisor`"),
    "divisors": (fields("rescale", divisor=[[1, 2]]), r"`divisor` of .* shape \(4, 4\)"),
    "ragged": (fields("rescale", divisor=[[1, 2], [3]]), "`divisor`"),
    "shift": (fields("rescale", multiplier=[[1]], shift=[63]), "`shift`"),
    "shifts": (fields("rescale", multiplier=[[1]], shift=[1, 2, 3]), "`shift`"),
    "multiplier": (fields("rescale", multiplier=[[2**31]], shift=[3]), "`multiplier`"),
    "multipliers": (fields("rescale", multiplier=[[1, 2]], shift=[3]), "`multiplier`"),
    "width": (fields("rescale", grid=[9, 0, 255, 0, 0]), "Codes of 9 bits"),
    "range": (fields("input", grid=[4, 0, 99, 0, 0]), "Codes of 4 bits"),
    "zero point": (fields("input", grid=[4, 0, 15, 16, 0]), "zero point 16"),
    "step count": (fields("input", grid=[4, 0, 15, 0, 7]), "0 or 1 steps"),
    "reader": (fields("rescale", inputs=["nothing"]), "to name operations before it"),
    "readers": (fields("linear", inputs=["image", "conv1"]), "`inputs`"),
    "shapes": (fields("rescale", inputs=["image", "conv1"]), "to have one shape"),
    "no inputs": (fields("rescale", inputs=[]), "`inputs`"),
    "duplicate": (fields("rescale", name="image"), "to be unique"),
    "nameless": (fields("conv", name=None), "`name` of an operation to be a text"),
    "operation": (fields("conv", op="deconv"), "to be an operation of this version"),
    "shape": (fields("input", shape=[]), "to have a dimension"),
    "image": (fields("input", shape=[16]), r"to have shape \(C, H, W\)"),
    "bool": (fields("input", shape=[True, 4, 4]), "`shape`"),
    "zero step": (steps(0.0), "positive and finite"),
    "negative step": (steps(-1.0), "positive"),
    "NaN step": (steps(np.nan), "positive and finite"),
    "infinite step": (steps(np.inf), "positive and finite"),
    "fewer biases": (shorter("biases"), "`biases`"),
    "fewer steps": (other_count_of_steps(-1), "`steps` of 'rescale7' to have 1 more values"),
    "more steps": (other_count_of_steps(1), "expected 8 values of 'steps', .*got 9"),
    "half of the steps": (shorter("steps"), "`steps` deflated"),
    "twice the last byte": (longer("steps"), "`steps` deflated"),
    "fewer bytes": (shorter("weights"), "`weights`"),
    "more bytes": (longer("weights"), "values of 'weights'"),
    "more biases": (longer("biases"), "values of 'biases'"),
    "output": (lambda s, r, a: s.update(output="nothing"), "output 'nothing'"),
    "no output": (lambda s, r, a: s.pop("output"), "name of the output"),
    "no operations": (lambda s, r, a: s.update(operations=3), "list of operations"),
    "bad operations": (lambda s, r, a: s["operations"].append(3), "list of operations"),
    "another array": (lambda s, r, a: a.update(more=np.zeros(1, np.uint8)), "values of 'more'"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_structure_that_contradicts_the_arrays_is_refused(name, tmp_path):
    change, message = CONTRADICTIONS[name]
    with pytest.raises(ExportError, match=message) as caught:
        load_bytes(rewritten(change), tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_channels_that_the_groups_do_not_divide_are_refused():
    b = GraphBuilder(0)
    arrays = encode(b.build(b.conv(b.input((2, 4, 4)), 4, 3, groups=2), one_step=False))
    structure = json.loads(inflate(arrays["structure"], "structure", RECORDS_DICTIONARY))
    structure["operations"][1]["weight"][0] = 3
    arrays["structure"] = deflated(json.dumps(structure).encode())
    with pytest.raises(ExportError, match="to fit 2 channels in 2 groups"):
        decode(arrays)


@pytest.mark.parametrize(
    "blob",
    [b"", b"nonsense", deflated(b"[1]"), deflated(b"{"), deflated(b"{}")[:-1]],
)
def test_a_structure_that_is_no_json_is_refused(blob):
    arrays = encode(small_net()[1])
    arrays["structure"] = np.frombuffer(bytes(blob), dtype=np.uint8)
    with pytest.raises(ExportError, match="expected"):
        decode(from_bytes(to_bytes(arrays)))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from((-1, 0, 1, 2, 3, 8, 2**31)),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-2, 9), max_size=4),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@given(st.data())
def test_any_other_value_in_the_structure_is_refused_or_a_graph(data):
    def change(structure, records, arrays):
        record = data.draw(st.sampled_from(structure["operations"]))
        key = data.draw(
            st.sampled_from([*sorted(record), "inputs", "multiplier", "shift", "rows"])
        )
        record[key] = data.draw(leaves)

    try:
        graph = decode(from_bytes(rewritten(change)))
    except ExportError:
        return
    assert isinstance(graph, IntegerGraph)
    assert is_same(decode(encode(graph)), graph)


@pytest.mark.parametrize(
    ("factors", "complaint"),
    [
        ({"multiplier": [[1]], "shift": [62], "divisor": 2}, "'out' divides by"),
        ({"multiplier": [[2**31 - 1]] * 2**4, "shift": [0]}, "products of"),
    ],
)
def test_a_file_whose_integers_would_overflow_is_refused(factors, complaint, tmp_path):
    sums = "sums" if "divisor" not in factors else "image"
    image = Input("image", (1, 2900, 2900), Grid(np.array(0.5), 8, 0, 255))
    windows = Windows(((0, 2900),), ((0, 2900),), (2900, 2900))
    pool = SumPool("sums", ("image",), (1, 1, 1), Grid.sums(np.array(0.5)), windows)
    values = {key: np.array(value) for key, value in factors.items()}
    shape = (1, 1, 1) if sums == "sums" else image.shape
    out = Rescale("out", (sums,) * len(values["multiplier"]), shape, image.grid, **values)
    save_packed(IntegerGraph((image, pool, out), "out"), tmp_path / "net")
    with pytest.raises(ExportError, match=rf"net is not a packed network: .*{complaint}.*again"):
        load_packed(tmp_path / "net")


def test_a_graph_that_contradicts_itself_is_not_written(tmp_path):
    _, graph = relu_net()
    ops = tuple(
        replace(op, shape=(8, 3, 3)) if isinstance(op, MaxPool) else op for op in graph.ops
    )
    with pytest.raises(ExportError, match="of 'max6' do not follow from what it reads"):
        save_packed(replace(graph, ops=ops), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def changed_conv(**changes):
    _, graph = small_net()
    return replace(
        graph,
        ops=tuple(replace(op, **changes) if isinstance(op, Conv) else op for op in graph.ops),
    )


def test_weights_and_biases_that_do_not_fit_are_not_written(tmp_path):
    weight = np.full((2, 1, 3, 3), 4, dtype=np.int8)
    with pytest.raises(ExportError, match="Codes of 3 bits"):
        save_packed(changed_conv(weight=weight), tmp_path / "net")
    with pytest.raises(ExportError, match="A bias of 'conv1' is beyond an int32"):
        save_packed(changed_conv(bias=np.array([2**31, 0])), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ExportError, match=r"Cannot write .*net: No such file.*Choose a file"):
        save_packed(small_net()[1], tmp_path / "missing" / "net")


def test_nothing_is_left_behind_and_the_old_file_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "net"
    path.write_bytes(b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed_container.os, "fsync", fail)
    with pytest.raises(ExportError, match="No space left"):
        save_packed(small_net()[1], path)
    assert [found.name for found in tmp_path.iterdir()] == ["net"]
    assert path.read_bytes() == b"old"


def test_a_folder_in_the_way_is_an_error_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(ExportError, match="Cannot write"):
        save_packed(small_net()[1], tmp_path / "net")
    assert [found.name for found in tmp_path.iterdir()] == ["net"]


def test_comparison_sees_every_difference():
    _, graph = residual_net()
    assert is_same(graph, residual_net()[1])
    changes = [
        ("output", graph.ops[3].name),
        ("ops", graph.ops[:-1]),
        ("ops", (replace(graph.ops[0], shape=(3, 12, 13)), *graph.ops[1:])),
        (
            "ops",
            (replace(graph.ops[0], grid=replace(graph.ops[0].grid, zero_point=1)), *graph.ops[1:]),
        ),
    ]
    for key, value in changes[2:]:
        assert not is_same(replace(graph, **{key: value}), graph)
    assert not is_same(replace(graph, output=graph.ops[3].name), graph)
    assert not is_same(graph.ops[:-1], graph.ops)
    concat = next(op for op in graph.ops if isinstance(op, Concat))
    assert not is_same(concat, replace(concat, grid=Grid.sums(concat.grid.scale * 2)))
