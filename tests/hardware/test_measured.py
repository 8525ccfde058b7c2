"""A command in the loop: what it is asked, what it may answer, and every way it can fail."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitscout.core import Layer, LayerGraph, Node, QuantPolicy
from bitscout.errors import ConfigError, MeasurementError, PolicyError
from bitscout.hardware import load_hardware
from bitscout.hardware.measured import Measured, Quantities
from bitscout.hardware.measured.command import join_command, split_command

GRAPH = LayerGraph(
    (Layer("conv", "conv", 3, 4, kernel=(3, 3), output_size=(8, 8)), Layer("fc", "linear", 4, 2)),
    (
        Node("input", "input", (), (3, 8, 8)),
        Node("conv", "conv", ("input",), (4, 8, 8)),
        Node("fc", "linear", ("conv",), (2,)),
    ),
)
POLICY = QuantPolicy.uniform(GRAPH.names, 4, 8)


def python(source, *arguments):
    """A command that runs `source`; without site-packages it starts in a few milliseconds."""
    return (sys.executable, "-I", "-S", "-c", source, *arguments)


def answering(text, log=None):
    """A command that writes `text`, and a line into `log` each time it is started."""
    count = "" if log is None else f"open({str(log)!r}, 'a').write('x\\n');"
    return python(f"{count}print({text!r})")


def measured(command, **options):
    return Measured(name="board", command=command, retries=0, **options)


@pytest.fixture
def file(tmp_path):
    def write():
        path = tmp_path / "model.onnx"
        path.write_bytes(b"onnx")
        return path

    return write


# --- what is asked and what is answered


def test_a_command_gets_the_file_last_and_the_request_on_stdin(tmp_path, file):
    seen = tmp_path / "seen.json"
    source = (
        "import json, sys; request = json.load(sys.stdin);"
        f"json.dump([sys.argv[1:], request], open({str(seen)!r}, 'w'));"
        "print('{\"latency_ms\": 1.5}')"
    )
    measured(python(source, "--runs", "a,b c"), batch=3).report(GRAPH, POLICY, onnx=file)
    arguments, request = json.loads(seen.read_text())
    path = str(tmp_path / "model.onnx")
    assert arguments == ["--runs", "a,b c", path]
    assert (request["onnx"], request["batch"], request["quantities"]) == (path, 3, ["latency_ms"])
    conv, fc = request["layers"]
    assert (conv["kernel"], conv["macs"], conv["weight_bits"], conv["act_bits"]) == (
        [3, 3],
        108 * 64,
        4,
        8,
    )
    assert (fc["name"], fc["kind"]) == ("fc", "linear")
    assert [node["inputs"] for node in request["nodes"]] == [[], ["input"], ["conv"]]


def test_the_answer_is_the_report(file):
    text = '{"latency_ms": 1.5, "energy_mj": 2, "layers": {"fc": {"latency_ms": 0.5}}, "x": "y"}'
    model = measured(answering(text), quantities=Quantities(["latency_ms", "energy_mj"]), batch=2)
    report = model.report(GRAPH, POLICY, onnx=file)
    assert report.total == {"latency_ms": 1.5, "energy_mj": 2}
    assert report.units == {"latency_ms": "ms", "energy_mj": "mJ"}
    assert report.batch == 2
    assert [layer.costs for layer in report.layers] == [{}, {"latency_ms": 0.5}]
    assert [layer.macs for layer in report.layers] == [6912, 8]
    assert "Measured by" in report.notes[0]
    json.dumps(report.to_json(), allow_nan=False)


def test_a_model_without_a_file_says_where_there_is_one():
    with pytest.raises(ConfigError, match="measures an ONNX file, and there is none"):
        measured(answering("{}")).report(GRAPH, POLICY)


def test_the_policy_must_be_for_the_network(file):
    with pytest.raises(PolicyError, match="left out: fc"):
        measured(answering("{}")).report(GRAPH, QuantPolicy.uniform(["conv"], 4), onnx=file)


# --- failures


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (python("import sys; print('bad board', file=sys.stderr); sys.exit(3)"), "it returned 3"),
        (python("import os; os.kill(os.getpid(), 11)"), "ended by SIGSEGV. It wrote nothing"),
        (answering("1.5 ms"), r"one JSON object on stdout.* it wrote '1.5 ms"),
        (python(""), "it wrote nothing"),
        (answering("[" * 100_000), "one JSON object on stdout"),
        (answering("[1.5]"), r"answered no JSON object but \[1.5\]"),
        (answering("{}"), "its answer lacks `latency_ms`"),
        (answering('{"latency_ms": NaN}'), "must be a finite number >= 0, got nan"),
        (answering('{"latency_ms": Infinity}'), "must be a finite number >= 0, got inf"),
        (answering('{"latency_ms": -1}'), "must be a finite number >= 0, got -1"),
        (answering('{"latency_ms": "1"}'), "must be a finite number >= 0, got '1'"),
        (answering('{"latency_ms": true}'), "must be a finite number >= 0, got True"),
        (answering('{"latency_ms": null}'), "must be a finite number >= 0, got None"),
        (answering(f'{{"latency_ms": 1{"0" * 400}}}'), "must be a finite number >= 0, got 10"),
        (answering('{"latency_ms": 1, "layers": []}'), "`layers` of its answer must map names"),
        (answering('{"latency_ms": 1, "layers": {"fc": 1}}'), "must map names to objects"),
        (answering('{"latency_ms": 1, "layers": {"a": {}}}'), "names the layer 'a', which the n"),
        (
            answering('{"latency_ms": 1, "layers": {"fc": {"latency_ms": -1}}}'),
            "`fc: latency_ms` must be a finite number",
        ),
        (python("print('x' * 2**24)"), "it wrote more than 16777216 bytes"),
    ],
)
def test_every_failure_says_what_happened(file, command, message):
    with pytest.raises(MeasurementError, match=message) as caught:
        measured(command).report(GRAPH, POLICY, onnx=file)
    assert "Hardware 'board': the command " in str(caught.value)
    assert "in 1 attempt: " in str(caught.value)


def test_the_last_lines_of_a_failure_are_kept(file):
    source = "import sys; [print(f'line {i}', file=sys.stderr) for i in range(99)]; sys.exit(1)"
    with pytest.raises(MeasurementError, match="Its last lines:") as caught:
        measured(python(source)).report(GRAPH, POLICY, onnx=file)
    assert str(caught.value).splitlines()[1:] == [f"line {i}" for i in range(79, 99)]


def test_output_in_no_encoding_is_shown_as_far_as_it_can_be(file):
    source = "import sys; sys.stdout.buffer.write(b'caf\\xff'); sys.exit(1)"
    with pytest.raises(MeasurementError, match="caf\ufffd"):
        measured(python(source)).report(GRAPH, POLICY, onnx=file)


def test_a_failed_attempt_is_repeated_as_often_as_told(tmp_path, file):
    log = tmp_path / "log"
    with pytest.raises(MeasurementError, match="no measurement in 3 attempts"):
        replace(measured(answering("no", log)), retries=2).report(GRAPH, POLICY, onnx=file)
    assert len(log.read_text().splitlines()) == 3


def test_an_attempt_that_works_ends_the_repetition(tmp_path, file):
    log = tmp_path / "log"
    source = (
        f"log = open({str(log)!r}, 'a+'); log.write('x\\n'); log.seek(0);"
        "n = len(log.readlines());"
        "print('{\"latency_ms\": %d}' % n if n > 1 else 'no')"
    )
    report = replace(measured(python(source)), retries=5).report(GRAPH, POLICY, onnx=file)
    assert report.total == {"latency_ms": 2}


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path, file):
    pids = tmp_path / "pids"
    child = "import time; time.sleep(60)"
    source = (
        "import os, subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}]);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}');"
        "print('waiting', flush=True); time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(MeasurementError, match=r"it was stopped after 1\.5 s.*\nwaiting"):
        measured(python(source), timeout_s=1.5).report(GRAPH, POLICY, onnx=file)
    assert time.monotonic() - start < 10
    for pid in map(int, pids.read_text().split()):
        assert is_gone(pid)


def is_gone(pid):
    """Whether a process ended; one that nobody has waited for still has a number."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_an_interrupted_measurement_leaves_no_process(tmp_path, file):
    # Where tests run in the background of a shell, interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pids = tmp_path / "pids"
    source = f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt():
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            measured(python(source)).report(GRAPH, POLICY, onnx=file)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert is_gone(int(pids.read_text()))


def test_a_large_request_to_a_command_that_reads_nothing_does_not_block():
    layers = tuple(Layer(f"layer{i}", "linear", 4, 2) for i in range(3000))
    graph = LayerGraph(layers)
    policy = QuantPolicy.uniform(graph.names, 4)
    report = measured(answering('{"latency_ms": 1}'), timeout_s=30.0).report(
        graph, policy, onnx=lambda: Path("model.onnx")
    )
    assert report.total == {"latency_ms": 1}


def test_a_program_that_is_not_there_is_no_failed_measurement(file):
    with pytest.raises(ConfigError, match=r"cannot be started: .*no-such-program.* is installed"):
        measured(("no-such-program",)).report(GRAPH, POLICY, onnx=file)


# --- the cache


def test_a_kept_answer_needs_neither_the_command_nor_the_file(tmp_path, file):
    log, cache = tmp_path / "log", tmp_path / "new" / "cache.jsonl"
    text = '{"latency_ms": 1.5, "layers": {"fc": {"latency_ms": 0.5}}}'
    model = measured(answering(text, log), cache=str(cache))
    first = model.report(GRAPH, POLICY, onnx=file)
    assert model.report(GRAPH, POLICY) == first
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 2},
        {"quantities": Quantities(["latency_ms", "energy_mj"])},
        {"policy": QuantPolicy.uniform(GRAPH.names, 5, 8)},
        {"policy": QuantPolicy.uniform(GRAPH.names, 4, 7)},
        {"graph": LayerGraph(GRAPH.layers)},
        {"graph": LayerGraph((replace(GRAPH["conv"], groups=1, stride=(2, 2)), GRAPH["fc"]))},
        {"command": answering('{"latency_ms": 1.5, "energy_mj": 3, "other": 0}')},
    ],
    ids=str,
)
def test_another_question_is_asked(tmp_path, file, change):
    change = dict(change)
    model = measured(
        answering('{"latency_ms": 1.5, "energy_mj": 3}'), cache=str(tmp_path / "cache")
    )
    model.report(GRAPH, POLICY, onnx=file)
    graph, policy = change.pop("graph", GRAPH), change.pop("policy", POLICY)
    with pytest.raises(ConfigError, match="there is none"):
        replace(model, **change).report(graph, policy)


def test_neither_the_path_nor_how_long_to_wait_makes_another_question(tmp_path, file):
    model = measured(answering('{"latency_ms": 1.5}'), cache=str(tmp_path / "cache"))
    model.report(GRAPH, POLICY, onnx=file)
    assert replace(model, name="other", timeout_s=3.0, retries=7).report(GRAPH, POLICY)


def test_failures_are_not_kept(tmp_path, file):
    cache = tmp_path / "cache"
    with pytest.raises(MeasurementError):
        measured(answering("no"), cache=str(cache)).report(GRAPH, POLICY, onnx=file)
    assert not cache.exists()


def test_a_torn_or_edited_line_spoils_no_other(tmp_path, file):
    cache = tmp_path / "cache"
    model = measured(answering('{"latency_ms": 1.5}'), cache=str(cache))
    model.report(GRAPH, POLICY, onnx=file)
    line = cache.read_text().strip()
    cache.write_text(line[:-20])
    model.report(GRAPH, POLICY, onnx=file)
    assert cache.read_text().splitlines()[0] == line[:-20]
    assert model.report(GRAPH, POLICY).total == {"latency_ms": 1.5}
    cache.write_text(line.replace("1.5", "-1"))
    with pytest.raises(ConfigError, match="there is none"):
        model.report(GRAPH, POLICY)


def test_several_processes_keep_their_answers_in_one_file(tmp_path):
    cache = tmp_path / "cache"
    source = (
        "import sys; from pathlib import Path;"
        "from bitscout.hardware.measured.cache import append_line;"
        "[append_line(Path(sys.argv[1]), f'{sys.argv[2]}-{i}', {'text': 'x' * 3000})"
        " for i in range(100)]"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", source, str(cache), str(i)]) for i in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    keys = {json.loads(line)["key"] for line in cache.read_text().splitlines() if line}
    assert keys == {f"{i}-{j}" for i in range(3) for j in range(100)}


def test_a_cache_that_cannot_be_used_is_said(tmp_path, file):
    with pytest.raises(ConfigError, match=r"cache of measurements .* Is a directory.*`cache`"):
        measured(answering("{}"), cache=str(tmp_path)).report(GRAPH, POLICY, onnx=file)
    (tmp_path / "a-file").write_text("")
    model = measured(answering('{"latency_ms": 1}'), cache=str(tmp_path / "a-file" / "cache"))
    with pytest.raises(ConfigError, match="Choose another file for `cache`"):
        model.report(GRAPH, POLICY, onnx=file)


# --- how it is written


def test_the_command_line_may_quote_commas_and_colons():
    model = load_hardware(
        "measured:command=python 'a,b.py' --host board:22 --set x=1,"
        "quantities=latency_ms + energy_mj,timeout_s=5,retries=0,cache=~/kept"
    )
    assert model.command == ("python", "a,b.py", "--host", "board:22", "--set", "x=1")
    assert list(model.quantities) == ["latency_ms", "energy_mj"]
    assert (model.timeout_s, model.retries, model.cache) == (5.0, 0, "~/kept")


def test_a_configuration_may_have_lists():
    model = load_hardware(
        {"name": "measured", "command": ["python", "a,b.py", 5], "quantities": ["power_mw"]}
    )
    assert model.command == ("python", "a,b.py", "5")
    assert model.quantities == {"power_mw": "mW"}


def test_a_target_file_may_hold_the_command(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text(
        "model: measured\ndescription: my board\nnotes: [at 80 MHz]\n"
        'options: {command: "python a.py --at board:22,23", quantities: [cycles], cache: null}\n'
    )
    model = load_hardware(f"{path}:timeout_s=7")
    assert model.command == ("python", "a.py", "--at", "board:22,23")
    assert model.quantities == {"cycles": "cycles"}
    assert model.spec == f"{path}:timeout_s=7.0"
    assert model.notes == ("at 80 MHz", "Measured by: python a.py --at 'board:22,23'")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_the_whole_command_are_not_part_of_it(quote):
    text = f"measured:command={quote}python m.py a,b{quote},timeout_s=5"
    model = load_hardware(text)
    assert (model.command, model.timeout_s) == (("python", "m.py", "a,b"), 5.0)


def test_the_message_without_a_command_shows_text_that_works():
    with pytest.raises(ConfigError) as caught:
        load_hardware("measured")
    (spec,) = shlex.split(str(caught.value).partition("write ")[2].partition(", quotes")[0])
    assert load_hardware(spec).command == ("python", "measure.py")


def test_every_attempt_is_told_to_whoever_listens(caplog, file):
    command = (sys.executable, "-I", "-S", "-c", "raise SystemExit(3)")
    with caplog.at_level("INFO", "bitscout.hardware"), pytest.raises(MeasurementError):
        replace(measured(command, timeout_s=7.5), retries=1).report(GRAPH, POLICY, onnx=file)
    said = f"Measuring with `{join_command(command)}`, attempt %d of 2, up to 7.5 s."
    assert caplog.messages == [said % 1, said % 2]


words = st.text(st.sampled_from("ab,:='\"\\ \n$*+-é"), max_size=8)


@given(st.lists(words, min_size=1, max_size=4).filter(lambda parts: parts[0] != ""))
@example(["it's, or", "'", '"', ",", ""])
def test_every_command_can_be_written_and_read(parts):
    assert split_command(join_command(parts)) == tuple(parts)
    model = Measured(name="measured", command=tuple(parts), batch=2)
    assert load_hardware(model.spec) == model


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("measured", "'measured' needs the command that measures: write 'measured:command=python"),
        ("measured:command=", "`command` of .* must be a command, as text or .*, got ''"),
        ("measured:command='a", "must be a command"),
        ({"name": "measured", "command": []}, r"must be a command, .* got \[\]"),
        ({"name": "measured", "command": 5}, "must be a command, .* got 5"),
        ({"name": "measured", "command": ["a", True]}, "must be a command"),
        ({"name": "measured", "command": ["a", ["b"]]}, "must be a command"),
        ("measured:command=a,quantities=", "lower-case name .* such as latency_ms, got ''"),
        ("measured:command=a,quantities=Latency", "lower-case name .* got 'Latency'"),
        ({"name": "measured", "command": "a", "quantities": []}, "needs at least one quantity"),
        ({"name": "measured", "command": "a", "quantities": [1]}, "lower-case name .* got 1"),
        ({"name": "measured", "command": "a", "quantities": 1}, "joined by .*, got 1"),
        ("measured:command=a,timeout_s=0", "`timeout_s` of .* must be above 0 s, got 0"),
        ("measured:command=a,timeout_s=inf", "`timeout_s` of .* must be a finite number in s"),
        ("measured:command=a,retries=-1", "`retries` of .* must be at least 0, got -1"),
        ("measured:command=a,batch=0", "`batch` of .* must be at least 1"),
        ("measured:command=a b,c", r"got 'c'. A value with a comma needs quotes"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_hardware(spec)


def test_of_two_answers_all_take_the_first(tmp_path, file):
    # The command stands for a second process as well, which answers the same question meanwhile.
    cache = tmp_path / "cache.jsonl"
    script = tmp_path / "answer.py"
    command = (sys.executable, "-I", "-S", str(script))
    script.write_text("print('{\"latency_ms\": 1}')")
    model = measured(command, cache=str(cache))
    assert model.report(GRAPH, POLICY, onnx=file).total == {"latency_ms": 1}
    kept = cache.read_text()
    cache.unlink()
    script.write_text(f"open({str(cache)!r}, 'a').write({kept!r})\nprint('{{\"latency_ms\": 2}}')")
    assert model.report(GRAPH, POLICY, onnx=file).total == {"latency_ms": 1}
