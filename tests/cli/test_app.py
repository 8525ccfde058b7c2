# SPDX-License-Identifier: Apache-2.0
"""Commands from the outside: exit codes, messages, what goes to which stream."""

import json
import os
import signal
import subprocess
import sys

import pytest

import bitscout
from bitscout.cli.catalog import SEARCHED, entries
from bitscout.cli.list_names import Kind
from bitscout.errors import InfeasibleError
from bitscout.networks import model_names
from bitscout.pipeline import (
    FinalFinished,
    RunConfig,
    SearchStarted,
    TrialFinished,
    explain,
    load_config,
    load_result,
    preset_names,
)
from bitscout.pipeline.config import (
    DatasetConfig,
    SearcherConfig,
    SpaceConfig,
)

SHOW_KEYS = {"state", "counts", "candidates", "pareto_front", "final"}
CANDIDATE_KEYS = {"number", "digest", "values", "policy", "metrics", "score"}


@pytest.fixture
def fake_search(monkeypatch, make_result, write_run):
    """Replace the search by one that tells its listener of a made-up run and writes it."""
    calls = []

    def run_search(config, out, *, listener):
        calls.append((config, out))
        result = make_result(out, n_trials=24)
        listener(SearchStarted(24, 0, str(out)))
        for trial in result.trials:
            listener(TrialFinished(trial))
        for record in result.final:
            listener(FinalFinished(record))
        write_run(result)
        return load_result(out)

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    return calls


def one_message(outcome):
    """Return the message of a failed command, which must be all it printed."""
    assert outcome.out == ""
    lines = outcome.err.strip().splitlines()
    message = [line for line in lines if not line.startswith("Run directory: ")]
    assert message[0].startswith("Error: ")
    assert sum(line.startswith("Error: ") for line in lines) == 1
    return " ".join(message)


# --- search


def test_search_takes_the_next_free_directory_and_says_so(run, fake_search, tmp_path):
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    outcome = run("search", "quickstart")
    assert outcome.code == 0
    assert "Run directory: runs/quickstart-2" in outcome.err
    assert (tmp_path / "runs" / "quickstart-2" / "report.html").is_file()
    assert "Report: runs/quickstart-2/report.html" in outcome.out


def test_search_ends_with_networks_baselines_and_verdicts(run, fake_search):
    outcome = run("search", "quickstart", "--out", "here")
    result = load_result("here")
    for record in (*result.final, *result.baselines):
        assert record.label in outcome.out
    for verdict in result.verdicts:
        assert verdict.sentence() in outcome.out
    assert "[24/24] trial 23" in outcome.err
    assert "trial 23:" not in outcome.out


def test_flags_and_settings_reach_the_configuration_flags_last(run, fake_search):
    run(
        "search", "quickstart", "--out", "x", "--trials", 7, "--seed", 3, "--device", "cpu",
        "--set", "training.epochs=2", "--set", "budget.size_kb=8", "--set", "seed=99",
    )  # fmt: skip
    config, out = fake_search[0]
    assert (str(out), config.searcher.n_trials, config.seed) == ("x", 7, 3)
    assert (config.device, config.training.epochs, config.budget.size_kb) == ("cpu", 2, 8)


def test_json_is_one_document_on_stdout_and_progress_stays_on_stderr(run, fake_search):
    outcome = run("search", "quickstart", "--out", "x", "--json")
    document = json.loads(outcome.out)
    assert set(document) >= SHOW_KEYS | {"report"}
    assert "[24/24]" in outcome.err


def test_quiet_shows_no_progress_but_the_result(run, fake_search):
    outcome = run("search", "quickstart", "--out", "x", "--quiet")
    assert "[24/24]" not in outcome.err
    assert "Final networks" in outcome.out


def test_a_dry_run_prints_the_whole_configuration_and_starts_nothing(run, fake_search, tmp_path):
    outcome = run("search", "quickstart", "--dry-run", "--seed", 5, "--set", "training.lr=1e-3")
    assert outcome.code == 0
    assert outcome.err == ""
    (tmp_path / "again.yaml").write_text(outcome.out)
    expected = load_config("quickstart", ["seed=5", "training.lr=0.001"])
    assert load_config(tmp_path / "again.yaml") == expected
    assert fake_search == []
    as_json = run("search", "again.yaml", "--dry-run", "--json")
    assert RunConfig.model_validate(json.loads(as_json.out)) == expected


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["quickstrat"], ["quickstrat", "did you mean `quickstart`?"]),
        (["missing.yaml"], ["missing.yaml", "No such file"]),
        (["quickstart", "--set", "training.epoch=5"], ["`training.epoch`", "`epochs`?"]),
        (
            ["quickstart", "--set", "training.epochs=many"],
            ["`training.epochs`", "integer", "many"],
        ),
        (["quickstart", "--set", "training"], ["key.path=value", "'training'"]),
        (["quickstart", "--trials", "0"], ["`searcher.n_trials`", "greater than", "0"]),
        (["quickstart", "--device", "tpu"], ["`device`", "'cpu'", "tpu"]),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(run, arguments, parts):
    outcome = run("search", *arguments, "--out", "x")
    assert outcome.code == 2
    message = one_message(outcome)
    for part in parts:
        assert part in message


def test_a_directory_that_holds_a_run_is_not_touched(run, run_directory):
    before = sorted(path.name for path in run_directory.iterdir())
    outcome = run("search", "quickstart", "--out", run_directory)
    assert outcome.code == 2
    assert "already holds a run" in one_message(outcome)
    assert sorted(path.name for path in run_directory.iterdir()) == before


def test_nothing_feasible_is_exit_code_3(run, monkeypatch):
    def run_search(config, out, *, listener):
        msg = "None of 24 candidates fits the budget"
        raise InfeasibleError(msg)

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    outcome = run("search", "quickstart", "--json")
    assert outcome.code == 3
    assert "None of 24 candidates" in one_message(outcome)


def test_an_unexpected_exception_is_not_hidden(run, monkeypatch):
    def run_search(config, out, *, listener):
        raise ZeroDivisionError

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    with pytest.raises(ZeroDivisionError):
        run("search", "quickstart")


# --- interruption


def test_an_interrupted_search_says_what_is_kept_and_how_to_go_on(
    run, monkeypatch, make_result, write_run
):
    def run_search(config, out, *, listener):
        write_run(make_result(out, n_trials=24, n_finished=5))
        raise KeyboardInterrupt

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    outcome = run("search", "quickstart", "--out", "a [b]", "--json")
    assert outcome.code == 130
    assert outcome.out == ""
    assert "Kept in a [b]: 5 of 24 trials. Go on with: bitscout resume 'a [b]'" in outcome.err


def test_an_interruption_before_the_run_began_keeps_nothing_and_says_so(run, monkeypatch):
    def run_search(config, out, *, listener):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    outcome = run("search", "quickstart")
    assert outcome.code == 130
    assert "before the run began" in outcome.err


def test_termination_is_an_interruption_and_its_handler_is_put_back(run, monkeypatch):
    def run_search(config, out, *, listener):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    monkeypatch.setattr("bitscout.pipeline.run_search", run_search)
    before = signal.getsignal(signal.SIGTERM)
    assert run("search", "quickstart").code == 130
    assert signal.getsignal(signal.SIGTERM) is before


# --- resume, show, report


def test_resume_goes_on_and_knows_the_best_so_far(run, monkeypatch, unfinished_directory):
    before = load_result(unfinished_directory)

    def resume_search(directory, *, listener):
        assert directory == unfinished_directory
        listener(SearchStarted(24, 5, str(directory)))
        failed = next(t for t in before.trials)
        listener(TrialFinished(type(failed)(number=5, outcome="failed", reason="why not")))
        return before

    monkeypatch.setattr("bitscout.pipeline.resume_search", resume_search)
    outcome = run("resume", unfinished_directory)
    assert outcome.code == 0
    assert f"(trial {before.best.number})" in outcome.err
    assert (unfinished_directory / "report.html").is_file()


@pytest.mark.parametrize("command", ["resume", "show", "report"])
def test_a_directory_that_is_no_run_is_one_message_and_exit_code_2(run, tmp_path, command):
    (tmp_path / "[bold]").mkdir()
    outcome = run(command, "[bold]")
    assert outcome.code == 2
    assert "[bold] is not a run" in one_message(outcome)
    outcome = run(command, "nowhere", "--json")
    assert outcome.code == 2
    assert "no directory nowhere" in one_message(outcome)


def test_show_prints_counts_front_networks_and_verdicts(run, run_directory):
    outcome = run("show", run_directory)
    result = load_result(run_directory)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "Complete: 24 of 24 trials" in outcome.out
    for number in result.pareto_front:
        assert f"trial {number}" in outcome.out
    for verdict in result.verdicts:
        assert verdict.sentence() in outcome.out


def test_show_json_has_the_keys_others_rely_on(run, run_directory):
    document = json.loads(run("show", run_directory, "--json").out)
    assert set(document) >= SHOW_KEYS
    assert set(document["counts"]) == {"complete", "failed", "infeasible"}
    assert all(set(candidate) >= CANDIDATE_KEYS for candidate in document["candidates"])
    assert all(set(final) >= {"number", "metrics", "files"} for final in document["final"])


def test_report_writes_the_page_where_it_is_told(run, run_directory, tmp_path):
    outcome = run("report", run_directory, "--out", "[x].html", "--json")
    path = tmp_path / "[x].html"
    assert json.loads(outcome.out) == {"report": "[x].html", "bytes": path.stat().st_size}
    assert run("report", run_directory).out == f"{run_directory}/report.html\n"
    assert run("report", run_directory, "--out", "[red]" * 50).out == "[red]" * 50 + "\n"


# --- explain, list, help


def test_explain_counts_the_space_of_the_paper(run):
    document = json.loads(run("explain", "bomp-cifar10", "--json").out)
    assert document["n_dimensions"] == 49
    assert document["n_bit_variables"] == 23
    assert document["log10_architectures"] == 19.598
    assert document["log10_policies"] == 16.076
    assert document["log10_size"] == 35.675
    for layer in document["layers"]:
        assert set(layer) >= {"name", "kind", "state", "reason", "choices"}


def test_explain_lists_every_layer_with_its_choices(run):
    outcome = run("explain", "bomp-cifar10", "--set", "space.bits=[2,4,8]")
    for layer in explain(load_config("bomp-cifar10")).layers:
        assert layer.name in outcome.out
    assert "kernel 2-7" in outcome.out
    assert "bits 2 4 8" in outcome.out
    assert "49 dimensions, 23 of them bit-widths" in outcome.out


def allowed(section, key):
    return set(section.model_fields[key].annotation.__args__) - {"custom"}


def test_every_name_a_configuration_allows_is_listed_and_no_other():
    assert set(entries("datasets")) == allowed(DatasetConfig, "name")
    assert set(entries("spaces")) == allowed(SpaceConfig, "name") | {"model"}
    assert set(entries("searchers")) == allowed(SearcherConfig, "name")
    assert list(entries("presets")) == preset_names()
    assert set(SEARCHED) == set(model_names())
    assert set(SEARCHED) <= set(entries("models"))


def test_every_entry_has_a_description_in_one_sentence():
    for kind in Kind:
        for description in entries(kind).values():
            assert description.endswith(".")
            assert "\n" not in description


def test_list_prints_one_kind_or_everything(run):
    assert "quickstart" in run("list", "presets").out
    assert "imagefolder" not in run("list", "presets").out
    everything = run("list")
    assert all(f"{kind}\n" in everything.out for kind in Kind)
    document = json.loads(run("list", "--json").out)
    assert list(document) == [str(kind) for kind in Kind]
    assert "size" in {entry["name"] for entry in document["hardware"]}
    assert "resnet18" in run("list", "models").out


@pytest.mark.parametrize(
    "arguments", [["seach"], ["search"], ["list", "colours"], ["show", "--x"]]
)
def test_usage_errors_are_exit_code_2_on_stderr(run, arguments):
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("Error: ") == 1


def test_version_and_help(run):
    assert run("--version").out == f"bitscout {bitscout.__version__}\n"
    for command in ("search", "resume", "show", "explain", "cost", "report", "list"):
        assert command in run("--help").out
        outcome = run(command, "--help")
        assert outcome.code == 0
        assert f"\n    bitscout {command}" in outcome.out  # an example on a line of its own
    assert run().code == 0


# --- processes


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["search", "--help"], set()),
        (["list", "presets"], set()),
        (["list", "--json"], {"numpy"}),  # Hardware is described by its models.
        (["cost", "resnet20", "--hardware", "size"], {"numpy"}),
        (["cost", "quickstart", "--hardware", "size", "--json"], {"numpy"}),
    ],
)
def test_commands_that_only_print_import_nothing_heavy(arguments, allowed):
    code = (
        "import sys\n"
        "from bitscout.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "heavy = {'torch', 'optuna', 'plotly', 'scipy', 'sklearn', 'numpy', 'jinja2'}\n"
        f"sys.exit(', '.join(sorted(heavy & set(sys.modules) - {allowed!r})) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_runs_as_the_program_does():
    command = [sys.executable, "-m", "bitscout", "list", "colours"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: bitscout list ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_reason_to_complain(unbuffered):
    code = (
        "import os, sys\n"
        "from bitscout.cli import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.exit(main(['list', '--json']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
