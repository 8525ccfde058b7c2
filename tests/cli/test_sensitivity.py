# SPDX-License-Identifier: Apache-2.0
"""``bitscout sensitivity``."""

import json

NET = "tests.pipeline.test_layer_sensitivities:Tiny"
FEW = ("--set", "dataset.limit=200", "--set", "dataset.validation=0.3", "--images", "16")


def test_the_table_goes_to_stdout_and_the_picture_to_its_file(run, tmp_path):
    done = run("sensitivity", NET, *FEW, "--estimator", "fisher", "--out", tmp_path / "s.html")
    assert done.code == 0
    assert "Sensitivity of" in done.out
    assert "second" in done.out
    assert "The weights are random" in done.out
    assert "The picture is in" in done.err
    assert "Sensitivity of" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_json_is_one_document(run):
    done = run("sensitivity", NET, *FEW, "--measure", 2, "--json")
    document = json.loads(done.out)
    assert [layer["name"] for layer in document["layers"]][::5] == ["stem", "fc"]
    assert document["estimator"] == "gauss-newton"
    assert document["drop_bits"] == 2


def test_bad_input_is_one_message_and_exit_code_2(run):
    done = run("sensitivity", NET, *FEW, "--estimator", "guess")
    assert done.code == 2
    assert done.err.startswith("Error: `estimator`")
    assert run("sensitivity", "quickstart").code == 2
