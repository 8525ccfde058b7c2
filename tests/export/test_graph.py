"""Graphs that contradict themselves are refused."""

from dataclasses import replace

import numpy as np
import pytest

from bitscout.errors import ExportError
from bitscout.export.graph import Concat, Grid, Input, IntegerGraph
from bitscout.export.reference import Reference

SIGNED = Grid(np.array(0.5), 8, -127, 127)


def joined(first, second, whole):
    ops = [Input(name, (2, 3, 3), grid) for name, grid in (("a", first), ("b", second))]
    return IntegerGraph((*ops, Concat("both", ("a", "b"), (4, 3, 3), whole)), "both")


def test_codes_on_one_grid_are_concatenated():
    graph = joined(SIGNED, replace(SIGNED, scale=np.array(0.5)), SIGNED)
    a, b = np.full((1, 2, 3, 3), 5), np.full((1, 2, 3, 3), -7)
    both = Reference(graph).run_codes({"a": a, "b": b})
    np.testing.assert_array_equal(both, np.concatenate([a, b], axis=1))


@pytest.mark.parametrize(
    "other",
    [
        replace(SIGNED, quant_min=0),
        replace(SIGNED, quant_min=-126),
        replace(SIGNED, quant_max=126),
        replace(SIGNED, scale=np.array(0.25)),
        replace(SIGNED, zero_point=1),
        Grid(np.array(0.5), 7, -63, 63),
        Grid.sums(np.array(0.5)),
    ],
)
def test_codes_on_several_grids_are_not_concatenated(other):
    with pytest.raises(ExportError, match=r"'both' has codes of .* its part 'b' .*one grid"):
        joined(SIGNED, other, SIGNED)
    with pytest.raises(ExportError, match="its part 'a'"):
        joined(SIGNED, SIGNED, other)


def test_sums_are_concatenated_with_a_step_for_every_channel():
    first, second = Grid.sums(np.array([1.0, 2.0])), Grid.sums(np.array([3.0, 4.0]))
    graph = joined(first, second, Grid.sums(np.arange(1.0, 5.0)))
    scores = graph.scores(np.ones((1, 4, 3, 3), dtype=np.int64))
    np.testing.assert_array_equal(scores[0, :, 0, 0], [1.0, 2.0, 3.0, 4.0])
