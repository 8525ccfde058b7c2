# SPDX-License-Identifier: Apache-2.0
"""Formatting, and which network is the answer."""

import dataclasses

import pytest

from bitscout.core import LayerBits, QuantPolicy
from bitscout.report.rows import BitSummary, format_count, format_size, network_row


def with_metrics(record, **changes):
    return dataclasses.replace(record, metrics=dataclasses.replace(record.metrics, **changes))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0.000"),
        (999.4, "0.999"),
        (999.6, "1.00"),
        (9994, "9.99"),
        (9996, "10.0"),
        (99_940, "99.9"),
        (99_960, "100"),
        (None, "–"),
    ],
)
def test_sizes_have_three_digits_on_both_sides_of_a_power_of_ten(size_bytes, text):
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (999_400, "999 k"), (999_600, "1 M"), (999.6e6, "1 G")],
)
def test_counts_move_to_the_next_prefix_where_they_round_to_it(count, text):
    assert format_count(count) == text


def test_bits_are_summed_up_by_range_and_mean_over_layers():
    policy = QuantPolicy({"a": LayerBits(4), "b": LayerBits(4), "c": LayerBits(8)})
    assert str(BitSummary.of(policy)) == "4–8, mean 5.3"
    assert str(BitSummary.of(QuantPolicy.uniform("abc", 6))) == "6"


def test_the_best_network_is_chosen_on_validation_and_never_on_test_data(complete):
    first, second = complete.final[:2]
    same = {"size_bytes": 5000.0}
    better = with_metrics(first, val_accuracy=0.96, test_accuracy=0.80, **same)
    luckier = with_metrics(second, val_accuracy=0.95, test_accuracy=0.99, **same)
    result = dataclasses.replace(complete, final=(luckier, better))
    assert result.best_final is better


def test_the_score_trades_accuracy_for_size_and_a_front_does_not(complete, runs):
    record = complete.final[0]
    small = with_metrics(record, val_accuracy=0.95, size_bytes=2000.0)
    large = with_metrics(record, val_accuracy=0.96, size_bytes=100_000.0)
    assert dataclasses.replace(complete, final=(small, large)).best_final is small
    assert dataclasses.replace(runs["front"], final=(small, large)).best_final is large


def test_of_equally_accurate_networks_the_smallest_is_best(runs, complete):
    record = with_metrics(complete.final[0], val_accuracy=0.95, size_bytes=2000.0)
    larger = with_metrics(record, size_bytes=2001.0)
    assert dataclasses.replace(runs["front"], final=(larger, record)).best_final is record


def test_a_row_has_the_standard_error_of_its_test_accuracy(complete):
    record = with_metrics(complete.final[0], test_accuracy=0.9)
    # sqrt(0.9 * 0.1 / 360) = 1.58 %
    assert network_row(record, complete).test == "90.0 ± 1.6"
    unknown = dataclasses.replace(complete, dataset={})
    assert network_row(record, unknown).test == "90.0"


def test_files_are_split_into_folder_and_names(complete):
    record = dataclasses.replace(complete.final[0], files=("final/7/a.json", "final/7/b.json"))
    row = network_row(record, complete)
    assert (row.folder, row.files) == ("final/7/", ("a.json", "b.json"))
    without = network_row(dataclasses.replace(record, files=()), complete)
    assert (without.folder, without.files) == ("", ())
