# SPDX-License-Identifier: Apache-2.0
"""The deflated parts of a packed file: what is no payload is as small as it can be.

Both are raw deflate streams (RFC 1951): the file has a checksum of its own.

*Steps* are float64 numbers, so that every step is exact. Their bits are rotated left by 3: the
sign and the exponent's highest bits, alike in all steps, go last. Then come the first bytes of
all numbers, the second bytes, and so on. Where steps have few mantissa bits, as those of
`bitscout.quantization.exact_steps`, the first two or three bytes tell everything, and the others
are a run of one value that costs nothing: about a byte a step is left.

*Records* are JSON, deflated with a dictionary, since a small network has too few operations for
deflate to learn from.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from bitscout.errors import ExportError

__all__ = ["RECORDS_DICTIONARY", "deflate", "inflate", "pack_steps", "unpack_steps"]

Bytes = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

MAX_INFLATED_BYTES = 2**26  # Far beyond any network, and a limit for damaged files.
RAW_DEFLATE = -15
ROTATION = 3
STEP_BYTES = 8

# Part of the format: another one needs another version. Likely texts, the likeliest last.
RECORDS_DICTIONARY = (
    b'"columns":[["rows":[["multiplier":[["shift":["inputs":["op":"relu","op":"concat","op":"max_'
    b'pool","op":"sum_pool","name":"pool","kernel":[4,4],"stride":[2,2],"pads":[0,0,0,0]},'
    b'{"output":"classifier","operations":[{"op":"input","name":"image","shape":[3,32,32],"grid":'
    b'[8,-127,127,0,0]},"divisor":64},{"op":"flatten","name":"flatten"},{"op":"linear","name":"fc'
    b'","weight":[10,64],"bits":4,"bias":true},{"op":"rescale","name":"fc","grid":[32,-2147483647'
    b',2147483647,0,0]}]},{"op":"conv","name":"conv","weight":[16,3,3,3],"bits":8,"bias":true,"ge'
    b'ometry":[2,2,1,1,1,1,1,1,1]},{"op":"rescale","name":"conv.input","grid":[8,0,255,0,0]},{"op'
    b'":"conv","name":"conv","weight":[32,1,1,1],"bits":4,"bias":true,"geometry":[1,1,0,0,0,0,1,1'
    b',1]},{"op":"rescale","name":"'
)


def pack_steps(steps: FloatArray) -> Bytes:
    """Return steps as a deflated stream.

    Args:
        steps: Positive and finite, shape ``(n,)``.

    Example:
        >>> steps = np.exp2(-np.arange(1000) % 7)
        >>> pack_steps(steps).size < 100, np.array_equal(unpack_steps(pack_steps(steps)), steps)
        (True, True)
    """
    bits = np.asarray(steps, dtype=np.float64).view(np.uint64)
    rotated = (bits << np.uint64(ROTATION)) | (bits >> np.uint64(64 - ROTATION))
    planes = rotated.astype(">u8").view(np.uint8).reshape(-1, STEP_BYTES).T
    return deflate(planes.tobytes())


def unpack_steps(blob: Bytes) -> FloatArray:
    """Return the steps of a stream that `pack_steps` made.

    Raises:
        ExportError: If the stream is damaged, or no whole number of positive, finite steps.
    """
    content = inflate(blob, "steps")
    if len(content) % STEP_BYTES:
        msg = f"expected {STEP_BYTES} bytes for every step, got {len(content)} for all."
        raise ExportError(msg)
    planes = np.frombuffer(content, dtype=np.uint8).reshape(STEP_BYTES, -1)
    rotated = np.ascontiguousarray(planes.T).view(">u8").reshape(-1).astype(np.uint64)
    bits = (rotated >> np.uint64(ROTATION)) | (rotated << np.uint64(64 - ROTATION))
    steps = bits.view(np.float64)
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        msg = f"expected positive and finite steps, got {steps.min()} to {steps.max()}."
        raise ExportError(msg)
    return steps


def deflate(content: bytes, dictionary: bytes = b"") -> Bytes:
    """Return the shortest stream that zlib makes.

    Args:
        content: What to deflate.
        dictionary: Texts that are likely in it.
    """
    stream = zlib.compressobj(9, zlib.DEFLATED, RAW_DEFLATE, 9, zdict=dictionary)
    return np.frombuffer(stream.compress(content) + stream.flush(), dtype=np.uint8)


def inflate(blob: Bytes, name: str, dictionary: bytes = b"") -> bytes:
    """Return the content of a stream.

    Args:
        blob: From `deflate`.
        name: Of the stream, for messages.
        dictionary: It was deflated with.

    Raises:
        ExportError: If the stream is damaged, incomplete, or has something behind its end, or
            inflates to more than any network needs.
    """
    stream = zlib.decompressobj(RAW_DEFLATE, zdict=dictionary)
    try:
        content = stream.decompress(blob.tobytes(), MAX_INFLATED_BYTES)
    except zlib.error as error:
        msg = f"expected `{name}` deflated, got: {error}."
        raise ExportError(msg) from error
    if not stream.eof or stream.unused_data:
        msg = (
            f"expected `{name}` deflated, of {MAX_INFLATED_BYTES} bytes at most, got a stream "
            f"that does not end with its {blob.size} bytes."
        )
        raise ExportError(msg)
    return content
