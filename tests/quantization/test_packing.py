"""Bitstreams against a hand-written vector, arbitrary integers of Python, and themselves."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bitscout.errors import ConfigError, ExportError
from bitscout.quantization import packing
from bitscout.quantization.packing import pack_bits, packed_size, unpack_bits

WIDTHS = range(2, 9)


@st.composite
def streams(draw):
    bit_width, signed = draw(st.integers(2, 8)), draw(st.booleans())
    low = -(2 ** (bit_width - 1)) if signed else 0
    high = low + 2**bit_width - 1
    lengths = st.one_of(st.integers(0, 40), st.sampled_from((63, 64, 65, 1000)))
    values = st.one_of(st.integers(low, high), st.sampled_from((low, high, 0)))
    codes = draw(npst.arrays(np.int16, draw(lengths), elements=values, fill=st.just(high)))
    return codes, bit_width, signed


def as_one_integer(codes, bit_width):
    """The stream as Python's unbounded integer."""
    total = 0
    for index, code in enumerate(codes.tolist()):
        total |= (code % 2**bit_width) << (index * bit_width)
    return total


@given(streams())
def test_the_stream_is_the_codes_behind_each_other_from_the_lowest_bit(stream):
    codes, bit_width, signed = stream
    size = -(-codes.size * bit_width // 8)
    expected = as_one_integer(codes, bit_width).to_bytes(size, "little")
    blob = pack_bits(codes, bit_width, signed=signed)
    assert blob.tobytes() == expected
    assert packed_size(codes.size, bit_width) == size


@given(streams())
def test_unpacking_gives_the_codes_back(stream):
    codes, bit_width, signed = stream
    blob = pack_bits(codes, bit_width, signed=signed)
    again = unpack_bits(blob, bit_width, codes.size, signed=signed)
    assert again.dtype == (np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(again, codes)


def test_a_stream_of_three_bits_by_hand():
    # 3 = 011, -4 = 100, -1 = 111, 0 = 000; from the right: 1|11.100.011 and 0000.000.1
    codes = np.array([3, -4, -1, 0])
    assert pack_bits(codes, 3).tolist() == [0b11100011, 0b00000001]


def test_a_stream_of_five_bits_by_hand():
    # -16 = 10000, 15 = 01111: from the right 111.10000 and 000000.01
    assert pack_bits(np.array([-16, 15]), 5).tolist() == [0b11110000, 0b00000001]


def test_any_shape_and_memory_order_is_read_in_c_order():
    codes = np.arange(-8, 8).reshape(2, 4, 2)
    expected = pack_bits(codes.reshape(-1), 4)
    np.testing.assert_array_equal(pack_bits(codes, 4), expected)
    np.testing.assert_array_equal(pack_bits(np.asfortranarray(codes), 4), expected)


@pytest.mark.parametrize("bit_width", WIDTHS)
@pytest.mark.parametrize("offset", [-9, -1, 0, 1, 8])
def test_chunks_join_without_a_seam(bit_width, offset, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 4)
    count = 2 * 4 * 8 + offset
    rng = np.random.default_rng(bit_width)
    codes = rng.integers(-(2 ** (bit_width - 1)), 2 ** (bit_width - 1), count)
    blob = pack_bits(codes, bit_width)
    size = packed_size(count, bit_width)
    assert blob.tobytes() == as_one_integer(codes, bit_width).to_bytes(size, "little")
    np.testing.assert_array_equal(unpack_bits(blob, bit_width, count), codes)


@pytest.mark.parametrize("bit_width", [3, 8])
def test_memory_is_the_result_and_a_few_megabytes(bit_width):
    codes = np.zeros(8_000_000, dtype=np.int8)
    tracemalloc.start()
    try:
        blob = pack_bits(codes, bit_width)
        packing_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        unpack_bits(blob, bit_width, codes.size)
        unpacking_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packing_peak < blob.nbytes + 16e6
    assert unpacking_peak < blob.nbytes + codes.nbytes + 16e6


@pytest.mark.parametrize("bit_width", [-1, 0, 1, 9, 16])
def test_other_widths_are_refused(bit_width):
    with pytest.raises(ConfigError, match=rf"must be in \[2, 8\], got {bit_width}"):
        pack_bits(np.zeros(1, dtype=np.int8), bit_width)
    with pytest.raises(ConfigError, match=rf"must be in \[2, 8\], got {bit_width}"):
        unpack_bits(np.zeros(1, dtype=np.uint8), bit_width, 1)


@pytest.mark.parametrize(
    ("code", "signed"), [(4, True), (-5, True), (8, False), (-1, False), (259, True)]
)
def test_a_code_that_does_not_fit_is_refused(code, signed):
    with pytest.raises(ExportError, match=rf"Codes of 3 bits run from .* got {min(code, 0)} to"):
        pack_bits(np.array([0, code]), 3, signed=signed)


def test_fractions_are_refused():
    with pytest.raises(ExportError, match="integer codes, got float64"):
        pack_bits(np.array([1.0]), 3)


def test_a_negative_count_is_refused():
    with pytest.raises(ConfigError, match="0 or more, got -1"):
        unpack_bits(np.zeros(0, dtype=np.uint8), 3, -1)


@pytest.mark.parametrize("size", [0, 3, 5])
def test_a_blob_of_another_length_is_refused(size):
    with pytest.raises(ExportError, match=r"10 codes of 3 bits take 4 bytes, got uint8"):
        unpack_bits(np.zeros(size, dtype=np.uint8), 3, 10)


def test_a_blob_of_another_type_is_refused():
    with pytest.raises(ExportError, match="got int8"):
        unpack_bits(np.zeros(4, dtype=np.int8), 3, 10)


def test_bits_behind_the_last_code_must_be_zero():
    blob = pack_bits(np.array([-1] * 10), 3)
    blob[-1] |= 0b01000000
    with pytest.raises(ExportError, match="The last 2 bits"):
        unpack_bits(blob, 3, 10)
