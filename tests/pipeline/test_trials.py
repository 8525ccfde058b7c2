"""The loop: what is recorded, what costs no training, and that nothing but the journal matters."""

import numpy as np
import pytest
import torch

from bitscout.errors import RunError
from bitscout.pipeline import (
    FinalFinished,
    RunDirectory,
    TrialFinished,
    TrialStarted,
    load_result,
    make_config,
    resume_search,
    run_search,
)
from bitscout.pipeline.components import build_components
from bitscout.pipeline.journal_file import ExclusiveJournalFile


def history(result):
    """What must be equal for equal seeds: everything but the clock."""
    return [
        (trial.number, trial.outcome, trial.candidate.digest, trial.metrics, trial.values)
        for trial in result.trials
    ]


def finals(result):
    return [
        (record.name, record.candidate.digest, record.metrics)
        for record in (*result.final, *result.baselines)
    ]


@pytest.mark.parametrize(
    "searcher",
    [
        {"name": "bomp", "surrogate": "paper"},
        {"name": "bomp", "surrogate": "edit-distance"},
        {"name": "bomp", "surrogate": "scaled"},
        {"name": "bomp", "surrogate": "scaled", "batch": 3},
        {"name": "random"},
        {"name": "tpe"},
        {"name": "gp"},
        {"name": "nsga2"},
    ],
    ids=lambda searcher: "-".join(map(str, searcher.values())),
)
def test_history_is_the_same_twice_and_after_interruptions(
    searcher, make_tiny_config, fake_training, tmp_path
):
    config = make_tiny_config(searcher=searcher)
    straight = run_search(config, tmp_path / "straight")
    assert [trial.number for trial in straight.trials] == list(range(8))

    fake_training.crash_on = {len(fake_training.calls) + k for k in (0, 3, 4, 9, 12)}
    with pytest.raises(KeyboardInterrupt):
        run_search(config, tmp_path / "broken")
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            resume_search(tmp_path / "broken")
    resumed = resume_search(tmp_path / "broken")

    assert history(resumed) == history(straight)
    assert finals(resumed) == finals(straight)
    assert resumed.pareto_front == straight.pareto_front
    assert resumed.state == "complete"


def test_first_trial_is_the_seed_network(make_tiny_config, fake_training, tmp_path):
    result = run_search(make_tiny_config(), tmp_path)
    space = build_components(make_tiny_config()).space
    assert result.trials[0].candidate == space.candidate(space.seed_values())


def test_bomp_never_repeats_a_candidate_and_different_seeds_differ(
    make_tiny_config, fake_training, tmp_path
):
    digests = {}
    for seed in (0, 1):
        config = make_tiny_config(seed=seed, searcher={"n_trials": 20})
        result = run_search(config, tmp_path / str(seed))
        digests[seed] = [trial.candidate.digest for trial in result.trials]
        assert len(set(digests[seed])) == 20
        assert all(trial.duplicate_of is None for trial in result.trials)
    assert digests[0][1:] != digests[1][1:]


def test_failed_trials_keep_their_reason_and_the_search_goes_on(
    make_tiny_config, fake_training, tmp_path
):
    fake_training.fail_on = {1, 4}
    result = run_search(make_tiny_config(), tmp_path)
    assert result.counts() == {"complete": 6, "failed": 2, "infeasible": 0}
    failed = [trial for trial in result.trials if trial.outcome == "failed"]
    assert [trial.number for trial in failed] == [1, 4]
    assert all(trial.reason == "Training diverged: the loss is nan." for trial in failed)
    assert all(trial.metrics["size_bytes"] > 0 and trial.values == () for trial in failed)
    assert not set(result.pareto_front) & {1, 4}


def test_a_search_that_only_fails_stops_after_ten_trials(
    make_tiny_config, fake_training, tmp_path
):
    fake_training.fail_on = set(range(100))
    with pytest.raises(
        RunError, match=r"first 10 trials within the budget all failed.*loss is nan"
    ):
        run_search(make_tiny_config(searcher={"n_trials": 30}), tmp_path)
    assert len(fake_training.calls) == 10
    assert load_result(tmp_path).counts()["failed"] == 10


def test_repeated_candidates_share_the_first_result(make_tiny_config, fake_training, tmp_path):
    # Optuna's NSGA-II repeats itself on 128 points.
    config = make_tiny_config(searcher={"name": "nsga2", "n_trials": 60})
    events = []
    result = run_search(config, tmp_path, listener=events.append)
    started = [event for event in events if isinstance(event, TrialStarted)]
    repeated = [trial for trial in result.trials if trial.duplicate_of is not None]
    assert repeated
    for trial in repeated:
        first = result.trials[trial.duplicate_of]
        assert first.duplicate_of is None
        assert (trial.candidate, trial.metrics) == (first.candidate, first.metrics)
    assert len(started) == 60 - len(repeated)


def test_score_of_every_trial_is_equation_1(make_tiny_config, fake_training, tmp_path):
    result = run_search(make_tiny_config(), tmp_path)
    for trial in result.trials:
        accuracy, size = trial.metrics["val_accuracy"], trial.metrics["size_bytes"]
        assert trial.score == pytest.approx(accuracy / 0.8 + 8 / np.log10(8 * size), rel=1e-12)


def test_several_objectives_give_a_front_in_all_of_them(make_tiny_config, fake_training, tmp_path):
    config = make_tiny_config(
        objective={"front": ["accuracy", "size_bytes", "macs"]}, searcher={"n_trials": 12}
    )
    result = run_search(config, tmp_path)
    assert all(len(trial.values) == 3 and trial.score is None for trial in result.trials)
    rows = {
        t.number: (-t.metrics["val_accuracy"], t.metrics["size_bytes"], t.metrics["macs"])
        for t in result.trials
    }
    for number, row in rows.items():
        dominated = any(
            all(a <= b for a, b in zip(other, row, strict=True)) and other != row
            for other in rows.values()
        )
        assert (number in result.pareto_front) == (not dominated)


def test_every_event_is_told_in_order(make_tiny_config, fake_training, tmp_path):
    events = []
    result = run_search(make_tiny_config(), tmp_path, listener=events.append)
    finished = [event.record for event in events if isinstance(event, TrialFinished)]
    assert [record.number for record in finished] == list(range(8))
    assert [r.candidate for r in finished] == [t.candidate for t in result.trials]
    n_final = sum(isinstance(event, FinalFinished) for event in events)
    assert n_final == len(result.final) + len(result.baselines)


def test_a_complete_run_is_not_run_again(make_tiny_config, fake_training, tmp_path):
    first = run_search(make_tiny_config(), tmp_path)
    calls = len(fake_training.calls)
    assert resume_search(tmp_path).to_json() == first.to_json()
    assert len(fake_training.calls) == calls


def test_a_run_is_not_started_over_another(make_tiny_config, fake_training, tmp_path):
    run_search(make_tiny_config(), tmp_path)
    with pytest.raises(RunError, match="already holds a run"):
        run_search(make_tiny_config(seed=1), tmp_path)


def test_a_run_goes_on_with_its_own_data_only(make_tiny_config, fake_training, tmp_path):
    fake_training.crash_on = {2}
    with pytest.raises(KeyboardInterrupt):
        run_search(make_tiny_config(), tmp_path)
    run = RunDirectory(tmp_path)
    recorded = run.read_json(run.dataset)
    run.write_json(run.dataset, {**recorded, "fingerprint": "0" * 16})
    with pytest.raises(RunError, match="data has changed since"):
        resume_search(tmp_path)


def test_a_run_can_be_read_while_it_searches(make_tiny_config, fake_training, tmp_path):
    seen = []

    def look(event):
        if isinstance(event, TrialFinished):
            seen.append((load_result(tmp_path).state, len(load_result(tmp_path).complete)))

    run_search(make_tiny_config(), tmp_path, listener=look)
    assert seen == [("searching", n) for n in range(1, 8)] + [("finalizing", 8)]


def test_a_full_disk_keeps_what_is_finished(
    make_tiny_config, fake_training, tmp_path, monkeypatch
):
    original = ExclusiveJournalFile.append_logs
    written = []

    def append_logs(self, logs):
        written.append(logs)
        if len(written) == 60:
            raise OSError(28, "No space left on device")
        original(self, logs)

    monkeypatch.setattr(ExclusiveJournalFile, "append_logs", append_logs)
    with pytest.raises(RunError, match=r"Cannot write .*study\.journal: No space left"):
        run_search(make_tiny_config(), tmp_path / "full")
    monkeypatch.undo()
    kept = load_result(tmp_path / "full").complete
    assert 0 < len(kept) < 8


def test_a_run_keeps_to_its_number_of_threads_and_gives_them_back(
    make_tiny_config, fake_training, tmp_path
):
    seen = set()
    before = torch.get_num_threads()
    config = make_tiny_config(threads=before + 1, searcher={"n_trials": 2})
    run_search(config, tmp_path, listener=lambda _: seen.add(torch.get_num_threads()))
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
    assert load_result(tmp_path).environment["threads"] == before + 1


def test_the_search_never_has_the_test_set(make_tiny_config, fake_training, tmp_path):
    run_search(make_tiny_config(), tmp_path)
    assert fake_training.test_splits == {None}


@pytest.mark.parametrize("size_kb", [2.2, 2.5, 4])
def test_bomp_finds_candidates_where_one_in_a_hundred_thousand_fits(
    make_tiny_config, fake_training, tmp_path, size_kb
):
    config = make_tiny_config(space={"name": "bomp"}, budget={"size_kb": size_kb})
    # The whole of Table I: its smallest network on digits has 2.06 kB.
    document = config.model_dump()
    document["space"] = {"name": "bomp"}
    result = run_search(make_config(document), tmp_path)
    assert [trial.outcome for trial in result.trials] == ["infeasible"] + ["complete"] * 7
    assert len({trial.candidate.digest for trial in result.trials}) == 8


def test_another_configuration_beside_the_journal_is_refused(
    make_tiny_config, fake_training, tmp_path
):
    fake_training.crash_on = {3}
    with pytest.raises(KeyboardInterrupt):
        run_search(make_tiny_config(), tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("ref_size: 8.0", "ref_size: 6.0"))
    with pytest.raises(RunError, match="belongs to another configuration"):
        resume_search(tmp_path)


def test_more_trials_may_be_asked_for_on_resume(make_tiny_config, fake_training, tmp_path):
    fake_training.crash_on = {3}
    with pytest.raises(KeyboardInterrupt):
        run_search(make_tiny_config(), tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("n_trials: 8", "n_trials: 10"))
    assert len(resume_search(tmp_path).trials) == 10


def test_a_search_that_only_fails_stops_again_on_resume(make_tiny_config, fake_training, tmp_path):
    fake_training.fail_on = set(range(100))
    with pytest.raises(RunError, match="all failed"):
        run_search(make_tiny_config(searcher={"n_trials": 30}), tmp_path)
    with pytest.raises(RunError, match="all failed"):
        resume_search(tmp_path)
    assert len(fake_training.calls) == 10


@pytest.mark.parametrize("name", ["gp", "nsga2", "nsga3", "tpe", "random", "bomp"])
def test_a_run_cut_after_any_write_goes_on_to_the_same_history(
    name, make_tiny_config, fake_training, tmp_path, monkeypatch
):
    sizes = []
    original = ExclusiveJournalFile._write

    def write(self, lines):
        original(self, lines)
        sizes.append((tmp_path / "straight" / "study.journal").stat().st_size)

    config = make_tiny_config(searcher={"name": name, "n_trials": 26, "batch": 3})
    monkeypatch.setattr(ExclusiveJournalFile, "_write", write)
    straight = run_search(config, tmp_path / "straight")
    monkeypatch.setattr(ExclusiveJournalFile, "_write", original)
    whole = (tmp_path / "straight" / "study.journal").read_bytes()
    rng = np.random.default_rng(0)
    for cut in [*rng.choice(sizes, 4, replace=False), sizes[-1] - 7]:
        directory = tmp_path / f"cut{cut}"
        directory.mkdir()
        for file in ("config.yaml", "dataset.json", "environment.json"):
            (directory / file).write_bytes((tmp_path / "straight" / file).read_bytes())
        (directory / "study.journal").write_bytes(whole[:cut])
        assert history(resume_search(directory)) == history(straight)


def test_damaged_runs_are_named_not_reinterpreted(make_tiny_config, fake_training, tmp_path):
    run_search(make_tiny_config(), tmp_path)
    journal, dataset = tmp_path / "study.journal", tmp_path / "dataset.json"
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"of 8 trials, but the run was complete"):
        load_result(tmp_path)
    journal.write_bytes(whole)
    dataset.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"dataset\.json is missing or damaged"):
        load_result(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RunError, match=r"config\.yaml is empty"):
        load_result(tmp_path)


def test_a_result_gives_its_data_back(make_tiny_config, fake_training, tmp_path):
    result = run_search(make_tiny_config(), tmp_path)
    data = result.data()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [
        result.dataset[f"n_{name}"] for name in ("train", "val", "test")
    ]
