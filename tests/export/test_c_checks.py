"""Compiled C and the Cortex-M image as checks: passed, failed, not run, and why."""

import os
import re
import shutil

import numpy as np
import pytest
from tests.export.graphs import relu_net, residual_net, tiny_net
from tests.export.special_graphs import additions, dilated, image_of_sums, many_readers

from bitscout.errors import UnsupportedError
from bitscout.export.c import CortexMMemory, write_c
from bitscout.export.c.header import macs
from bitscout.export.c.program import Program
from bitscout.export.checks import cortex_m, host_c, tools
from bitscout.export.checks.cortex_m import check_cortex_m, require_cortex_m_tools
from bitscout.export.checks.host_c import check_host_c, require_c_compiler
from bitscout.export.checks.result import CheckInputs
from bitscout.export.reference import Reference

needs_compiler = pytest.mark.skipif(tools.find_c_compiler() is None, reason="no C compiler")
missing_tools = cortex_m._missing_tools()
needs_cortex_m = pytest.mark.skipif(bool(missing_tools), reason=missing_tools)


def inputs_for(builder, graph, folder, n=20):
    images = builder.images(n)
    reference = Reference(graph)
    codes = reference.quantize(images)
    return CheckInputs(images, codes, reference.run_codes(codes), folder)


@needs_compiler
def test_compiled_c_passes_and_says_what_it_takes(tmp_path):
    builder, graph = tiny_net()
    (result,) = check_host_c(graph, inputs_for(builder, graph, tmp_path))
    assert (result.state, result.reason, result.outputs) == ("passed", "", 200)
    assert (result.mismatches, result.argmax_agreement, result.grid) == (0, 1.0, "exact")
    packed = sum(-(-op.weight.size * op.weight_bits // 8) for op in graph.layers)
    assert result.details["weight_bytes"] == packed
    assert result.details["arena_bytes"] == 64 * (16 + 32) + 2 * 16


@needs_compiler
def test_every_image_is_compared(tmp_path):
    builder, graph = tiny_net()
    inputs = inputs_for(builder, graph, tmp_path)
    inputs.outputs[-1, 3] += 2
    (result,) = check_host_c(graph, inputs)
    assert (result.state, result.mismatches, result.max_lsb) == ("failed", 1, 2)


@needs_compiler
@pytest.mark.parametrize(("most", "n_images"), [(1, 16), (18.5, 18), (100, 20)])
def test_a_large_network_runs_fewer_images_but_sixteen(tmp_path, monkeypatch, most, n_images):
    builder, graph = tiny_net()
    monkeypatch.setattr(host_c, "MAX_MACS", int(most * macs(Program.of(graph))))
    (result,) = check_host_c(graph, inputs_for(builder, graph, tmp_path))
    assert (result.state, result.outputs) == ("passed", 10 * n_images)


def test_without_a_compiler_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    builder, graph = tiny_net()
    (result,) = check_host_c(graph, inputs_for(builder, graph, tmp_path))
    assert (result.state, result.reason) == ("not run", host_c.HOW_TO_INSTALL)
    with pytest.raises(UnsupportedError, match="there is no C compiler: install gcc or clang"):
        require_c_compiler()
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path))
    assert result.state == "not run"
    assert "gcc-arm-none-eabi" in result.reason
    assert "qemu-system-arm" in result.reason
    with pytest.raises(UnsupportedError, match="install the packages gcc-arm-none-eabi"):
        require_cortex_m_tools()
    assert not list(tmp_path.iterdir())


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("echo warning >&2; echo 'a.c:1: error: no luck' >&2; exit 1", "a.c:1: error: no luck"),
        ("exit 1", "no message"),
        ("sleep 5", "was stopped after 0.5 s"),
        ("printf '#!/bin/sh\\nexit 3' > runner; chmod +x runner", "after 0 of 80 bytes"),
    ],
)
def test_a_compiler_or_a_program_that_fails_is_a_failure(tmp_path, monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", script(tmp_path / "mycc", compiler))
    monkeypatch.setattr(host_c, "COMPILE_TIMEOUT_S", 0.5)
    builder, graph = tiny_net()
    (result,) = check_host_c(graph, inputs_for(builder, graph, tmp_path, n=2))
    assert result.state == "failed"
    assert reason in result.reason


@needs_cortex_m
def test_the_cortex_m_image_passes_and_is_measured(tmp_path):
    builder, graph = residual_net(power_of_two=True, zero_point=-5)
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path), n_images=2)
    assert (result.state, result.reason) == ("passed", "")
    assert (result.outputs, result.mismatches) == (14, 0)
    details = result.details
    assert details["ram_bytes"] == details["static_ram_bytes"] + details["stack_bytes"]
    header = (tmp_path / "cortex_m" / "network.h").read_text()
    arena = int(re.search(r"ARENA_BYTES (\d+)", header).group(1))
    constants = sum(map(int, re.findall(r"(?:WEIGHT|BIAS|OTHER_CONSTANT)_BYTES (\d+)", header)))
    assert details["static_ram_bytes"] == arena
    assert constants < details["flash_bytes"] < constants + 8000
    assert 200 < details["stack_bytes"] < 2000
    assert details["instructions_per_mac"] < 12


@needs_cortex_m
@pytest.mark.parametrize("make", [relu_net, additions, dilated, image_of_sums, many_readers])
def test_the_instructions_for_two_products_compute_the_same(tmp_path, make):
    builder, graph = make()
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path), n_images=4)
    assert (result.state, result.reason) == ("passed", "")


@needs_cortex_m
def test_a_wrong_output_on_the_cortex_m_is_a_failure(tmp_path):
    builder, graph = tiny_net()
    inputs = inputs_for(builder, graph, tmp_path)
    inputs.outputs[1, 3] -= 1
    (result,) = check_cortex_m(graph, inputs, n_images=2)
    assert (result.state, result.outputs, result.mismatches) == ("failed", 20, 1)


@needs_cortex_m
@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        # By its constants or its tensors alone, or only with code, test vectors and start-up.
        (CortexMMemory(flash_bytes=2048), r"at least \d+ bytes in 2048 of FLASH"),
        (CortexMMemory(ram_bytes=8192), "at least 11296 bytes in 8192 of RAM"),
        (CortexMMemory(flash_bytes=8192), r"\d+ bytes in 8192 of FLASH"),
        (CortexMMemory(ram_bytes=5184, stack_bytes=2048), r"\d+ bytes in 5184 of RAM"),
    ],
)
def test_a_network_that_does_not_fit_the_board_is_a_failure(tmp_path, memory, reason):
    builder, graph = tiny_net()
    inputs = inputs_for(builder, graph, tmp_path)
    (result,) = check_cortex_m(graph, inputs, memory=memory)
    assert result.state == "failed"
    assert re.fullmatch(f"does not fit the board: {reason}", result.reason)
    is_built = (tmp_path / "cortex_m").exists()
    assert is_built == ("at least" not in reason)


@needs_cortex_m
def test_an_emulator_that_says_nothing_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(cortex_m, "RUN_TIMEOUT_S", 5)
    monkeypatch.setenv("QEMU", script(tmp_path / "qemu", "echo broken >&2; exit 1"))
    builder, graph = tiny_net()
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path))
    assert result.state == "failed"
    assert result.reason.startswith("the image stopped after 0 of 30 outputs")


@needs_cortex_m
@pytest.mark.parametrize("odd", ["stack_bytes 9", "output 99999999999", "output 4294967296"])
def test_an_emulator_that_says_something_odd_is_a_failure(tmp_path, monkeypatch, odd):
    builder, graph = tiny_net()
    lines = "\n".join(["output 1"] * 29 + ["output 1" if "stack" in odd else odd, odd])
    monkeypatch.setenv("QEMU", script(tmp_path / "qemu", f"echo '{lines}'"))
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path))
    assert result.state == "failed"
    assert result.reason.startswith("the image stopped after ")


def test_instructions_are_counted_in_64_bits():
    text = "output 7\ninstructions 18446744073709551615\nwrong ²\nPASS\noutput 1 2\n"
    assert cortex_m._numbers(text) == {"output": [7], "instructions": [2**64 - 1]}


@needs_cortex_m
@pytest.mark.parametrize("printed", ["", "one line", "text data\nx y z", "text\n1 2"])
def test_sizes_that_cannot_be_read_are_a_failure(tmp_path, monkeypatch, printed):
    builder, graph = tiny_net()
    script(tmp_path / "arm-none-eabi-size", f"printf '{printed}'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (result,) = check_cortex_m(graph, inputs_for(builder, graph, tmp_path), n_images=1)
    assert result.state == "failed"
    assert result.reason.startswith("arm-none-eabi-size gave no sizes")


@needs_cortex_m
def test_the_folder_builds_and_runs_alone(tmp_path):
    write_c(tiny_net()[1], tmp_path / "net", name="tiny", target="cortex-m")
    moved = shutil.move(tmp_path / "net", tmp_path / "elsewhere")
    done = tools.run_tool(["make", "test", "qemu"], folder=moved, timeout_s=60)
    assert done.is_good
    assert b"PASS: 3 vectors" in done.stdout
    assert "wrong 0\nPASS" in done.stderr + done.stdout.decode()


def test_the_first_line_is_the_first_that_matters():
    assert tools.first_line("a\n\nb: error: c\n", "error") == "b: error: c"
    assert tools.first_line("\n a \nb", "error") == "a"
    assert np.all([tools.first_line(text) == "no message" for text in ("", "\n ")])
