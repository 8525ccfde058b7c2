"""Packed multiplication: the published table, every overflow by hand, and NumPy's convolution."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.dsp_packing import DSP48E2, DspPorts, Packing, best_packing

SIGNEDNESS = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
BITS = pytest.mark.parametrize(
    ("act_bits", "weight_bits"),
    [(b, b) for b in range(2, 9)] + [(8, 2), (2, 8), (4, 3), (5, 2), (3, 6)],
)


def value_range(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def short(packing):
    return (packing.n_acts, packing.n_weights, packing.slice_bits, packing.mults, packing.adds)


def overflows(packing, ports=DSP48E2):
    """Return what overflows, from the values themselves; knows nothing of the conditions."""
    n, k, s = packing.n_acts, packing.n_weights, packing.slice_bits
    acts = value_range(packing.act_bits, packing.signed)
    weights = value_range(packing.weight_bits, packing.signed)
    found = set()
    for name, count, extremes, port in (
        ("act port", n, acts, ports.act_bits),
        ("weight port", k, weights, ports.weight_bits),
    ):
        for value in extremes:
            packed = sum(value << (s * i) for i in range(count))
            if not -(2 ** (port - 1)) <= packed <= 2 ** (port - 1) - 1:
                found.add(name)
    low, high = value_range(s, packing.signed)
    for x, g in product(acts, weights):
        y = packing.accumulate * np.convolve([x] * n, [g] * k)
        if not (low <= y.min() and y.max() <= high):
            found.add("slice")
    if (n + k - 1) * s > ports.accumulator_bits:
        found.add("accumulator")
    return found


def test_two_accumulated_products_give_the_published_table():
    expected = {
        8: (2, 1, 17, 2, 0),
        6: (2, 1, 13, 2, 0),
        4: (3, 2, 10, 6, 2),
        3: (3, 2, 8, 6, 2),
        2: (5, 3, 6, 15, 8),
    }
    for signed in (False, True):
        found = {b: short(best_packing(b, b, signed=signed, accumulate=2)) for b in expected}
        assert found == expected


@SIGNEDNESS
def test_single_products_give_the_table_of_one_product(signed):
    expected = {
        8: (2, 1, 16, 2, 0),
        7: (2, 1, 14, 2, 0),
        6: (2, 1, 12, 2, 0),
        5: (2, 2, 11, 4, 1),
        4: (3, 2, 9, 6, 2),
        3: (4, 3, 7, 12, 6) if signed else (4, 2, 7, 8, 3),
        2: (5, 3, 5, 15, 8),
    }
    found = {b: short(best_packing(b, b, signed=signed, accumulate=1)) for b in expected}
    assert found == expected


@SIGNEDNESS
def test_two_is_the_only_number_of_products_that_gives_the_published_factors(signed):
    published = {8: (2, 0), 6: (2, 0), 4: (6, 2), 3: (6, 2), 2: (15, 8)}

    def factors(accumulate):
        packings = {b: best_packing(b, b, signed=signed, accumulate=accumulate) for b in published}
        return {b: (packing.mults, packing.adds) for b, packing in packings.items()}

    assert [t for t in range(1, 33) if factors(t) == published] == [2]


@SIGNEDNESS
def test_longer_accumulation_costs_packing(signed):
    def mults(bits, accumulate):
        return best_packing(bits, bits, signed=signed, accumulate=accumulate).mults

    assert [mults(2, t) for t in (3, 4, 8, 16)] == [12, 12, 8, 6]
    assert [mults(4, t) for t in (4, 8)] == [6, 4]
    assert [mults(8, t) for t in (4, 16)] == [2, 1]


@SIGNEDNESS
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sixteen_bits_are_one_product(signed, accumulate):
    packing = best_packing(16, 16, signed=signed, accumulate=accumulate)
    assert (packing.mults, packing.adds) == (1, 0)


@BITS
@SIGNEDNESS
def test_packed_products_equal_numpys_convolution(act_bits, weight_bits, signed):
    packing = best_packing(act_bits, weight_bits, signed=signed, accumulate=2)
    rng = np.random.default_rng(act_bits * 100 + weight_bits)

    def draw(bits, count):
        low, high = value_range(bits, signed)
        values = rng.integers(low, high + 1, (10_000, 2, count))
        # A third of the rows hold only extremes, in any mixture.
        values[::3] = rng.choice([low, high], values[::3].shape)
        values[0], values[3], values[6], values[9] = low, high, low, high
        return values

    acts, weights = draw(act_bits, packing.n_acts), draw(weight_bits, packing.n_weights)
    weights[6], weights[9] = value_range(weight_bits, signed)[::-1]
    expected = [
        np.convolve(x[0], g[0]) + np.convolve(x[1], g[1])
        for x, g in zip(acts, weights, strict=True)
    ]
    np.testing.assert_array_equal(packing.convolve(acts, weights), expected)


@pytest.mark.parametrize("bits", range(2, 9))
@SIGNEDNESS
def test_every_mixture_of_extremes_is_exact_and_fits_the_multiplier(bits, signed):
    packing = best_packing(bits, bits, signed=signed, accumulate=2)
    extremes = value_range(bits, signed)
    acts = np.array(list(product(extremes, repeat=packing.n_acts)))[:, None, None, :]
    weights = np.array(list(product(extremes, repeat=packing.n_weights)))[None, :, None, :]
    acts, weights = np.repeat(acts, 2, axis=-2), np.repeat(weights, 2, axis=-2)
    result = packing.convolve(acts, weights)
    for i, j in product(range(len(acts)), range(weights.shape[1])):
        expected = 2 * np.convolve(acts[i, 0, 0], weights[0, j, 0])
        np.testing.assert_array_equal(result[i, j], expected)
    for operands, port in ((packing.pack_acts(acts), 27), (packing.pack_weights(weights), 18)):
        assert -(2 ** (port - 1)) <= operands.min()
        assert operands.max() < 2 ** (port - 1)


@given(
    bits=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    signed=st.booleans(),
    accumulate=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    slice_bits=st.integers(1, 30),
)
def test_a_packing_fits_exactly_where_no_value_overflows(
    bits, signed, accumulate, shape, slice_bits
):
    if (sum(shape) - 1) * slice_bits > 63:
        with pytest.raises(ConfigError, match="63 bits together"):
            Packing(*shape, slice_bits, *bits, signed, accumulate)
        return
    packing = Packing(*shape, slice_bits, *bits, signed, accumulate)
    assert packing.fits() == (not overflows(packing))


@pytest.mark.parametrize("bits", range(2, 9))
@SIGNEDNESS
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_no_packing_of_any_slice_has_more_multiplications(bits, signed, accumulate):
    best = best_packing(bits, bits, signed=signed, accumulate=accumulate)
    assert not overflows(best)
    for n, k, s in product(range(1, 14), range(1, 10), range(1, 25)):
        is_better = (n * k, (n - 1) * (k - 1), -s) > (best.mults, best.adds, -best.slice_bits)
        if is_better and (n + k - 1) * s <= 48:
            assert overflows(Packing(n, k, s, bits, bits, signed, accumulate))


@pytest.mark.parametrize(
    ("bits", "n_acts", "n_weights", "slice_bits", "port"),
    [(2, 6, 3, 5, "act port"), (5, 3, 2, 11, "act port"), (6, 2, 2, 12, "weight port")],
)
def test_the_plain_rule_of_hikonv_overflows_a_port_with_signed_values(
    bits, n_acts, n_weights, slice_bits, port
):
    packing = Packing(n_acts, n_weights, slice_bits, bits, bits, signed=True)
    count, width = (n_acts, 27) if port == "act port" else (n_weights, 18)
    assert bits + (count - 1) * slice_bits <= width  # The plain rule is content.
    assert port in overflows(packing)
    assert not packing.fits()


def test_negative_sums_borrow_from_the_slice_above():
    packing = best_packing(4, 4, signed=True, accumulate=2)
    # By hand: -8 * 7 in the lowest slice of 10 bits leaves -1 in the next: 0 is stored as 1023.
    packed = packing.pack_acts([-8, 0, 0]) * packing.pack_weights([7, 0])
    assert int(packed) == -56
    assert (int(packed) >> 10) & 1023 == 1023
    assert packing.unpack(packed).tolist() == [-56, 0, 0, 0]


def test_a_smaller_multiplier_packs_less():
    small = DspPorts(act_bits=18, weight_bits=18, accumulator_bits=48)
    packing = best_packing(4, 4, signed=True, accumulate=2, ports=small)
    assert not overflows(packing, small)
    assert (packing.n_acts, packing.n_weights) == (2, 2)


def test_of_as_many_multiplications_more_additions_win():
    # 2 x 2 with a slice of 7 bits, and 4 x 1 with one of 6.
    ports = DspPorts(act_bits=22, weight_bits=10, accumulator_bits=24)
    assert Packing(4, 1, 6, 3, 2, True, 2).fits(ports)
    assert short(best_packing(3, 2, signed=True, ports=ports)) == (2, 2, 7, 4, 1)


def test_then_more_activations_win():
    assert Packing(1, 2, 13, 8, 4, True, 2).fits()
    assert short(best_packing(8, 4, signed=True)) == (2, 1, 13, 2, 0)


def test_values_may_be_as_wide_as_their_ports():
    # Ports are signed: an unsigned value has one bit less.
    for signed, act_bits, weight_bits in ((True, 27, 18), (False, 26, 17)):
        assert Packing(1, 1, 46, act_bits, weight_bits, signed).fits()
        assert not Packing(1, 1, 46, act_bits + 1, weight_bits, signed).fits()
        assert not Packing(1, 1, 46, act_bits, weight_bits + 1, signed).fits()


def test_slices_may_fill_the_accumulator_and_no_more():
    packing = Packing(3, 2, 10, 4, 4, True, 2)
    assert packing.fits(DspPorts(accumulator_bits=40))
    assert not packing.fits(DspPorts(accumulator_bits=39))


def test_a_packing_is_found_once():
    first = best_packing(3, 5, signed=True)
    assert best_packing(3, 5, signed=True) is first


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: best_packing(0, 4, signed=True), ConfigError, "act_bits=0"),
        (lambda: best_packing(4, 4, signed=True, accumulate=0), ConfigError, "accumulate=0"),
        (lambda: best_packing(30, 4, signed=True), UnsupportedError, "27 x 18 bits"),
        (
            lambda: best_packing(8, 8, signed=True, accumulate=2**34),
            UnsupportedError,
            "Accumulate fewer",
        ),
        (lambda: DspPorts(act_bits=1), ConfigError, "at least 2 bits"),
        (lambda: DspPorts(accumulator_bits=64), ConfigError, "63 bits at most"),
        (lambda: DspPorts(act_bits=200_000), ConfigError, "63 bits at most"),
        (lambda: Packing(0, 1, 8, 4, 4), ConfigError, "at least 1"),
    ],
)
def test_impossible_packings_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("acts", "weights", "message"),
    [
        ([[1, 2, 8]], [[1, 2]], "Activations of 4 bits run from -8 to 7, got 1 to 8"),
        ([[1, 2, 3]], [[1, -9]], "Weights of 4 bits run from -8 to 7, got -9 to 1"),
        ([[1, 2]], [[1, 2]], r"activations of shape \(..., 3\), got int64 of shape \(1, 2\)"),
        ([[1.0, 2, 3]], [[1, 2]], "got float64"),
        ([[1, 2, 3]] * 3, [[1, 2]] * 3, r"1 to 2 products .* got products of shape \(3,\)"),
        ([1, 2, 3], [1, 2], r"got products of shape \(\)"),
    ],
)
def test_values_that_do_not_fit_are_refused(acts, weights, message):
    with pytest.raises(ConfigError, match=message):
        best_packing(4, 4, signed=True).convolve(acts, weights)


def test_no_vectors_convolve_to_none():
    packing = best_packing(4, 4, signed=True)
    empty = packing.convolve(np.zeros((0, 2, 3), np.int8), np.zeros((0, 2, 2), np.int8))
    assert empty.shape == (0, 4)
