# SPDX-License-Identifier: Apache-2.0
"""Curves against the definitions they are drawn from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import BompScore
from bitscout.report.curves import (
    best_so_far,
    equal_score_accuracy,
    log_ticks,
    lowest_usual,
    running_hypervolume,
)


@pytest.mark.parametrize("objective", [BompScore(), BompScore(0.5, 6.0)])
def test_every_point_of_an_equal_score_line_has_that_score(objective):
    sizes = np.array([800.0, 4570.0, 91_576.0])
    accuracies = equal_score_accuracy(objective, 2.5, sizes)
    scores = [objective.score(a, 8 * s) for a, s in zip(accuracies, sizes, strict=True)]
    np.testing.assert_allclose(scores, 2.5, rtol=1e-12)


def test_the_running_hypervolume_never_falls_and_ends_at_that_of_the_run(complete):
    volumes = running_hypervolume(complete.complete, complete.front_metrics)
    assert len(volumes) == len(complete.complete)
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(complete.hypervolume(), rel=1e-12)
    assert volumes[0] < volumes[-1]


@pytest.mark.parametrize("n", [0, 1])
def test_there_is_no_area_before_two_trials(complete, n):
    assert running_hypervolume(complete.complete[:n], complete.front_metrics) == [0.0] * n


def test_nothing_is_the_best_of_nothing():
    assert best_so_far([]) == []


def test_ticks_include_both_ends():
    assert log_ticks(1, 100) == [1, 2, 5, 10, 20, 50, 100]


@given(st.floats(1e-9, 1e9), st.floats(1.05, 1e4))
def test_every_logarithmic_axis_has_three_ticks_and_not_many_more(low, ratio):
    high = low * ratio
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 3 * np.log10(ratio) + 8
    assert ticks == sorted(set(ticks))
    assert low <= ticks[0]
    assert ticks[-1] <= high
    assert all(float(f"{tick:.6g}") == tick for tick in ticks)  # as they are written


def test_an_axis_starts_at_the_smallest_value_within_tukeys_fence():
    # Quartiles 2 and 4, fence 2 - 1.5 * 2 = -1.
    assert lowest_usual([-1.5, -1, 2, 2, 3, 4, 4, 5, 6]) == -1
    assert lowest_usual([0.5]) == 0.5
