"""Steps and records in as few bytes as zlib makes of them: exact, and damage is found."""

import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bitscout.errors import ExportError
from bitscout.export import packed_streams
from bitscout.export.packed_streams import deflate, inflate, pack_steps, unpack_steps

positive = st.floats(min_value=5e-324, max_value=sys.float_info.max, allow_subnormal=True)


@given(npst.arrays(np.float64, st.integers(0, 40), elements=positive))
def test_any_steps_come_back_bit_for_bit(steps):
    again = unpack_steps(pack_steps(steps))
    assert again.dtype == np.float64
    assert again.tobytes() == steps.tobytes()


def test_the_stream_is_byte_planes_of_rotated_numbers():
    # 1 is 0x3FF0..., 1.5 is 0x3FF8..., and 0x3FF8 rotated by 3 bits is 0xFFC0...1.
    planes = zlib.decompress(pack_steps(np.array([1.0, 1.5])).tobytes(), wbits=-15)
    assert planes == bytes([0xFF, 0xFF, 0x80, 0xC0, *[0] * 10, 1, 1])


def test_steps_of_few_mantissa_bits_take_less_than_a_byte_and_float32_less_than_four():
    rng = np.random.default_rng(0)
    few = rng.integers(16, 32, 4000) * np.exp2(-rng.integers(8, 12, 4000))
    assert pack_steps(few).size < 4000
    assert pack_steps(rng.uniform(0.001, 0.01, 4000).astype(np.float32)).size < 4 * 4000


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, np.inf, -np.inf, np.nan])
def test_steps_that_are_none_are_refused(value):
    with pytest.raises(ExportError, match="positive and finite steps, got"):
        unpack_steps(pack_steps(np.array([1.0, value, 2.0])))


@pytest.mark.parametrize("size", [1, 7, 9, 15])
def test_parts_of_steps_are_refused(size):
    with pytest.raises(ExportError, match=f"8 bytes for every step, got {size} for all"):
        unpack_steps(deflate(bytes(size)))


@given(st.binary(max_size=100), st.binary(max_size=50))
def test_any_content_comes_back(content, dictionary):
    assert inflate(deflate(content, dictionary), "x", dictionary) == content


def test_every_truncation_and_any_addition_is_found():
    blob = deflate(b"a text that repeats, a text that repeats")
    for length in range(blob.size):
        with pytest.raises(ExportError, match="`x` deflated"):
            inflate(blob[:length], "x")
    with pytest.raises(ExportError, match=f"does not end with its {blob.size + 1} bytes"):
        inflate(np.append(blob, np.uint8(0)), "x")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_or_inflate(content):
    blob = np.frombuffer(content, dtype=np.uint8)
    for read in (unpack_steps, lambda blob: inflate(blob, "x")):
        try:
            read(blob)
        except ExportError as error:
            assert "expected" in str(error)


def test_a_stream_that_inflates_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(packed_streams, "MAX_INFLATED_BYTES", 100)
    assert inflate(deflate(bytes(100)), "x") == bytes(100)
    with pytest.raises(ExportError, match="of 100 bytes at most"):
        inflate(deflate(bytes(101)), "x")
