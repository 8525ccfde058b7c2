"""``export`` and ``verify``, over a tiny network that was really trained."""

import json
import shutil

import pytest
from tests.pipeline.conftest import tiny_config

from bitscout.export import Certificate, TargetResult
from bitscout.pipeline import run_search


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = tiny_config(searcher={"n_trials": 2}, final={"max_networks": 1})
    directory = tmp_path_factory.mktemp("runs") / "trained"
    run_search(config, directory)
    return directory


@pytest.fixture
def directory(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_export_writes_the_best_network_and_says_where(run, directory):
    outcome = run("export", directory, "--format", "packed")
    assert outcome.code == 0
    number = next((directory / "final").iterdir()).name
    assert f"final/{number}/packed.safetensors" in outcome.out
    assert (directory / "final" / number / "packed.safetensors").is_file()


def test_export_json_is_one_document(run, directory, tmp_path):
    out = tmp_path / "deep" / "model.onnx"
    arguments = ("--candidate", "seed-4bit", "--format", "onnx", "--storage", "packed")
    outcome = run("export", directory, *arguments, "--out", out, "--json")
    document = json.loads(outcome.out)
    assert document["candidate"] == "seed-4bit"
    assert document["path"] == str(out)
    assert document["file_bytes"] == out.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "onnx", "--candidate", "99"), "no final network '99'. It has: "),
        (("--format", "c", "--storage", "int8"), "`--storage` belongs to `--format onnx`"),
        (("--format", "qonnx", "--profile", "hls4ml"), "profile: hls4ml"),
    ],
)
def test_export_refuses_in_one_message(run, directory, arguments, message):
    outcome = run("export", directory, *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.count("Error:") == 1


def test_a_missing_cross_compiler_is_named_with_its_package(run, directory, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ("--format", "c", "--target", "cortex-m", "--out", tmp_path / "fw")
    outcome = run("export", directory, *arguments)
    assert outcome.code == 2
    assert "gcc-arm-none-eabi" in outcome.err
    assert not (tmp_path / "fw").exists()


def test_verify_prints_the_certificate_and_writes_it(run, directory):
    config = directory / "config.yaml"
    text = config.read_text().replace("[onnxruntime, qonnx, c, cortex-m]", "[onnxruntime]")
    config.write_text(text)
    outcome = run("verify", directory)
    assert outcome.code == 0
    assert "ONNX Runtime, int8, level all" in outcome.out
    assert "Certificate passed on all 8 targets" in outcome.out
    number = next((directory / "final").iterdir()).name
    certificate = json.loads((directory / "final" / number / "certificate.json").read_text())
    assert certificate["passed"]


def test_verify_json_is_the_certificate(run, directory):
    arguments = ("--images", 5, "--target", "onnxruntime")
    outcome = run("verify", directory, *arguments, "--json")
    document = json.loads(outcome.out)
    assert document["passed"] is True
    assert document["packed_bytes"] >= document["predicted_bytes"]


def test_a_target_that_was_asked_for_and_is_missing_is_exit_code_2(run, directory, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    outcome = run("verify", directory, "--images", 5, "--target", "c")
    assert outcome.code == 2
    assert "Compiled C was asked for, but there is no C compiler: install gcc" in outcome.err


def test_a_certificate_that_failed_is_exit_code_1(run, directory, monkeypatch):
    failed = TargetResult("C99", "host", "failed", "3 of 50 outputs differ", 50, 3, 2, 1.0)
    certificate = Certificate("0", 10.0, 10, 1, (), (failed,), 5, 1.0, 1.0, 5, 0.1)
    monkeypatch.setattr("bitscout.pipeline.verify_final", lambda *_, **__: certificate)
    outcome = run("verify", directory)
    assert outcome.code == 1
    assert "FAILED on 1 of 1 targets" in outcome.out
    assert "3 of 50 outputs differ" in outcome.out


@pytest.mark.parametrize("command", ["verify", "export"])
def test_a_run_without_final_networks_says_how_to_go_on(run, unfinished_directory, command):
    extra = ("--format", "onnx") if command == "export" else ()
    outcome = run(command, unfinished_directory, *extra)
    assert outcome.code == 2
    assert "bitscout resume" in outcome.err
