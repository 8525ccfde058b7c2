# SPDX-License-Identifier: Apache-2.0
"""Which Bit Fusion gives the absolute figures of Gong et al. (ICCAD 2019)? None that was tried.

Table II of "Mixed Precision Neural Architecture Search for Energy Efficient Deep Learning" states
mJ and ms of 8-bit networks on Bit Fusion, "exactly the HAQ setting", batch 16. This script sweeps
array, DRAM bandwidth, buffers, width of partial sums, cost of DRAM, depthwise mode and batch, and
says how near each comes: the largest factor between ours and theirs over the six figures of
VGG-16, ResNet-50 and MobileNetV2 (`factor`), and the same where all milliseconds may be scaled by
one number and all millijoules by another (`factor_scaled`), as an unstated clock or technology
would. The file of rows keeps, of each array, bandwidth, buffers, width and batch, the nearest
setting, HAQ's machine at batch 16 in every depthwise mode, and the extremes that are printed.

Run: OMP_NUM_THREADS=1 python benchmarks/hardware_papers.py
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from provenance import provenance

from bitscout.core import LayerArrays
from bitscout.hardware import LayerModel, load_hardware
from bitscout.hardware.reference_networks import reference_network

NETWORKS = ("vgg16", "resnet50", "mobilenet_v2")
# Table II, 8 bits: ms, then mJ.
PUBLISHED = np.array([[838.03, 591.17, 73.85], [753.11, 557.46, 29.01]])
ARRAYS = ((8, 8), (16, 16), (16, 32), (32, 16), (32, 32), (16, 64), (32, 64), (64, 64))
BITS_PER_CYCLE = (64, 192, 1024)
# Bytes of a bank of the weight, input and output buffer in the three shipped configurations.
BANKS = ((128, 2048, 512), (256, 8192, 4096), (4096, 8192, 2048))
DEPTHWISE = ("dense", "ic1", "block")
DRAM_PJ = (15, 6)  # What the simulator computes with, and what a comment in it says.


def figures(layers: LayerArrays, depthwise: str, options: dict[str, int]) -> list[float]:
    """Return ms, mJ without DRAM and mJ of DRAM of a network at 8 bits."""
    hardware = load_hardware("bitfusion", depthwise=depthwise, **options)
    assert isinstance(hardware, LayerModel)
    eight = np.full(len(layers), 8)
    costs = hardware.costs(layers, eight, eight)
    ms, mj, dram = (costs[name].sum() for name in ("latency_ms", "energy_mj", "dram_mj"))
    return [ms, mj - dram, dram]


def factors(ours: np.ndarray) -> tuple[float, float]:
    """Return the largest factor to the published figures, as they are and scaled."""
    logs = np.log(ours / PUBLISHED)
    middle = (logs.max(axis=1, keepdims=True) + logs.min(axis=1, keepdims=True)) / 2
    return float(np.exp(np.abs(logs).max())), float(np.exp(np.abs(logs - middle).max()))


def sweep() -> Iterator[dict[str, object]]:
    layers = {name: LayerArrays.of(reference_network(name)) for name in NETWORKS}
    grid = product(ARRAYS, BITS_PER_CYCLE, BANKS, (32, 8), (16, 1))
    for (rows, columns), bits_per_cycle, banks, sum_bits, batch in grid:
        options = {
            "rows": rows,
            "columns": columns,
            "dram_bits_per_cycle": bits_per_cycle,
            "wbuf_bytes": banks[0] * rows * columns,
            "ibuf_bytes": banks[1] * rows,
            "obuf_bytes": banks[2] * columns,
            "partial_sum_bits": sum_bits,
            "batch": batch,
        }
        # Only MobileNetV2 has depthwise convolutions.
        large = [figures(layers[name], "ic1", options) for name in NETWORKS[:2]]
        for depthwise in DEPTHWISE:
            small = figures(layers[NETWORKS[2]], depthwise, options)
            found = np.array([*large, small]).T
            for dram_pj in DRAM_PJ:
                energy = found[1] + found[2] * dram_pj / 15
                ours = np.stack([found[0], energy])
                factor, scaled = factors(ours)
                yield {
                    **options, "depthwise": depthwise, "dram_pj_per_bit": dram_pj,
                    **{f"{n}_ms": f"{ours[0, i]:.2f}" for i, n in enumerate(NETWORKS)},
                    **{f"{n}_mj": f"{ours[1, i]:.2f}" for i, n in enumerate(NETWORKS)},
                    "resnet50_per_vgg16_ms": f"{ours[0, 1] / ours[0, 0]:.3f}",
                    "factor": f"{factor:.2f}", "factor_scaled": f"{scaled:.2f}",
                }  # fmt: skip


def is_haq(row: dict[str, object]) -> bool:
    wanted = {"rows": 16, "columns": 32, "dram_bits_per_cycle": 192, "wbuf_bytes": 65536,
              "partial_sum_bits": 32, "batch": 16, "dram_pj_per_bit": 15}  # fmt: skip
    return all(row[key] == value for key, value in wanted.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "hardware_papers.csv"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    found = list(sweep())
    extremes = {
        "nearest": min(found, key=lambda row: float(str(row["factor"]))),
        "nearest when scaled": min(found, key=lambda row: float(str(row["factor_scaled"]))),
        "ResNet-50 takes most of VGG-16's ms": max(
            found, key=lambda row: float(str(row["resnet50_per_vgg16_ms"]))
        ),
    }
    print(f"{len(found)} settings; published: ms and mJ {PUBLISHED.tolist()}, "
          f"ResNet-50 / VGG-16 {PUBLISHED[0, 1] / PUBLISHED[0, 0]:.3f} in ms")  # fmt: skip
    for name, row in extremes.items():
        print(f"{name}:", *(f"{key}={value}" for key, value in row.items()))
    nearest: dict[tuple[object, ...], dict[str, object]] = {}
    for row in found:
        key = tuple(list(row.values())[:8])
        if key not in nearest or float(str(row["factor"])) < float(str(nearest[key]["factor"])):
            nearest[key] = row
    kept = [*nearest.values(), *extremes.values()]
    rows = [row for row in found if is_haq(row) or row in kept]
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *provenance(("numpy",))], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **provenance(("numpy",))} for row in rows)


if __name__ == "__main__":
    main()
