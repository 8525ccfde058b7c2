# SPDX-License-Identifier: Apache-2.0
"""``bitscout cost``: what it prints, its JSON, and one message for each mistake."""

import json
import logging
import sys

import pytest

from bitscout.hardware import REFERENCE_NETWORKS, hardware_names, reference_network
from bitscout.pipeline import cost, load_result

MAKER = """
from torch import nn

def make_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
"""

MEASURE = """
import json, pathlib, sys

assert json.load(sys.stdin)["layers"]
print(json.dumps({"latency_ms": pathlib.Path(sys.argv[-1]).stat().st_size}))
"""


def rows(out):
    """Return the lines of the first table, heading included."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    end = next(i for i, line in enumerate(lines) if line.startswith("network "))
    return lines[start : end + 1]


@pytest.mark.parametrize("name", REFERENCE_NETWORKS)
def test_every_built_in_network_has_a_row_for_each_layer_and_one_for_the_network(run, name):
    outcome = run("cost", name, "--hardware", "size")
    assert (outcome.code, outcome.err) == (0, "")
    table = rows(outcome.out)
    assert [line.split()[0] for line in table[2:-1]] == list(reference_network(name).names)


@pytest.mark.parametrize("hardware", hardware_names())
def test_every_target_that_needs_no_command_costs_resnet20(run, hardware):
    if hardware == "measured":
        pytest.skip("needs a command")
    document = json.loads(run("cost", "resnet20", "--hardware", hardware, "--json").out)
    assert document["hardware"].split(":")[0] == hardware
    assert document["total"]
    assert len(document["layers"]) == 20


def test_the_json_has_the_keys_others_rely_on(run):
    outcome = run(
        "cost", "resnet20", "--hardware", "bitfusion:batch=16", "--bits", "4/6", "--json"
    )
    document = json.loads(outcome.out)
    assert set(document) >= {"hardware", "batch", "total", "layers", "network", "bits"}
    assert document["batch"] == 16
    assert set(document["total"]) >= {"cycles", "latency_ms", "energy_mj"}
    for layer in document["layers"]:
        assert set(layer) >= {"name", "macs", "weight_bits", "act_bits", "cycles", "energy_mj"}
        assert (layer["weight_bits"], layer["act_bits"]) == (4, 6)


def test_several_kinds_of_hardware_are_several_tables_and_a_list_in_json(run):
    dense = "bitfusion:depthwise=dense"
    arguments = ("cost", "resnet20", "--hardware", "size", "--hardware", dense)
    out = run(*arguments).out
    assert out.index("resnet20 on size") < out.index(f"resnet20 on {dense}")
    document = json.loads(run(*arguments, "--json").out)
    assert [entry["hardware"] for entry in document["reports"]] == ["size", dense]
    assert document["hardware"] == "size"


def test_the_table_says_what_the_figures_are_of(run):
    out = run("cost", "resnet20", "--hardware", "bitfusion", "--batch", 16).out
    assert "weights 8, activations 8, the default" in out
    assert "Batch 16: every quantity but the MACs is for 16 inputs together." in out
    total = cost("resnet20", "bitfusion:batch=16").reports[0].total
    assert f"latency {total['latency_ms'] / 16 * 1e3:.2f} µs" in out
    assert "Most latency: " in out
    assert "Note: " in out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_the_table_fits_the_terminal_with_time_and_energy(run, monkeypatch, columns, name):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("cost", name, "--hardware", "bitfusion").out.splitlines()
    assert max(map(len, lines)) <= columns
    table = rows("\n".join(lines))
    assert {"latency", "energy", "MACs", "bits"} <= set(table[0].split())
    assert len(table) == len(reference_network(name)) + 3


def test_a_run_a_preset_and_a_module_are_sources_too(run, run_directory, tmp_path):
    result = load_result(run_directory)
    number = result.trials[-1].number
    arguments = ("cost", run_directory, "--hardware", "size", "--json")
    document = json.loads(run(*arguments, "--candidate", number).out)
    assert document["total"]["size_bytes"] == result.trials[-1].metrics.size_bytes
    assert "seed network of quickstart" in run("cost", "quickstart", "--hardware", "size").out
    (tmp_path / "bitscout_test_net.py").write_text(MAKER)
    arguments = ("cost", "bitscout_test_net:make_net", "--input", "3x6x6", "--hardware", "size")
    assert [line.split()[0] for line in rows(run(*arguments).out)[2:-1]] == ["0", "3"]


def test_a_command_that_measures_gets_the_file_of_a_preset_and_of_no_table(run, tmp_path):
    (tmp_path / "measure.py").write_text(MEASURE)
    hardware = f"measured:command={sys.executable} measure.py"
    outcome = run("cost", "quickstart", "--hardware", hardware, "--json")
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("Measuring with `")
    assert outcome.err.endswith(" measure.py`, attempt 1 of 2, up to 60 s.\n")
    document = json.loads(outcome.out)
    assert document["total"]["latency_ms"] > 1000  # bytes of the file
    out = run("cost", "quickstart", "--hardware", hardware).out
    assert len(rows(out)) == len(document["layers"]) + 3
    assert "Whole network: latency " in out
    outcome = run("cost", "resnet20", "--hardware", hardware)
    assert outcome.code == 2
    assert "resnet20 is a table of layers" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mobilenet-v2"], ["'mobilenet-v2'", "Did you mean 'mobilenet_v2'?"]),
        (["resnet20", "--bits", "nine"], ["nine", "`bits` (--bits)"]),
        (["resnet20", "--bits", "1"], ["`bits` (--bits)", "2 to 8", "'1'"]),
        (["resnet20", "--bits", "policy.json"], ["does not match", "not in the network: no"]),
        (["resnet20", "--hardware", "bitfuson"], ["'bitfuson'", "Did you mean 'bitfusion'?"]),
        (["resnet20", "--hardware", "bitfusion:bach=3"], ["`bach`", "`batch`"]),
        (["resnet20", "--hardware", "bitfusion:batch=x"], ["`batch`", "integer", "'x'"]),
        (["resnet20", "--input", "32"], ["`input_shape` (--input)", "CxHxW"]),
        (["resnet20", "--candidate", "3"], ["`candidate` (--candidate)", "run"]),
        (["bitscout.networks:resnet"], ["`input_shape` (--input) is needed"]),
        (["a" * 300], ["There is no network, preset or run 'aaa"]),
        (["resnet20", "--batch", "0"], ["`batch` (--batch)", "at least 1, got 0."]),
        (["resnet20", "--hardware", "size,mcu"], ["--hardware size --hardware mcu"]),
        (["resnet20", "--hardware", "size:"], ["a colon and no options"]),
        (["resnet20", "--hardware", "size", "--hardware", "size"], ["has size twice"]),
        (["bitscout.networks:resnt", "--input", "3x8x8"], ["no 'resnt'", "'resnet'"]),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(run, tmp_path, arguments, parts):
    (tmp_path / "policy.json").write_text('{"no": [4, 4]}')
    if "--hardware" not in arguments:
        arguments = [*arguments, "--hardware", "size"]
    outcome = run("cost", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("Error: ") == 1
    for part in parts:
        assert part in outcome.err


def test_a_candidate_that_is_not_there_is_exit_code_2(run, run_directory):
    outcome = run("cost", run_directory, "--candidate", 99, "--hardware", "size")
    assert outcome.code == 2
    assert "no candidate '99'" in outcome.err


@pytest.mark.parametrize("quotes", ["'{}'", '"{}"', "{}"])
def test_a_command_may_be_quoted_as_in_the_message(run, tmp_path, quotes):
    (tmp_path / "measure.py").write_text(MEASURE)
    command = quotes.format(f"{sys.executable} measure.py")
    hardware = f"measured:command={command},timeout_s=50"
    assert run("cost", "quickstart", "--hardware", hardware).code == 0


def test_hardware_without_a_rule_does_not_hide_the_others(run, tmp_path):
    (tmp_path / "bitscout_test_wide.py").write_text(
        MAKER.replace("(3, 4, 3)", "(3, 4, 3, dilation=2)")
    )
    arguments = ("cost", "bitscout_test_wide:make_net", "--input", "3x8x8", "--hardware", "size")
    outcome = run(*arguments, "--hardware", "bitfusion", "--hardware", "mcu")
    assert outcome.code == 2
    assert outcome.out.count("\nnetwork ") == 2
    size, refusal, mcu = (
        outcome.out.index(f"make_net on {name}\n") for name in ("size", "bitfusion", "mcu")
    )
    assert size < refusal < mcu
    reason = "No figures: Hardware 'bitfusion' has no rule for the dilated kernel of layer '0'"
    assert outcome.out[refusal:mcu].splitlines()[1].startswith(reason)
    assert outcome.err == (
        "Error: No figures of bitscout_test_wide:make_net on bitfusion; the reason is above.\n"
    )
    outcome = run(*arguments, "--hardware", "bitfusion", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: Hardware 'bitfusion' has no rule")


def test_the_table_and_the_json_say_what_the_target_is(run):
    said = hardware_names()["bitfusion"]
    assert run("cost", "resnet20", "--hardware", "bitfusion").out.splitlines()[0] == said
    document = json.loads(run("cost", "resnet20", "--hardware", "bitfusion", "--json").out)
    assert document["description"] == said


def test_ctrl_c_is_one_line_and_exit_code_130(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitscout.hardware.measured.model.run_command", interrupt)
    outcome = run("cost", "quickstart", "--hardware", "measured:command=sleep 9")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.splitlines()[-1] == "Interrupted."
    assert not logging.getLogger("bitscout.hardware").handlers
