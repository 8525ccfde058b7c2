# SPDX-License-Identifier: Apache-2.0
"""Several narrow multiplications in one wide multiplier, as HiKonv packs them.

Notation:

    p, q    bits of an activation and of a weight
    N, K    activations and weights in one operand each
    S       bits of a slice
    T       products that are summed before they are unpacked
    x, g    the activations, shape ``(N,)``, and the weights, shape ``(K,)``
    y       what comes out, shape ``(N + K - 1,)``

One operand is ``A = sum_n x_n 2^(S n)``, the other ``W = sum_k g_k 2^(S k)``. Their product is
``sum_m y_m 2^(S m)`` with ``y_m = sum_(n + k = m) x_n g_k``: the convolution of x and g, which are
``N K`` multiplications and ``(N - 1)(K - 1)`` additions (Section III of [Liu2022]_). Slices of
signed values are not the bits of the y: a negative y borrows one from the slice above it.

Deviation: [Liu2022]_ takes ``S = p + q + ceil(log2(T min(N, K)))`` and fills the ports to
``p + (N - 1) S`` bits. That overflows the port where every signed value is the smallest, and
wastes a bit where ``T min(N, K)`` is no power of two. `Packing.fits` has the exact conditions.

References:
    .. [Liu2022] X. Liu, Y. Chen et al. HiKonv: High Throughput Quantized Convolution with Novel
       Bit-wise Management and Computation. ASP-DAC 2022. https://arxiv.org/abs/2112.13972
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitscout.errors import ConfigError, UnsupportedError
from bitscout.hardware.dsp_ports import DSP48E2, DspPorts

__all__ = ["DSP48E2", "DspPorts", "Packing", "best_packing"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packing:
    """How many values share a multiplier, and where; see the module for N, K, S, T.

    Attributes:
        n_acts: N.
        n_weights: K.
        slice_bits: S.
        act_bits: p.
        weight_bits: q.
        signed: Whether both values are signed, from ``-2^(b-1)`` to ``2^(b-1) - 1``, rather than
            both unsigned, from 0 to ``2^b - 1``.
        accumulate: T.

    Raises:
        ConfigError: If a number is below 1, or the slices take more than 63 bits together.
    """

    n_acts: int
    n_weights: int
    slice_bits: int
    act_bits: int
    weight_bits: int
    signed: bool = True
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Reject what 64-bit integers cannot compute."""
        numbers = (self.n_acts, self.n_weights, self.slice_bits, self.act_bits, self.weight_bits)
        if min(*numbers, self.accumulate) < 1:
            msg = f"Every number of a packing must be at least 1, got {self}."
            raise ConfigError(msg)
        if (self.n_acts + self.n_weights - 1) * self.slice_bits > 63:
            msg = f"The slices of a packing may take 63 bits together, got {self}."
            raise ConfigError(msg)

    @property
    def mults(self) -> int:
        """Multiplications in one of the multiplier."""
        return self.n_acts * self.n_weights

    @property
    def adds(self) -> int:
        """Additions in one multiplication."""
        return (self.n_acts - 1) * (self.n_weights - 1)

    def fits(self, ports: DspPorts = DSP48E2) -> bool:
        """Return whether no value overflows a port, a slice or the accumulator; exact."""
        act_range = _extremes(self.act_bits, signed=self.signed)
        weight_range = _extremes(self.weight_bits, signed=self.signed)
        sums = min(self.n_acts, self.n_weights) * self.accumulate
        slices = self.n_acts + self.n_weights - 1
        return (
            self.slice_bits >= _slice_bits(self.act_bits, self.weight_bits, self.signed, sums)
            and _fits_port(act_range, self.n_acts, self.slice_bits, ports.act_bits)
            and _fits_port(weight_range, self.n_weights, self.slice_bits, ports.weight_bits)
            and slices * self.slice_bits <= ports.accumulator_bits
        )

    def pack_acts(self, acts: ArrayLike) -> IntArray:
        """Return activations of shape ``(*, N)`` as operands of shape ``(*)``.

        Raises:
            ConfigError: If there are not N of them, or one is no integer of `act_bits`.
        """
        return self._pack(acts, self.n_acts, self.act_bits, "activations")

    def pack_weights(self, weights: ArrayLike) -> IntArray:
        """Return weights of shape ``(*, K)`` as operands of shape ``(*)``.

        Raises:
            ConfigError: If there are not K of them, or one is no integer of `weight_bits`.
        """
        return self._pack(weights, self.n_weights, self.weight_bits, "weights")

    def unpack(self, accumulators: IntArray) -> IntArray:
        """Return the y, shape ``(*, N + K - 1)``, of accumulators of shape ``(*)``."""
        shifts = self.slice_bits * np.arange(self.n_acts + self.n_weights - 1)
        accumulated = accumulators[..., None]
        fields = (accumulated >> shifts) & ((1 << self.slice_bits) - 1)
        if not self.signed:
            return np.asarray(fields, dtype=np.int64)
        sign = 1 << (self.slice_bits - 1)
        fields = (fields ^ sign) - sign
        # A negative y took one from the slice above; the top bit of its field tells.
        fields[..., 1:] += (accumulated >> (shifts[1:] - 1)) & 1
        return np.asarray(fields, dtype=np.int64)

    def convolve(self, acts: ArrayLike, weights: ArrayLike) -> IntArray:
        """Return ``sum_t acts_t * weights_t`` (convolutions), one multiplication for each t.

        Args:
            acts: Shape ``(*, t, N)`` with t from 1 to `accumulate`.
            weights: Shape ``(*, t, K)``.

        Returns:
            Shape ``(*, N + K - 1)``, exact if the packing `fits`.

        Raises:
            ConfigError: If a shape or a value is not as said.

        Example:
            >>> packing = best_packing(4, 4, signed=True)
            >>> packing.convolve([[7, -8, 3]], [[-8, 5]]).tolist()
            [-56, 99, -64, 15]
        """
        products = self.pack_acts(acts) * self.pack_weights(weights)
        if products.ndim == 0 or not 1 <= products.shape[-1] <= self.accumulate:
            msg = (
                f"The packing has room for 1 to {self.accumulate} products before they are "
                f"unpacked, got products of shape {products.shape}, the last dimension summed."
            )
            raise ConfigError(msg)
        return self.unpack(products.sum(axis=-1))

    def _pack(self, values: ArrayLike, count: int, bits: int, what: str) -> IntArray:
        array = np.asarray(values)
        low, high = _extremes(bits, signed=self.signed)
        if not np.issubdtype(array.dtype, np.integer) or array.shape[-1:] != (count,):
            msg = (
                f"Expected integer {what} of shape (..., {count}), got {array.dtype} of shape "
                f"{array.shape}."
            )
            raise ConfigError(msg)
        if array.size and not (low <= array.min() and array.max() <= high):
            msg = (
                f"{what.capitalize()} of {bits} bits run from {low} to {high}, got "
                f"{array.min()} to {array.max()}."
            )
            raise ConfigError(msg)
        weights = np.int64(1) << (self.slice_bits * np.arange(count, dtype=np.int64))
        packed: Any = (array.astype(np.int64) * weights).sum(axis=-1)
        return np.asarray(packed, dtype=np.int64)


@cache
def best_packing(
    act_bits: int,
    weight_bits: int,
    *,
    signed: bool,
    accumulate: int = 2,
    ports: DspPorts = DSP48E2,
) -> Packing:
    """Return the packing with the most multiplications, by trying every N, K and S.

    Of several with as many multiplications, the one with the most additions; then the one with
    the narrowest slice; then the one with more activations. A wider slice than the narrowest that
    holds the sums only fills the ports, so one S is tried for each N and K.

    Args:
        act_bits: p, >= 1.
        weight_bits: q, >= 1.
        signed: Whether both values are signed.
        accumulate: T, >= 1.
        ports: The multiplier.

    Raises:
        ConfigError: If a number is below 1.
        UnsupportedError: If not even one product fits.

    Example:
        >>> packing = best_packing(2, 2, signed=False)
        >>> packing.n_acts, packing.n_weights, packing.slice_bits, packing.mults, packing.adds
        (5, 3, 6, 15, 8)
    """
    if min(act_bits, weight_bits, accumulate) < 1:
        msg = (
            "A packing needs at least 1 bit of activations and weights and 1 product to sum, got "
            f"act_bits={act_bits}, weight_bits={weight_bits}, accumulate={accumulate}."
        )
        raise ConfigError(msg)
    found = []
    for n_acts, n_weights in product(
        range(1, ports.act_bits + 1), range(1, ports.weight_bits + 1)
    ):
        sums = min(n_acts, n_weights) * accumulate
        slice_bits = _slice_bits(act_bits, weight_bits, signed, sums)
        if (n_acts + n_weights - 1) * slice_bits > ports.accumulator_bits:
            continue
        packing = Packing(n_acts, n_weights, slice_bits, act_bits, weight_bits, signed, accumulate)
        if packing.fits(ports):
            found.append(packing)
    if not found:
        msg = (
            f"A multiplier of {ports.act_bits} x {ports.weight_bits} bits with an accumulator of "
            f"{ports.accumulator_bits} has no room for {accumulate} products of "
            f"{'signed' if signed else 'unsigned'} {act_bits} x {weight_bits} bits. Accumulate "
            "fewer, or take fewer bits."
        )
        raise UnsupportedError(msg)
    return max(found, key=lambda p: (p.mults, p.adds, -p.slice_bits, p.n_acts))


def _extremes(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _slice_bits(act_bits: int, weight_bits: int, signed: bool, sums: int) -> int:
    """Return the narrowest slice that holds the sum of any `sums` products."""
    if signed:
        # The largest product is that of the two smallest values; it must stay below the sign.
        return int(sums << (act_bits + weight_bits - 2)).bit_length() + 1
    return int(sums * (2**act_bits - 1) * (2**weight_bits - 1)).bit_length()


def _fits_port(extremes: tuple[int, int], count: int, slice_bits: int, port_bits: int) -> bool:
    """Return whether every `count` values packed are a two's complement number of the port."""
    ones = sum(1 << (slice_bits * index) for index in range(count))
    low, high = (extreme * ones for extreme in extremes)
    limit = 1 << (port_bits - 1)
    return -limit <= low and high < limit
