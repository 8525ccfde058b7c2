"""The generated C: the integers of the reference, no warnings, no undefined behaviour."""

import errno
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.export.compiled import SANITIZERS, STRICT, Compiled, one_vector
from tests.export.graphs import GraphBuilder, relu_net, residual_net, tiny_net
from tests.export.random_graphs import random_net
from tests.export.special_graphs import SPECIAL

from bitscout.errors import ConfigError, ExportError, UnsupportedError
from bitscout.export.c import write_c
from bitscout.export.c.names import kernel_text
from bitscout.export.c.program import Program
from bitscout.export.checks.tools import find_c_compiler
from bitscout.export.fixed_point import apply_rescale
from bitscout.export.graph import IntegerGraph
from bitscout.export.reference import Reference

needs_compiler = pytest.mark.skipif(find_c_compiler() is None, reason="no C compiler")

NETS = {
    "tiny": lambda: tiny_net(),
    "tiny, powers of two": lambda: tiny_net(1, power_of_two=True),
    "residual": lambda: residual_net(zero_point=-7),
    "residual, powers of two": lambda: residual_net(2, power_of_two=True, zero_point=3),
    "sums": lambda: relu_net(),
}


def codes_of(graph, n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        op.name: rng.integers(op.grid.quant_min, op.grid.quant_max + 1, (n, *op.shape))
        for op in graph.inputs
    }


def assert_agrees(compiled, n):
    for index, graph in enumerate(compiled.graphs):
        codes = codes_of(graph, n)
        expected = Reference(graph).run_codes(codes)
        np.testing.assert_array_equal(compiled.run(index, codes), expected, err_msg=str(index))


@needs_compiler
def test_networks_compute_the_reference_without_undefined_behaviour(tmp_path):
    graphs = [make()[1] for make in [*NETS.values(), *SPECIAL]]
    assert_agrees(Compiled(graphs, tmp_path), n=20)


@needs_compiler
def test_random_networks_compute_the_reference_without_undefined_behaviour(tmp_path):
    graphs = [random_net(seed)[1] for seed in range(16)]
    assert_agrees(Compiled(graphs, tmp_path, ["-O0", *SANITIZERS]), n=4)


@needs_compiler
@pytest.mark.slow
def test_many_random_networks_compute_the_reference(tmp_path):
    graphs = [random_net(seed, n_ops=14)[1] for seed in range(100, 140)]
    assert_agrees(Compiled(graphs, tmp_path, ["-O0", *SANITIZERS]), n=4)


@needs_compiler
def test_every_level_of_optimization_computes_the_same(tmp_path):
    graphs = [NETS[name]()[1] for name in ("tiny", "residual, powers of two", "sums")]
    compiled = Compiled(graphs, tmp_path, ["-O0"])
    assert_agrees(compiled, n=50)
    for level in ("-O1", "-O2", "-O3", "-Os"):
        compiled.compile([level])
        assert_agrees(compiled, n=50)


CLASS_MAIN = """
#include "net.h"
#include <stdio.h>
int main(void)
{{
    static int32_t outputs[{n}][NET_OUTPUT_SIZE];
    int i;
    if (fread(outputs, sizeof outputs, 1, stdin) != 1) {{
        return 1;
    }}
    for (i = 0; i < {n}; i++) {{
        printf("%d ", (int)net_class(outputs[i]));
    }}
    return 0;
}}
"""


@needs_compiler
@pytest.mark.parametrize("has_steps", [False, True])
def test_the_class_is_that_of_the_largest_real_output(tmp_path, has_steps):
    b, graph = tiny_net()
    if has_steps:  # The sums of the last layer, each class on its own step.
        graph = IntegerGraph(graph.ops[:-1], graph.layers[-1].name)
    write_c(graph, tmp_path / "net", name="net")
    outputs = b.rng.integers(-30_000, 30_000, (200, 10)).astype(np.int32)
    outputs[:100] = -abs(outputs[:100])
    (tmp_path / "net" / "main.c").write_text(CLASS_MAIN.format(n=len(outputs)))
    command = [*find_c_compiler(), *STRICT, "-o", "main", "main.c", "net.c"]
    subprocess.run(command, cwd=tmp_path / "net", check=True, timeout=60)
    done = subprocess.run([tmp_path / "net" / "main"], input=outputs.tobytes(),
                          capture_output=True, check=True)  # fmt: skip
    scale = graph[graph.output].grid.scale
    assert (scale.ndim > 0) == has_steps
    expected = (outputs * scale).argmax(axis=1)
    assert [int(word) for word in done.stdout.split()] == expected.tolist()
    if has_steps:
        assert (expected != outputs.argmax(axis=1)).any()


HARNESS = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
{kernels}
/* Cases of value, multiplier, shift, zero point in; codes, sums, and both from the general
 * kernel out. */
int main(void)
{{
    int32_t c[4];
    while (fread(c, sizeof c, 1, stdin) == 1) {{
        const int32_t multiplier = c[1];
        const uint8_t shift = (uint8_t)c[2];
        const rescale_t r = {{&multiplier, &shift, NULL, 0, 0, c[3], -128, 127}};
        const rescale_t wide = {{&multiplier, &shift, NULL, 0, 0, 0, -2147483647, 2147483647}};
        const uint32_t value = (uint32_t)c[0];
        const operand_t operand = {{NULL, &c[0], 0}};
        int8_t code, code_2;
        int32_t out[4];
        target_t target = {{&r, NULL, NULL}};
        target.codes = &code;
        finish(&target, 1, &value, 1, 1, 1, 0, 1, 0);
        target.codes = NULL;
        target.sums = &out[1];
        target.rescale = &wide;
        finish(&target, 1, &value, 1, 1, 1, 0, 1, 0);
        rescale(&r, &operand, 1, 1, 1, &code_2, NULL);
        rescale(&wide, &operand, 1, 1, 1, NULL, &out[3]);
        out[0] = code;
        out[2] = code_2;
        fwrite(out, sizeof out, 1, stdout);
    }}
    return 0;
}}
"""


@needs_compiler
@pytest.mark.parametrize("rounding", ["round_shift", "round_divide"])
def test_rescaling_is_exact_for_every_shift_and_for_ties(tmp_path, rounding):
    kernels = ("function", "dsp", "types", rounding, "clamp", "finish", "rescale")
    text = HARNESS.format(kernels="\n".join(kernel_text(f"{k}.c") for k in kernels))
    (tmp_path / "main.c").write_text(text)
    subprocess.run(
        [*find_c_compiler(), "-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-o",
         "main", "main.c"], cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    n = 200_000
    shift = rng.integers(0, 63, n)
    multiplier = rng.integers(2**30, 2**31, n)
    # Half of them powers of two, and values that are odd multiples of half a step or near.
    is_power = rng.random(n) < 0.5
    multiplier[is_power] = 2**30
    exponent = np.clip(shift - 31, 0, 22)
    steps = rng.integers(-300, 300, n) << exponent
    value = np.where(rng.random(n) < 0.7, steps, rng.integers(-(2**31) + 1, 2**31, n))
    value = np.clip(value + rng.choice([-1, 0, 0, 0, 1], n), -(2**31) + 1, 2**31 - 1)
    zero = rng.integers(-128, 128, n)
    cases = np.stack([value, multiplier, shift, zero], axis=1).astype(np.int32)
    done = subprocess.run([tmp_path / "main"], input=cases.tobytes(), capture_output=True,
                          check=True, timeout=60)  # fmt: skip
    outputs = np.frombuffer(done.stdout, dtype=np.int32).reshape(n, 4)
    # A channel for each case; its zero point is added outside of the formula.
    quotient = apply_rescale(
        [value], multiplier[None], shift, np.array(1), zero_point=0,
        quant_range=(-(2**62), 2**62),
    )  # fmt: skip
    codes = np.clip(quotient + zero, -128, 127)
    sums = np.clip(quotient, -(2**31) + 1, 2**31 - 1)
    np.testing.assert_array_equal(outputs, np.stack([codes, sums, codes, sums], axis=1))
    product = np.abs(value * multiplier)
    is_tie = product % (1 << shift) == (1 << shift) >> 1
    assert np.count_nonzero(is_tie & (shift > 32)) > 1000


@needs_compiler
def test_make_test_passes_and_a_wrong_vector_fails(tmp_path):
    _, graph = tiny_net()
    write_c(graph, tmp_path / "net", name="tiny")
    make = ["make", "-C", str(tmp_path / "net"), "test"]
    assert "PASS: 3 vectors" in subprocess.run(make, capture_output=True, text=True).stdout
    vectors = tmp_path / "net" / "tiny_vectors.h"
    text = vectors.read_text()
    before, after = text.split("expected[3][10] = {\n    {\n    ")
    vectors.write_text(f"{before}expected[3][10] = {{\n    {{\n    1 + {after}")
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FAIL: 1 of 30" in done.stdout


def test_the_source_has_no_floating_point_and_no_library(tmp_path):
    for index, make in enumerate([*NETS.values(), *SPECIAL]):
        write_c(make()[1], tmp_path / str(index), name="net")
        text = (tmp_path / str(index) / "net.c").read_text()
        assert not re.search(r"\b(float|double|malloc|calloc|free|memcpy)\b", text)
        assert re.findall(r"#include (.*)", text) == ['"net.h"', "<stddef.h>"]
        assert max(map(len, text.splitlines())) < 200


def macros(folder, name="net"):
    text = (folder / f"{name}.h").read_text()
    found = re.findall(rf"#define {name.upper()}_(\w+) \(?(-?\d+)\)?$", text, re.MULTILINE)
    return {key: int(value) for key, value in found}


def test_the_header_states_sizes_grids_and_costs(tmp_path):
    _, graph = tiny_net()
    write_c(graph, tmp_path / "net", name="net")
    found = macros(tmp_path / "net")
    sizes = ("SIZE", "CHANNELS", "HEIGHT", "WIDTH", "ZERO_POINT", "MIN", "MAX")
    assert [found[f"INPUT_{key}"] for key in sizes] == [768, 3, 16, 16, -128, -128, 127]
    step = found["INPUT_STEP_NUMERATOR"] / 2 ** found["INPUT_STEP_SHIFT"]
    assert step == graph["image"].grid.scale
    step = found["OUTPUT_STEP_NUMERATOR"] / 2 ** found["OUTPUT_STEP_SHIFT"]
    assert step == graph[graph.output].grid.scale
    assert found["OUTPUT_SIZE"] == 10
    # Weights packed without a gap, a byte begun for each layer.
    counted = sum(-(-op.weight.size * op.weight_bits // 8) for op in graph.layers)
    assert found["WEIGHT_BYTES"] == counted
    assert found["BIAS_BYTES"] == 4 * (16 + 16 + 32 + 32 + 48 + 10)
    macs = 64 * 16 * 27 + 64 * 16 * 9 + 64 * 32 * 16 + 16 * 32 * 9 + 16 * 48 * 32 + 10 * 48
    assert found["MACS"] == macs
    # Sums are never stored: the largest two neighbours are 16 and 32 channels of 8 x 8 codes.
    assert found["TENSOR_PEAK_BYTES"] == 64 * (16 + 32)
    assert found["ARENA_BYTES"] == found["PEAK_BYTES"] == 64 * (16 + 32) + 2 * 16


def test_a_residual_addition_replaces_its_operand():
    b = GraphBuilder(0)
    x = b.rescale(b.conv(b.input((4, 4, 4)), 8, 1))
    y = b.rescale(b.conv(x, 8, 1))
    memory = Program.of(b.build(b.linear(b.flatten(b.rescale(x, y)), 2))).memory
    assert memory.tensor_peak_bytes == 2 * 8 * 16


def test_only_the_needed_kernels_are_written(tmp_path):
    write_c(relu_net()[1], tmp_path / "net")
    text = (tmp_path / "net" / "network.c").read_text()
    assert "conv(" in text
    assert not re.search("depthwise|flatten_|concat|relu_codes|add\\(|size / unit", text)


@pytest.mark.parametrize("name", ["Net", "1st", "a-b", "", "test", "int"])
def test_a_name_that_is_none_in_c_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="lower-case C identifier"):
        write_c(tiny_net()[1], tmp_path / "net", name=name)
    with pytest.raises(ConfigError, match="'host' or 'cortex-m', got 'esp32'"):
        write_c(tiny_net()[1], tmp_path / "net", target="esp32")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_ours_is_replaced_and_another_is_not(tmp_path):
    _, graph = tiny_net()
    ours, foreign = tmp_path / "a" / "ours", tmp_path / "foreign"
    write_c(graph, ours, name="old", vectors=one_vector(graph))
    write_c(graph, ours, name="new", vectors=one_vector(graph))
    assert {"new.c", "new.h", "new_test.c", "Makefile"} < {f.name for f in ours.iterdir()}
    assert not (ours / "old.c").exists()
    assert [f.name for f in ours.parent.iterdir()] == ["ours"]
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="was not written by bitscout"):
        write_c(graph, foreign)
    assert [f.name for f in foreign.iterdir()] == ["thesis.tex"]
    (ours / "main.c").write_text("x")
    (ours / "new_test").write_text("made by the Makefile")
    with pytest.raises(ExportError, match=r"'main\.c' was not written by bitscout"):
        write_c(graph, ours, name="new", vectors=one_vector(graph))
    (ours / "main.c").unlink()
    write_c(graph, ours, name="new", vectors=one_vector(graph))
    assert not (ours / "new_test").exists()


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    _, graph = tiny_net()
    vectors = one_vector(graph)
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "net", Path("/proc/net_of_bitscout")):
        with pytest.raises(ExportError, match=f"Cannot write '{folder}'.*Choose another folder"):
            write_c(graph, folder, vectors=vectors)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("also_back", [False, True])
def test_the_old_folder_survives_when_the_new_one_cannot_be_moved(
    tmp_path, monkeypatch, also_back
):
    _, graph = tiny_net()
    folder = tmp_path / "net"
    write_c(graph, folder, name="old", vectors=one_vector(graph))
    move = Path.rename

    def rename(self, target):
        if self.name == "new" or (also_back and self.name == "old"):
            raise OSError(errno.ENOSPC, "no space left")
        return move(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ExportError, match="no space left") as caught:
        write_c(graph, folder, name="new", vectors=one_vector(graph))
    (found,) = tmp_path.iterdir()
    if also_back:
        found /= "old"
        assert f"The folder that was there is now {str(found)!r}" in str(caught.value)
    else:
        assert found == folder
    assert (found / "old.c").is_file()


def test_what_is_too_large_is_refused_and_nothing_is_left(tmp_path):
    b = GraphBuilder(0)
    x = b.input((1, 1, 40_000))
    graph = b.build(b.linear(b.flatten(x), 2))
    with pytest.raises(UnsupportedError, match=r"'image' of shape .* too large for C"):
        write_c(graph, tmp_path / "net", vectors=one_vector(graph))
    assert not list(tmp_path.iterdir())
