# SPDX-License-Identifier: Apache-2.0
"""A choice is an ordered list of different values."""

import pytest

from bitscout.errors import ConfigError
from bitscout.space import Choice


def test_index_is_the_position_of_the_value():
    choice = Choice("k", (2, 3, 5), default=1, kind="architecture")
    assert [choice.index(value) for value in choice.values] == [0, 1, 2]


def test_words_may_come_in_any_order():
    assert Choice("op", ("skip", "conv"), default=0, kind="architecture").index("conv") == 1


@pytest.mark.parametrize(
    ("values", "default", "message"),
    [
        ((), 0, "`k` has no values: the space is empty"),
        ((3, 3), 0, r"`k` lists \[3\] more than once"),
        ((3, 2), 0, "`k` must list its values in increasing order"),
        ((2, 3), 2, "`default` must be an index into 2 values, got 2"),
        ((2, 3), -1, "`default` must be an index into 2 values, got -1"),
    ],
)
def test_no_choice_is_rejected_with_a_useful_message(values, default, message):
    with pytest.raises(ConfigError, match=message):
        Choice("k", values, default, "architecture")


@pytest.mark.parametrize("value", [4, "3", None, True, 2.5])
def test_a_value_that_is_not_allowed_is_named_with_the_allowed_ones(value):
    with pytest.raises(ConfigError, match=r"`k` must be one of \[1, 2, 3\], got "):
        Choice("k", (1, 2, 3), default=0, kind="bits").index(value)
