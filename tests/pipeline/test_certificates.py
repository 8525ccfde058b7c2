"""A search ends with files and the proof of what they compute."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.pipeline.conftest import tiny_config

from bitscout.errors import ConfigError, ExportError, RunError, UnsupportedError
from bitscout.export import Reference, load_packed
from bitscout.pipeline import (
    CertificateFinished,
    CertificateStarted,
    DeployRequest,
    export_final,
    load_result,
    resume_search,
    run_search,
    verify_final,
)

FILES = {
    "weights.safetensors",
    "candidate.json",
    "metrics.json",
    "packed.safetensors",
    "model.onnx",
    "certificate.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run, trained for real, with certificates: its directory and its events."""
    config = tiny_config(
        searcher={"n_trials": 3},
        certificate={"enabled": True, "images": 20, "targets": ["onnxruntime"]},
    )
    events = []
    directory = tmp_path_factory.mktemp("runs") / "certified"
    run_search(config, directory, listener=events.append)
    return directory, events


@pytest.fixture
def directory(run):
    return run[0]


@pytest.fixture
def events(run):
    return run[1]


@pytest.fixture
def copy(directory, tmp_path):
    return shutil.copytree(directory, tmp_path / "run")


def images_of(result):
    data = result.data()
    return data.normalizer()(data.split("test").images)


def test_every_final_network_gets_its_files_and_a_certificate_that_passed(directory):
    result = load_result(directory)
    assert result.final
    for record in result.final:
        assert {path.name for path in (directory / "final" / record.name).iterdir()} == FILES
        assert {name.rpartition("/")[2] for name in record.files} == FILES
        assert result.certificates[record.name].passed
    assert {record.name for record in result.baselines}.isdisjoint(result.certificates)


def test_the_listener_hears_of_every_certificate(events, directory):
    names = [record.name for record in load_result(directory).final]
    started = [event for event in events if isinstance(event, CertificateStarted)]
    finished = [event for event in events if isinstance(event, CertificateFinished)]
    assert [event.index for event in started] == list(range(1, len(names) + 1))
    assert [event.record.name for event in finished] == names
    assert all(event.total == len(names) for event in started)


def test_the_integers_classify_exactly_as_the_network_does(directory):
    result = load_result(directory)
    images = images_of(result)
    labels = result.data().split("test").labels.numpy()
    for record in result.final:
        certificate = result.certificates[record.name]
        assert certificate.integer_accuracy == record.metrics.test_accuracy
        assert certificate.n_test_images == len(images)
        graph = load_packed(directory / "final" / record.name / "packed.safetensors")
        outputs = Reference(graph).run(np.ascontiguousarray(images.numpy()))
        with torch.no_grad():
            expected = result.load(record.name)(images).numpy()
        np.testing.assert_array_equal(graph.scores(outputs), expected.astype(np.float64))
        assert (expected.argmax(axis=1) == labels).mean() == certificate.integer_accuracy


def test_the_packed_bytes_are_the_searched_ones(directory):
    result = load_result(directory)
    for record in result.final:
        certificate = result.certificates[record.name]
        assert certificate.predicted_bytes == record.metrics.size_bytes
        excess = certificate.packed_bytes - certificate.predicted_bytes
        assert 0 <= excess < certificate.n_layers
        packed = certificate.files[0]
        assert packed.payload_bytes == certificate.packed_bytes
        size = (directory / "final" / record.name / packed.name).stat().st_size
        assert packed.file_bytes == size


def test_the_json_has_the_keys_others_rely_on(directory):
    result = load_result(directory)
    document = json.loads((directory / result.final[0].files[-1]).read_text())
    assert document.keys() >= {
        "candidate", "predicted_bytes", "packed_bytes", "targets", "passed"
    }  # fmt: skip
    assert document["candidate"] == result.final[0].number
    target = {"name", "setting", "outputs", "mismatches", "max_lsb", "argmax_agreement"}
    assert all(entry.keys() >= target for entry in document["targets"])
    runtime = [entry for entry in document["targets"] if entry["name"] == "ONNX Runtime"]
    assert [entry["mismatches"] for entry in runtime] == [0, 0, 0, 0]
    assert {entry["outputs"] for entry in runtime} == {20 * 10}
    assert result.to_json()["final"][0]["certificate"] == document


def test_a_killed_verification_goes_on_with_what_is_missing(copy):
    (copy / "done.json").unlink()
    first, *_ = load_result(copy).final
    path = copy / "final" / first.name / "certificate.json"
    before = json.loads(path.read_text())
    path.unlink()
    events = []
    resume_search(copy, listener=events.append)
    finished = [event for event in events if isinstance(event, CertificateFinished)]
    assert [event.record.name for event in finished] == [first.name]
    after = json.loads(path.read_text())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_verify_makes_a_certificate_again_also_of_a_baseline(copy):
    result = load_result(copy)
    certificate = verify_final(result, "seed-8bit")
    assert certificate.passed
    assert certificate.candidate == "seed-8bit"
    assert load_result(copy).certificates["seed-8bit"] == certificate


@pytest.mark.parametrize("fewer", [{"images": 5}, {"targets": []}])
def test_a_partial_check_writes_nothing(copy, fewer):
    result = load_result(copy)
    name = result.final[0].name
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    config = result.config.certificate.model_copy(update=fewer)
    assert verify_final(result, name, config).passed
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_a_killed_verify_leaves_no_certificate_older_than_its_files(copy, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitscout.export.certification.check_fake_quant", interrupt)
    result = load_result(copy)
    with pytest.raises(KeyboardInterrupt):
        verify_final(result, result.final[0].name)
    assert result.final[0].name not in load_result(copy).certificates


def test_other_weights_than_those_trained_fail_the_certificate(copy):
    result = load_result(copy)
    record = result.final[0]
    own = copy / "final" / record.name / "weights.safetensors"
    document = json.loads((own.parent / "metrics.json").read_text())
    document["metrics"]["test_accuracy"] = 1.0 - document["metrics"]["test_accuracy"]
    (own.parent / "metrics.json").write_text(json.dumps(document))
    certificate = verify_final(load_result(copy), record.name)
    assert [target.name for target in certificate.failures] == ["test accuracy"]


def test_a_tool_that_breaks_fails_its_target_and_ends_nothing(copy, monkeypatch):
    def crash(*_, **__):
        msg = "bad file"
        raise ValueError(msg)

    monkeypatch.setattr("bitscout.export.certification.check_onnxruntime", crash)
    result = load_result(copy)
    (failed,) = verify_final(result, result.final[0].name).failures
    assert (failed.name, failed.reason) == ("onnxruntime", "ValueError: bad file")


def test_a_network_without_integers_is_certified_as_failed(copy, monkeypatch):
    def refuse(*_, **__):
        msg = "Cannot lower `sigmoid`."
        raise UnsupportedError(msg)

    monkeypatch.setattr("bitscout.export.certification.lower_with_reads", refuse)
    certificate = verify_final(load_result(copy), load_result(copy).final[0].name)
    assert not certificate.passed
    assert certificate.failures[0].reason == "Cannot lower `sigmoid`."


def test_a_difference_or_a_wrong_size_fails_the_certificate(directory):
    certificate = next(iter(load_result(directory).certificates.values()))
    wrong = replace(certificate.targets[0], state="failed")
    assert not replace(certificate, targets=(wrong, *certificate.targets[1:])).passed
    assert not replace(certificate, packed_bytes=certificate.packed_bytes + 100).passed
    assert not replace(certificate, packed_bytes=certificate.packed_bytes - 100).passed
    absent = replace(certificate.targets[0], state="not run")
    assert replace(certificate, targets=(absent, *certificate.targets[1:])).passed
    assert not replace(certificate, targets=(absent,)).passed
    assert not replace(certificate, targets=()).passed


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda _: "{",
        lambda _: "null",
        lambda _: "[]",
        lambda _: "{}",
        lambda text: text.replace('"predicted_bytes": ', '"predicted_bytes": "x", "y": '),
        lambda text: text.replace('"mismatches": 0', '"mismatches": "x"'),
        lambda text: text.replace('"candidate": ', '"candidate": 7'),
    ],
)
def test_a_damaged_or_foreign_certificate_counts_as_failed_and_is_made_again(copy, change):
    name = load_result(copy).final[0].name
    path = copy / "final" / name / "certificate.json"
    path.write_text(change(path.read_text()))
    certificate = load_result(copy).certificates[name]
    assert not certificate.passed
    assert f"bitscout verify {copy} --candidate {name}" in certificate.failures[0].reason


def test_a_damaged_certificate_is_made_again(copy):
    name = load_result(copy).final[0].name
    (copy / "final" / name / "certificate.json").write_text("null")
    assert verify_final(load_result(copy), name).passed
    assert load_result(copy).certificates[name].passed


@pytest.mark.parametrize("file", ["weights.safetensors", "candidate.json"])
def test_an_export_never_writes_over_the_run(copy, file):
    result = load_result(copy)
    path = copy / "final" / result.final[0].name / file
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is part of the run"):
        export_final(result, "seed-8bit", DeployRequest(format="onnx"), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "c", "storage": "int4"}, "`--storage` belongs to `--format onnx`"),
        ({"format": "onnx", "profile": "hls4ml"}, "`--profile` belongs to `--format qonnx`"),
        ({"format": "packed", "target": "host"}, "`--target` belongs to `--format c`"),
    ],
)
def test_options_of_another_format_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DeployRequest(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"format": "packed"}, "packed.safetensors"),
        ({"format": "onnx"}, "model.onnx"),
        ({"format": "onnx", "storage": "packed"}, "model.packed.onnx"),
        ({"format": "onnx", "storage": "int4"}, "model.int4.onnx"),
        ({"format": "qonnx"}, "model.qonnx.onnx"),
        ({"format": "c"}, "c"),
    ],
)
def test_every_format_is_written_next_to_the_network(copy, options, name):
    result = load_result(copy)
    record = result.final[-1]
    exported = export_final(result, record.name, DeployRequest(**options))
    assert exported.path == copy / "final" / record.name / name
    assert exported.path.exists()
    assert exported.predicted_bytes == record.metrics.size_bytes
    assert not [p for p in exported.path.parent.iterdir() if p.name.startswith(".")]


def test_a_file_in_the_way_of_a_folder_is_an_error(copy):
    result = load_result(copy)
    (copy / "file").write_text("")
    with pytest.raises(ExportError, match="Cannot write"):
        export_final(result, "seed-8bit", DeployRequest(format="onnx"), copy / "file" / "x.onnx")


def test_an_unknown_candidate_is_named_with_those_there_are(copy):
    with pytest.raises(RunError, match=r"no final network '99'\. It has: .*seed-4bit"):
        export_final(load_result(copy), 99, DeployRequest(format="onnx"))
