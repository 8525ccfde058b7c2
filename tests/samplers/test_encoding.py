# SPDX-License-Identifier: Apache-2.0
"""Every distribution of Optuna survives the way to a row and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bitscout.errors import UnsupportedError
from bitscout.samplers.encoding import Encoding

DISTRIBUTIONS = {
    "int": IntDistribution(-3, 7),
    "int-step": IntDistribution(0, 9, step=3),
    "int-log": IntDistribution(1, 1000, log=True),
    "float": FloatDistribution(-1.0, 2.0),
    "float-log": FloatDistribution(1e-7, 10.0, log=True),
    "float-step": FloatDistribution(-10.2, 10.2, step=0.1),
    "float-single": FloatDistribution(2.5, 2.5),
    "int-single": IntDistribution(4, 4),
    "category": CategoricalDistribution(["a", None, 3, True]),
}


@pytest.mark.parametrize("n", range(1, 11))
def test_index_survives_the_way_to_the_unit_interval_and_back(n):
    encoding = Encoding.of({"x": IntDistribution(0, n - 1)})
    rows = np.arange(n, dtype=float)[:, None]
    unit = encoding.unit(rows)
    np.testing.assert_allclose(unit[:, 0], (np.arange(n) + 0.5) / n, rtol=1e-15)
    np.testing.assert_array_equal(encoding.snap(unit), rows)


@pytest.mark.parametrize("n", range(1, 11))
def test_ends_of_the_unit_interval_are_clipped_to_the_last_index(n):
    encoding = Encoding.of({"x": IntDistribution(0, n - 1)})
    np.testing.assert_array_equal(encoding.snap(np.array([[0.0], [1.0]])), [[0.0], [n - 1.0]])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_survive_the_way_to_a_row_and_back(name, seed):
    encoding = Encoding.of({"x": DISTRIBUTIONS[name]})
    row = encoding.random_rows(np.random.default_rng(seed), 1)
    value = encoding.decode(row[0])["x"]
    again = encoding.encode([[value]])
    # The logarithm's relative error of some eps, over a range of 18 in the logarithm.
    np.testing.assert_allclose(again, row, rtol=0, atol=1e-14)
    inner = DISTRIBUTIONS[name].to_internal_repr(value)
    assert DISTRIBUTIONS[name]._contains(inner)
    assert type(value) in (int, float, str, bool, type(None))


@pytest.mark.parametrize("name", [n for n, d in DISTRIBUTIONS.items() if "float" not in n])
def test_snapping_a_unit_coordinate_is_the_identity_on_rows(name):
    encoding = Encoding.of({"x": DISTRIBUTIONS[name]})
    rows = encoding.all_rows()
    np.testing.assert_array_equal(encoding.snap(encoding.unit(rows)), rows)
    assert ((encoding.unit(rows) > 0) & (encoding.unit(rows) < 1)).all()


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("int", 8),
        ("int", -4),
        ("int-step", 4),
        ("float", 2.1),
        ("float-log", 0.0),
        ("float-step", 0.05),
        ("category", "b"),
    ],
)
def test_a_value_outside_its_distribution_becomes_nan(name, outside):
    assert np.isnan(Encoding.of({"x": DISTRIBUTIONS[name]}).encode([[outside]])[0, 0])


def test_random_rows_are_uniform_over_the_values():
    rows = Encoding.of({"x": IntDistribution(0, 4)}).random_rows(np.random.default_rng(0), 10_000)
    counts = np.bincount(rows[:, 0].astype(int), minlength=5)
    # Standard deviation of a count: sqrt(10000 * 0.2 * 0.8) = 40.
    assert (abs(counts - 2000) < 5 * 40).all()


def test_all_rows_are_the_whole_grid():
    encoding = Encoding.of({"x": IntDistribution(0, 2), "y": CategoricalDistribution("ab")})
    assert encoding.size == 6
    assert encoding.all_rows().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert Encoding.of(DISTRIBUTIONS).size == np.inf
    assert Encoding.of(DISTRIBUTIONS).continuous_names == ("float", "float-log")


def test_no_points_give_no_rows():
    assert Encoding.of(DISTRIBUTIONS).encode([]).shape == (0, len(DISTRIBUTIONS))


def test_an_unknown_distribution_is_refused():
    class Weird(BaseDistribution):
        def to_internal_repr(self, value):
            return value

        def single(self):
            return False

        def _contains(self, value):
            return True

    with pytest.raises(UnsupportedError, match="Expected an integer, float or categorical"):
        Encoding.of({"x": Weird()})
