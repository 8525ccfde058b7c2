# SPDX-License-Identifier: Apache-2.0
"""Codes of 2 to 8 bits as a dense stream of bits.

Code ``i`` of ``b`` bits occupies the bits ``b i`` to ``b (i + 1) - 1`` of the stream, its lowest
bit first; bit ``k`` of the stream is bit ``k % 8``, counted from the lowest, of byte ``k // 8``.
Negative codes are two's complement. ``n`` codes take ``ceil(n b / 8)`` bytes, whose last bits are
zero where nothing is left to store: no other bytes stand for the same codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitscout.errors import ConfigError, ExportError
from bitscout.quantization.numerics import integer_range

__all__ = ["pack_bits", "packed_size", "unpack_bits"]

Bytes = npt.NDArray[np.uint8]

# Eight codes of b bits fill b bytes, which fit in one 64-bit word for every b up to 8.
GROUP = 8
WORD = np.dtype("<u8")
# Groups worked on at once: a few MiB of scratch, whatever the length.
CHUNK = 2**18


def packed_size(count: int, bit_width: int) -> int:
    """Return the bytes that `count` codes of `bit_width` bits take."""
    return -(-count * bit_width // 8)


def pack_bits(codes: npt.NDArray[np.integer], bit_width: int, *, signed: bool = True) -> Bytes:
    """Return the codes as a stream of bits.

    Args:
        codes: Integers of any shape, read in C order.
        bit_width: In ``[2, 8]``.
        signed: Whether codes run from ``-2**(bit_width - 1)`` rather than from 0.

    Returns:
        uint8, shape ``(ceil(codes.size * bit_width / 8),)``.

    Raises:
        ConfigError: If `bit_width` is not in ``[2, 8]``.
        ExportError: If a code is not an integer, or does not fit in `bit_width` bits.

    Example:
        >>> pack_bits(np.array([1, -1, 2]), 3).tolist()  # 010 111 001, from the right
        [185, 0]
    """
    low, high = _range(bit_width, signed=signed)
    flat = np.ascontiguousarray(codes).reshape(-1)
    if not np.issubdtype(flat.dtype, np.integer):
        msg = f"Expected integer codes, got {flat.dtype}. Round them to codes first."
        raise ExportError(msg)
    if flat.size and not (low <= flat.min() and flat.max() <= high):
        msg = (
            f"Codes of {bit_width} bits run from {low} to {high}, got {flat.min()} to "
            f"{flat.max()}. Clamp them, or store more bits."
        )
        raise ExportError(msg)
    blob = np.empty(packed_size(flat.size, bit_width), dtype=np.uint8)
    for start in range(0, flat.size, CHUNK * GROUP):
        part = flat[start : start + CHUNK * GROUP]
        words = np.zeros(-(-part.size // GROUP), dtype=WORD)
        for index in range(GROUP):
            bits = part[index::GROUP].astype(np.uint8) & np.uint8(2**bit_width - 1)
            words[: bits.size] |= bits.astype(WORD) << WORD.type(bit_width * index)
        filled = words.view(np.uint8).reshape(-1, WORD.itemsize)[:, :bit_width]
        first = start * bit_width // 8
        size = packed_size(part.size, bit_width)
        blob[first : first + size] = filled.reshape(-1)[:size]
    return blob


def unpack_bits(
    blob: Bytes, bit_width: int, count: int, *, signed: bool = True
) -> npt.NDArray[Any]:
    """Return the codes of a stream that `pack_bits` made.

    Args:
        blob: uint8, shape ``(ceil(count * bit_width / 8),)``.
        bit_width: In ``[2, 8]``.
        count: Number of codes.
        signed: As it was packed.

    Returns:
        int8, or uint8 if not `signed`, shape ``(count,)``.

    Raises:
        ConfigError: If `bit_width` is not in ``[2, 8]``, or `count` negative.
        ExportError: If the blob has another length, or bits behind the last code are not zero.

    Example:
        >>> unpack_bits(np.array([185, 0], dtype=np.uint8), 3, 3).tolist()
        [1, -1, 2]
    """
    _range(bit_width, signed=signed)
    if count < 0:
        msg = f"`count` must be 0 or more, got {count}."
        raise ConfigError(msg)
    _check_blob(blob, bit_width, count)
    codes = np.empty(count, dtype=np.uint8)
    for start in range(0, count, CHUNK * GROUP):
        part = codes[start : start + CHUNK * GROUP]
        filled = np.zeros((-(-part.size // GROUP), WORD.itemsize), dtype=np.uint8)
        first, size = start * bit_width // 8, packed_size(part.size, bit_width)
        rest = np.zeros(len(filled) * bit_width, dtype=np.uint8)
        rest[:size] = blob[first : first + size]
        filled[:, :bit_width] = rest.reshape(-1, bit_width)
        words = filled.view(WORD).reshape(-1)
        for index in range(GROUP):
            bits = part[index::GROUP]
            bits[:] = (words[: bits.size] >> WORD.type(bit_width * index)) & WORD.type(
                2**bit_width - 1
            )
    if not signed:
        return codes
    # Flips the sign bit and takes its weight off again: 0 .. 2**b - 1 becomes two's complement.
    sign = np.uint8(2 ** (bit_width - 1))
    codes ^= sign
    codes -= sign
    return codes.view(np.int8)


def _range(bit_width: int, *, signed: bool) -> tuple[int, int]:
    if not 2 <= bit_width <= 8:
        msg = f"`bit_width` must be in [2, 8], got {bit_width}."
        raise ConfigError(msg)
    return integer_range(bit_width, signed=signed)


def _check_blob(blob: Bytes, bit_width: int, count: int) -> None:
    size = packed_size(count, bit_width)
    if blob.dtype != np.uint8 or blob.shape != (size,):
        msg = (
            f"{count} codes of {bit_width} bits take {size} bytes, got {blob.dtype} of shape "
            f"{blob.shape}. The stream is damaged, or of another tensor."
        )
        raise ExportError(msg)
    left = size * 8 - count * bit_width
    if left and int(blob[-1]) >> (8 - left):
        msg = f"The last {left} bits of the stream must be zero, got byte {int(blob[-1])}."
        raise ExportError(msg)
