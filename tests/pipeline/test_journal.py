"""The journal: half-written lines, unfinished trials, and records that come back as they were."""

import contextlib

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from bitscout.core import BompScore, Candidate, FrontObjective, Metrics, QuantPolicy
from bitscout.errors import RunError
from bitscout.pipeline import TrialRecord
from bitscout.pipeline.journal import Journal, read_records
from bitscout.pipeline.journal_file import ExclusiveJournalFile
from bitscout.samplers import RandomSearchSampler

SIZES = {"a": 4, "b": 3, "c": 5}


@contextlib.contextmanager
def journal(path, objective=None, seed=0):
    opened = Journal(path, objective or BompScore(), RandomSearchSampler(seed=seed))
    with contextlib.closing(opened):
        yield opened


def record(number, **changes):
    fields = {
        "number": number,
        "outcome": "complete",
        "candidate": Candidate({"a": 1}, QuantPolicy.uniform(["x"], 4)),
        "metrics": Metrics(val_accuracy=0.5, size_bytes=100.5),
        "values": (2.5,),
        "seconds": {"train": 0.25},
    }
    return TrialRecord(**{**fields, **changes})


def test_records_come_back_as_they_were_told(tmp_path):
    path = tmp_path / "journal"
    told = [
        record(0),
        record(1, outcome="failed", values=(), reason="the loss is nan"),
        record(2, outcome="infeasible", values=(), reason="too large"),
        record(3, duplicate_of=0),
    ]
    with journal(path) as opened:
        for each in told:
            opened.tell(opened.ask(each.number, SIZES)[0], each)
    assert read_records(path) == told


def test_running_trials_are_seen_as_such_and_a_missing_journal_as_empty(tmp_path):
    assert read_records(tmp_path / "absent") == []
    with journal(tmp_path / "journal") as opened:
        opened.ask(0, SIZES)
    assert read_records(tmp_path / "journal") == [TrialRecord(number=0, outcome="running")]


@pytest.mark.parametrize("n_suggested", [0, 1, 2, 3])
def test_an_interrupted_proposal_is_completed_as_it_would_have_been(tmp_path, n_suggested):
    with journal(tmp_path / "whole") as opened:
        _, expected = opened.ask(0, SIZES)
    with journal(tmp_path / "cut") as opened:
        opened.ask(0, dict(list(SIZES.items())[:n_suggested]))
    with journal(tmp_path / "cut") as opened:
        trial, params = opened.ask(0, SIZES)
    assert trial.number == 0
    assert params == expected


def test_enqueued_first_trial_is_taken_once_even_if_interrupted(tmp_path):
    first = {"a": 3, "b": 2, "c": 4}
    for _ in range(3):
        with journal(tmp_path / "journal") as opened:
            opened.enqueue_first(first)
    for _ in range(2):
        with journal(tmp_path / "journal") as opened:
            opened.enqueue_first(first)
            trial, params = opened.ask(0, SIZES)
            assert (trial.number, params) == (0, first)
    assert len(read_records(tmp_path / "journal")) == 1


@pytest.mark.parametrize("tail", [b'{"op_co', b"x" * 10_000, b""])
def test_half_a_line_at_the_end_is_dropped(tmp_path, tail):
    path = tmp_path / "journal"
    with journal(path) as opened:
        opened.tell(opened.ask(0, SIZES)[0], record(0))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert read_records(path) == [record(0)]
    with journal(path) as opened:
        assert path.read_bytes().startswith(whole + b'{"')
        opened.tell(opened.ask(1, SIZES)[0], record(1))
    assert read_records(path) == [record(0), record(1)]


def test_a_file_of_one_unfinished_line_is_emptied(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b'{"op')
    ExclusiveJournalFile(path).close()
    assert path.read_bytes() == b""


def test_damage_in_the_middle_is_refused_by_name(tmp_path):
    path = tmp_path / "journal"
    with journal(path) as opened:
        opened.tell(opened.ask(0, SIZES)[0], record(0))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"garbage\n", *lines[1:]]))
    with pytest.raises(RunError, match=r"journal.* is damaged"):
        read_records(path)
    with pytest.raises(RunError, match=r"journal.* is damaged"), journal(path):
        pass


def test_the_file_is_optunas_own_format(tmp_path):
    path = tmp_path / "journal"
    with journal(path) as opened:
        opened.tell(opened.ask(0, SIZES)[0], record(0))
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="bitscout", storage=storage)
    assert study.best_value == 2.5
    assert study.trials[0].state is TrialState.COMPLETE
    assert set(study.trials[0].params) == set(SIZES)


def test_directions_follow_the_metrics(tmp_path):
    objective = FrontObjective(("val_accuracy", "size_bytes", "macs"))
    with journal(tmp_path / "journal", objective) as opened:
        assert [d.name for d in opened.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
