# SPDX-License-Identifier: Apache-2.0
"""How long does packing ten million weights take, against NumPy's own one-bit packing?

    python benchmarks/export_packing.py

Claim: under 1 s for any width, packing and unpacking. The peers are `numpy.packbits` over as
many codes (it makes one bit of each) and a plain copy of the int8 codes. One thread; processor
time, the best of the rounds, since other programs on the machine can only slow it down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from quant_network import write_rows

from bitscout.quantization import pack_bits, packed_size, unpack_bits


def best(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export_packing.csv"))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for bits in range(2, 9):
        codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), args.weights).astype(np.int8)
        blob = pack_bits(codes, bits)
        assert blob.size == packed_size(codes.size, bits)
        assert np.array_equal(unpack_bits(blob, bits, codes.size), codes)
        packing = best(lambda codes=codes, bits=bits: pack_bits(codes, bits), args.rounds)
        unpacking = best(
            lambda blob=blob, bits=bits, n=codes.size: unpack_bits(blob, bits, n), args.rounds
        )
        packbits = best(lambda codes=codes: np.packbits(codes, bitorder="little"), args.rounds)
        copy = best(codes.copy, args.rounds)
        over = round(packing / packbits, 2), round(unpacking / packbits, 2)
        print(f"{bits} bits: pack {packing * 1e3:5.1f} ms, unpack {unpacking * 1e3:5.1f} ms, "
              f"{over[0]:.0f}x and {over[1]:.0f}x numpy.packbits, "
              f"{packing / copy:.0f}x and {unpacking / copy:.0f}x a copy", flush=True)  # fmt: skip
        rows.append({"weight_bits": bits, "weights": args.weights, "rounds": args.rounds,
                     "pack_ms": round(packing * 1e3, 2), "unpack_ms": round(unpacking * 1e3, 2),
                     "packbits_ms": round(packbits * 1e3, 2), "copy_ms": round(copy * 1e3, 2),
                     "pack_over_packbits": over[0], "unpack_over_packbits": over[1],
                     "seed": 0})  # fmt: skip
    write_rows(args.out, rows, "python benchmarks/export_packing.py")


if __name__ == "__main__":
    main()
