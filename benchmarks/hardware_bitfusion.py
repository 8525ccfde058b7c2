# SPDX-License-Identifier: Apache-2.0
"""How long a network takes on the Bit Fusion model, against the rule written down plainly.

Claim: MobileNetV2 (53 layers, 8/8 bits, batch 16), nothing cached, in under 0.15 s, and its table
of 7 x 7 bit-widths in under 5 s. The peer is `tests/hardware/literal_bitfusion.py`, the same rule
in Python integers over every tile and every one of the 60 orders, run on the distinct layers only;
both must give the same cycles. `literal_s` is its time and `ratio` what it takes times ours. For
the original simulator the specification of this model gives 43.5 s of CPU on this network, 29.4 s
for its distinct layers; that was not run here.

Times are processor time of one thread, medians over repetitions.

Run: OMP_NUM_THREADS=1 python benchmarks/hardware_bitfusion.py
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from provenance import provenance

sys.path.insert(0, str(Path(__file__).parents[1]))  # For the tests' literal rule.

from tests.hardware.literal_bitfusion import Accelerator, Geometry, cheapest

from bitscout.core import LayerArrays
from bitscout.hardware import LayerModel, load_hardware
from bitscout.hardware.reference_networks import reference_network

LIMITS_S = {"network": 0.15, "table": 5.0}


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def literal(layers: LayerArrays, batch: int, bits: int, *, is_dense: bool) -> tuple[float, int]:
    """Return the seconds and the cycles of the literal rule; each distinct layer is run once."""
    start = time.process_time()
    known: dict[Geometry, int] = {}
    total = 0
    for index in range(len(layers)):
        layer = layers[index]
        in_channels = layer.in_channels // (1 if is_dense else layer.groups)
        shape = (layer.kernel_height, layer.output_height, layer.stride_height, in_channels,
                 layer.out_channels)  # fmt: skip
        geometry = Geometry(*(int(size) for size in shape), bool(layer.reads_input), bits, bits)
        if geometry not in known:
            known[geometry] = cheapest(geometry, batch, Accelerator())[0]
        total += known[geometry]
    return time.process_time() - start, total


def table(layers: LayerArrays) -> tuple[LayerArrays, np.ndarray, np.ndarray]:
    """Return the layers at 2 to 8 bits of weights times 2 to 8 bits of activations."""
    bits = np.array([(w, a) for w in range(2, 9) for a in range(2, 9)])
    w, a = np.tile(bits, (len(layers), 1)).T
    return LayerArrays(layers.table.repeat(len(bits), axis=0)), w, a


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    default = Path(__file__).parent / "results" / "hardware_bitfusion.csv"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    layers = LayerArrays.of(reference_network("mobilenet_v2"))
    eight = np.full(len(layers), 8)
    rows: list[dict[str, object]] = []
    for depthwise in ("ic1", "dense"):
        for batch in (1, 16):
            hardware = load_hardware("bitfusion", depthwise=depthwise, batch=batch)
            assert isinstance(hardware, LayerModel)
            cycles = int(hardware.costs(layers, eight, eight)["cycles"].sum())
            is_dense = depthwise == "dense"
            literal_s, expected = literal(layers, batch, 8, is_dense=is_dense)
            assert cycles == expected, (cycles, expected)
            whole = table(layers)
            ours = {
                "network": [
                    seconds(lambda h=hardware: h.costs(layers, eight, eight))
                    for _ in range(args.repetitions)
                ],
                "table": [seconds(lambda h=hardware, t=whole: h.costs(*t)) for _ in range(3)],
            }
            for what, times in ours.items():
                spent = median(times)
                ratio = f"{literal_s / spent:.0f}" if what == "network" else ""
                rows.append({"what": what, "depthwise": depthwise, "batch": batch,
                             "n_rows": len(layers) * (49 if what == "table" else 1),
                             "seconds": f"{spent:.4f}", "slowest_s": f"{max(times):.4f}",
                             "limit_s": LIMITS_S[what],
                             "literal_s": f"{literal_s:.2f}" if what == "network" else "",
                             "ratio": ratio})  # fmt: skip
                compared = f", the literal rule takes {ratio}x" if ratio else ""
                label = f"{what:8} {depthwise:6} batch {batch:2}"
                print(f"{label}: {spent:.4f} s, limit {LIMITS_S[what]} s{compared}")
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *provenance(("numpy",))], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **provenance(("numpy",))} for row in rows)


if __name__ == "__main__":
    main()
