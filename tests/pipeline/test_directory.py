"""Run directories: who may write where, and what a killed writer leaves."""

import os
import subprocess
import sys

import pytest

from bitscout.errors import RunError
from bitscout.pipeline import RunDirectory, next_free_directory
from bitscout.pipeline.directory import write_errors_explained


def test_fresh_and_empty_directories_are_free(tmp_path):
    RunDirectory(tmp_path / "new").check_is_free()
    RunDirectory(tmp_path).check_is_free()


def test_a_leftover_lock_alone_does_not_make_a_directory_taken(tmp_path):
    with RunDirectory(tmp_path).lock():
        pass
    RunDirectory(tmp_path).check_is_free()


def test_what_a_run_killed_before_its_configuration_leaves_does_not_block_the_next(tmp_path):
    for name in (".lock", "dataset.json", "environment.json", ".config.yaml.tmp"):
        (tmp_path / name).write_text("half")
    RunDirectory(tmp_path).check_is_free()


def test_occupied_directories_are_refused_by_kind(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        RunDirectory(tmp_path / "file").check_is_free()
    with pytest.raises(RunError, match="not empty and is not a run"):
        RunDirectory(tmp_path).check_is_free()
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RunError, match=r"already holds a run.*bitscout resume"):
        RunDirectory(tmp_path).check_is_free()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="There is no directory"):
        RunDirectory(tmp_path / "absent").check_is_run()
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml"):
        RunDirectory(tmp_path).check_is_run()


def test_lock_keeps_a_second_process_out_and_dies_with_its_holder(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from bitscout.pipeline.directory import RunDirectory\n"
        "with RunDirectory(sys.argv[1]).lock():\n"
        "    print('held', flush=True)\n"
        "    signal.pause()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match="Another process is working"),
            RunDirectory(tmp_path).lock(),
        ):
            pass
        holder.kill()
    with RunDirectory(tmp_path).lock():
        pass


def test_failed_write_leaves_the_old_file(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json(tmp_path / "a.json", {"new": float("nan")})
    assert run.read_json(tmp_path / "a.json") == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_folder_appears_whole_or_not_at_all(tmp_path):
    run = RunDirectory(tmp_path)

    def fail(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.write_folder(tmp_path / "final" / "3", fail)
    assert not (tmp_path / "final" / "3").exists()
    run.write_folder(tmp_path / "final" / "3", lambda folder: (folder / "all").write_text("x"))
    assert [entry.name for entry in (tmp_path / "final").rglob("*")] == ["3", "all"]


def test_full_disk_is_explained(tmp_path):
    expected = pytest.raises(RunError, match=r"Cannot write .*No space left on device.*resume")
    with expected, write_errors_explained(tmp_path):
        raise OSError(28, os.strerror(28))


def test_unwritable_place_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="Cannot write"):
        RunDirectory(tmp_path / "file" / "run").write_text(tmp_path / "file" / "run" / "a", "x")


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"half')
    with pytest.raises(RunError, match=r"a\.json is missing or damaged"):
        RunDirectory(tmp_path).read_json(tmp_path / "a.json")


def test_next_free_directory_counts_up(tmp_path):
    assert next_free_directory(tmp_path, "demo").name == "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert next_free_directory(tmp_path, "demo").name == "demo-3"
