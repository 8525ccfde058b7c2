# SPDX-License-Identifier: Apache-2.0
"""The integer program against every choice there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitscout.errors import ConfigError, InfeasibleError
from bitscout.sensitivity import allocate, ladder

BITS = np.array([2.0, 3.0, 4.0, 6.0, 8.0])


def layers(n, seed):
    """Return losses over eight decades, sizes and latencies of `n` layers."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 400, n) * 9
    objective = [10 ** rng.uniform(-8, 0) * w * 4.0**-BITS for w in weights]
    size = [w * BITS for w in weights]
    latency = [w * rng.choice([1, 4, 16]) * np.ceil(BITS / 2) for w in weights]
    return objective, {"size": size, "latency": latency}


def total(table, chosen):
    return float(sum(row[index] for row, index in zip(table, chosen, strict=True)))


def limits_at(costs, bits):
    """Return the costs of a network with `bits` of each budget, of 8 at most."""
    return {name: bits[name] / 8 * sum(row[-1] for row in costs[name]) for name in bits}


def brute_force(objective, costs, limits):
    """Return the smallest objective within the limits over all choices."""
    sums = outer_sum(objective)
    feasible = np.ones(sums.shape, dtype=bool)
    for name, limit in limits.items():
        feasible &= outer_sum(costs[name]) <= limit
    return float(sums[feasible].min()) if feasible.any() else None


def outer_sum(rows):
    """Return the sums of all choices of one number from each row."""
    sums = np.zeros(())
    for row in rows:
        sums = sums[..., None] + np.asarray(row)
    return sums


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "bits", [{"size": 2.2}, {"size": 3.5}, {"size": 6.0}, {"size": 3.5, "latency": 4.0}]
)
def test_no_choice_for_eight_layers_is_better(seed, bits):
    objective, costs = layers(8, seed)
    limits = limits_at(costs, bits)
    chosen = allocate(objective, costs, limits)
    for name, limit in limits.items():
        assert total(costs[name], chosen) <= limit
    expected = brute_force(objective, costs, limits)
    assert total(objective, chosen) == pytest.approx(expected, rel=1e-9)


small = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 1e-9, 3.0, 1e6]), st.integers(-3, 5), st.integers(0, 3)
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40)
@given(groups=small, limits=st.tuples(st.integers(-6, 12), st.integers(0, 8)))
def test_groups_of_any_size_and_costs_of_any_sign(groups, limits):
    objective = [[option[0] for option in group] for group in groups]
    costs = {
        "a": [[option[1] for option in group] for group in groups],
        "b": [[option[2] for option in group] for group in groups],
    }
    limits = dict(zip("ab", map(float, limits), strict=True))
    expected = brute_force(objective, costs, limits)
    if expected is None:
        with pytest.raises(InfeasibleError, match="No choice is within the limits"):
            allocate(objective, costs, limits)
    else:
        found = total(objective, allocate(objective, costs, limits))
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_larger_budget_never_has_a_larger_objective():
    objective, costs = layers(30, 0)
    rungs = [limits_at(costs, {"size": bits}) for bits in np.linspace(2, 8, 13)]
    sums = [total(objective, chosen) for chosen in ladder(objective, costs, rungs)]
    assert (np.diff(sums) <= 1e-12).all()
    assert sums[-1] == pytest.approx(sum(row[-1] for row in objective))


def test_the_winners_own_cost_is_a_limit_it_meets():
    objective, costs = layers(40, 1)
    first = allocate(objective, costs, limits_at(costs, {"size": 3.3}))
    again = allocate(objective, costs, {"size": total(costs["size"], first)})
    assert total(objective, again) == total(objective, first)


def test_insensitive_layers_are_told_apart_too():
    # Relative to the first group the others are below any solver's tolerance.
    objective = [[1e6, 0.0], [3e-9, 0.0], [2e-9, 0.0], [1e-9, 0.0]]
    size = [[1, 2]] * 4
    assert allocate(objective, {"size": size}, {"size": 7}) == (1, 1, 1, 0)
    assert allocate(objective, {"size": size}, {"size": 6}) == (1, 1, 0, 0)


def test_without_limits_every_group_takes_its_best():
    objective, costs = layers(5, 0)
    assert allocate(objective, costs, {}) == (4,) * 5
    assert allocate(objective, costs, {"size": np.inf}) == (4,) * 5
    assert allocate([], {"size": []}, {"size": 1.0}) == ()


def test_many_groups_are_within_a_hundred_thousandth_of_the_bound():
    objective, costs = layers(300, 2)
    limits = limits_at(costs, {"size": 3.5})
    found = total(objective, allocate(objective, costs, limits))
    # Any price gives a lower bound; the best of a grid is within the gap between options.
    sizes = np.array(costs["size"])
    bound = max(
        (np.array(objective) + price * sizes).min(axis=1).sum() - price * limits["size"]
        for price in np.logspace(-12, 2, 3000)
    )
    assert bound <= found <= bound * 1.01


def test_what_cannot_be_met_is_told_with_the_nearest_that_can():
    objective, costs = layers(6, 0)
    least = sum(row[0] for row in costs["size"])
    with pytest.raises(InfeasibleError, match=rf"\(size 1\)\. .* has size {least:.7g}\."):
        allocate(objective, costs, {"size": 1.0})


@pytest.mark.parametrize(
    ("objective", "costs", "limits", "message"),
    [
        ([[1.0, 2.0]], {}, {"size": 1.0}, "a limit on size but no costs"),
        ([[1.0, 2.0]], {"size": [[1.0]]}, {"size": 1.0}, r"\[2\], got \[1\]"),
        ([[1.0, np.nan]], {"size": [[1.0, 2.0]]}, {"size": 1.0}, "the objective holds NaN"),
        ([[1.0, 2.0], []], {"size": [[1.0, 2.0], []]}, {"size": 1.0}, "one row of numbers"),
        ([[1.0, 2.0]], {"size": [[1.0, 2.0]]}, {"size": np.nan}, "Limits must be numbers"),
    ],
)
def test_tables_that_do_not_fit_are_refused(objective, costs, limits, message):
    with pytest.raises(ConfigError, match=message):
        allocate(objective, costs, limits)
