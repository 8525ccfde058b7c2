"""Who wins, by hand."""

from dataclasses import replace

import pytest

from bitscout.core import Candidate, Metrics, QuantPolicy
from bitscout.pipeline import FinalRecord
from bitscout.pipeline.verdict import judge


def network(label, accuracy, size, number=None, value=None):
    return FinalRecord(
        name=label,
        label=label,
        folder="final",
        number=number,
        candidate=Candidate({"x": value or label}, QuantPolicy.uniform(["a"], 4)),
        metrics=Metrics(val_accuracy=accuracy, test_accuracy=accuracy, size_bytes=size),
        float_accuracy=accuracy,
    )


@pytest.mark.parametrize(
    ("accuracy", "size", "outcome"),
    [
        (0.9, 100, "won"),  # more accurate at the same size
        (0.8, 90, "won"),  # smaller at the same accuracy
        (0.8, 100, "lost"),  # equal in both
        (0.7, 100, "lost"),
        (0.8, 110, "lost"),
        (0.9, 110, "open"),
        (0.7, 90, "open"),
    ],
)
def test_outcome_follows_from_dominance(accuracy, size, outcome):
    (verdict,) = judge([network("t", accuracy, size, 1)], [network("b", 0.8, 100)], n_test=100)
    assert verdict.outcome == outcome
    assert verdict.accuracy_gain == pytest.approx(accuracy - 0.8)
    assert verdict.size_ratio == size / 100


def test_rival_is_the_most_accurate_network_no_larger():
    final = [
        network("tiny", 0.5, 10, 1),
        network("good", 0.9, 99, 2),
        network("big", 0.99, 101, 3),
    ]
    (verdict,) = judge(final, [network("b", 0.8, 100)], n_test=0)
    assert verdict.rival == "good"
    assert verdict.standard_error == 0


def test_rival_is_the_smallest_where_all_are_larger():
    final = [network("big", 0.9, 200, 1), network("bigger", 0.95, 300, 2)]
    (verdict,) = judge(final, [network("b", 0.8, 100)], n_test=0)
    assert verdict.rival == "big"


def test_the_baseline_itself_is_no_rival_unless_alone():
    baseline = network("seed", 0.8, 100, value="seed")
    twin = network("trial 0", 0.8, 100, 0, value="seed")
    other = network("trial 5", 0.7, 50, 5)
    assert judge([twin, other], [baseline], n_test=0)[0].rival == "trial 5"
    assert judge([twin], [baseline], n_test=0)[0].outcome == "lost"


def test_uniform_baseline_meets_the_network_whose_architecture_it_has():
    final = [network("trial 3", 0.8, 110, 3), network("trial 4", 0.99, 90, 4)]
    (verdict,) = judge(final, [network("uniform", 0.7, 100, 3)], n_test=0)
    assert verdict.rival == "trial 3"
    assert verdict.outcome == "open"


def test_standard_error_is_that_of_a_difference_of_two_fractions():
    (verdict,) = judge([network("t", 0.9, 1, 1)], [network("b", 0.8, 1)], n_test=360)
    assert verdict.standard_error == pytest.approx(((0.09 + 0.16) / 360) ** 0.5)


def test_sentences_say_who_beats_whom():
    def sentence(accuracy, size):
        baselines = [network("seed, 8 bit", 0.8, 100)]
        return judge([network("trial 1", accuracy, size, 1)], baselines, n_test=400)[0].sentence()

    assert sentence(0.9, 50) == (
        "trial 1 beats seed, 8 bit: +10.0 points (standard error 2.5) at 0.50x its size."
    )
    assert sentence(0.7, 150).startswith("trial 1 does not beat seed, 8 bit: -10.0 points")
    assert sentence(0.9, 150).startswith("trial 1 trades with seed, 8 bit: +10.0 points")


def test_gains_below_two_standard_errors_are_called_noise():
    baselines = [network("b", 0.8, 100)]
    (close,) = judge([network("t", 0.82, 50, 1)], baselines, n_test=100)
    (clear,) = judge([network("t", 0.95, 50, 1)], baselines, n_test=100)
    assert "(standard error 5.5, within the noise)" in close.sentence()
    assert "noise" not in clear.sentence()


def test_twin_sentences_are_about_the_bits_alone():
    baseline = network("trial 1 at uniform 5 bit", 0.8, 100, 1)
    (verdict,) = judge([network("trial 1", 0.9, 100, 1)], [baseline], n_test=0)
    assert verdict.is_twin
    assert verdict.sentence() == (
        "Mixing bits pays: trial 1 against trial 1 at uniform 5 bit, +10.0 points (standard error "
        "0.0) at 1.00x its size."
    )


def test_the_test_set_does_not_choose_the_rival():
    final = [
        replace(network("lucky", 0.99, 50, 1), metrics=metrics(0.7, 0.99, 50)),
        replace(network("chosen", 0.8, 60, 2), metrics=metrics(0.9, 0.8, 60)),
    ]
    assert judge(final, [network("b", 0.8, 100)], n_test=0)[0].rival == "chosen"


def metrics(validation, test, size):
    return Metrics(val_accuracy=validation, test_accuracy=test, size_bytes=size)


def test_nothing_searched_gives_no_verdict():
    assert judge([], [network("b", 0.8, 100)], n_test=1) == ()
