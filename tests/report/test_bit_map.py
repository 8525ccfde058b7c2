# SPDX-License-Identifier: Apache-2.0
"""The map of bits: nothing lost, nothing invented."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from bitscout.core import Candidate, LayerBits, QuantPolicy
from bitscout.report.bit_map import bit_map, merge_orders


def result_with(complete, policies):
    """A run whose final networks have these policies, and no front."""
    final = [
        dataclasses.replace(
            complete.final[0],
            number=number,
            candidate=Candidate({}, QuantPolicy({k: LayerBits(v) for k, v in bits.items()})),
            metrics=dataclasses.replace(complete.final[0].metrics, size_bytes=1000.0 + number),
        )
        for number, bits in enumerate(policies)
    ]
    return dataclasses.replace(complete, trials=(), final=tuple(reversed(final)))


def test_every_layer_of_every_network_is_found_with_its_bits(complete):
    grid = bit_map(complete)
    numbers = [column.number for column in grid.columns]
    assert set(numbers) == set(complete.pareto_front) | {r.number for r in complete.final}
    for place, number in enumerate(numbers):
        policy = complete.trials[number].candidate.policy
        shown = {layer: row.cells[place] for row in grid.rows for layer in row.layers}
        for layer, cell in shown.items():
            assert policy.get(layer) in (cell, None)
        assert set(policy) <= set(shown)
        assert {
            row.cells[place] is None for row in grid.rows if set(row.layers) & set(policy)
        } == {False}
        assert {row.cells[place] for row in grid.rows if not set(row.layers) & set(policy)} <= {
            None
        }


def test_networks_stand_from_small_to_large_and_finals_are_marked(complete, runs):
    grid = bit_map(complete)
    sizes = [complete.trials[c.number].metrics.size_bytes for c in grid.columns]
    assert sizes == sorted(sizes)
    assert all(column.is_final for column in grid.columns)
    assert not any(column.is_final for column in bit_map(runs["unfinished"]).columns)


def test_repetitions_that_agree_in_every_network_share_a_row(complete):
    grid = bit_map(result_with(complete, [{"b.0.conv": 4, "b.1.conv": 4}, {"b.0.conv": 5}]))
    assert [(row.label, row.layers) for row in grid.rows] == [("b.*", ("b.0.conv", "b.1.conv"))]
    assert [cell.weight_bits for cell in grid.rows[0].cells] == [4, 5]


def test_repetitions_that_differ_in_one_network_have_rows_of_their_own(complete):
    grid = bit_map(
        result_with(complete, [{"b.0.conv": 4, "b.1.conv": 4}, {"b.0.conv": 5, "b.1.conv": 6}])
    )
    assert [row.label for row in grid.rows] == ["b.0", "b.1"]


def test_a_layer_a_network_lacks_is_blank(complete):
    grid = bit_map(result_with(complete, [{"a": 4, "c": 4}, {"a": 4, "b": 7, "c": 4}]))
    assert [row.label for row in grid.rows] == ["a", "b", "c"]
    assert grid.rows[1].cells == (None, LayerBits(7))


def test_a_gap_comes_before_each_block_but_the_first(complete):
    grid = bit_map(result_with(complete, [{"s": 4, "b.0.x": 4, "b.0.y": 5, "c": 4}]))
    assert [row.starts_block for row in grid.rows] == [False, True, False, True]


def test_an_empty_run_has_an_empty_map(runs):
    grid = bit_map(runs["empty"])
    assert (grid.columns, grid.rows) == ((), ())


@given(st.lists(st.sets(st.integers(0, 12)), max_size=5))
def test_merged_orders_keep_every_order_they_come_from(subsets):
    names = ["stem", *(f"block{n}.{r}" for n in range(1, 5) for r in range(3))]
    orders = [[names[i] for i in sorted(subset)] for subset in subsets]
    merged = merge_orders(orders)
    assert sorted(merged) == sorted({name for order in orders for name in order})
    for order in orders:
        assert [name for name in merged if name in order] == order


def test_orders_that_contradict_each_other_still_list_every_name_once():
    assert sorted(merge_orders([["a", "b", "c"], ["b", "a"]])) == ["a", "b", "c"]
