# SPDX-License-Identifier: Apache-2.0
"""What does an FPGA's DSP pack, and how much faster are the published configurations for it?

    python benchmarks/hardware_packing.py

The first rows are the packings that an exhaustive search finds for equal bits of activations and
weights, signed and unsigned, for several numbers of accumulated products, and all mixed bits at
two products. The others are speed-ups over the same network at width 1 and 16 bits, for the
configurations and rows of Azizi et al. (https://arxiv.org/abs/2308.06422, Tables II to IV) from
which they can be computed, with the published figure beside them. Nothing here depends on the
machine.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from provenance import provenance

from bitscout.core import LayerBits, LayerGraph, QuantPolicy
from bitscout.hardware import load_hardware, reference_network
from bitscout.hardware.dsp_packing import best_packing
from bitscout.hardware.reference_networks import resnet20

COLUMNS = (
    "what", "act_bits", "weight_bits", "signed", "accumulate", "n_acts", "n_weights",
    "slice_bits", "mults", "adds", "mode", "count", "rows", "columns", "megabytes",
    "published_megabytes", "speedup", "published_speedup",
)  # fmt: skip
# Table IV prints 19 bit-widths for 20 layers, and 17 for 18: the last is taken to be the missing
# one, or the one that completes the pairs of layers of a residual block.
RESNET20 = {
    "as printed, last repeated": [8, *[3] * 7, 2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 8, 8],
    "pairs completed": [8, *[3] * 8, 2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 8],
}
RESNET18 = {
    "as printed, last repeated": [8, 6, 6, 4, 4, 6, 6, 4, 4, 4, 2, 2, 3, 3, 2, 2, 6, 6],
    "pairs completed": [8, 6, 6, 4, 4, 6, 6, 4, 4, 4, 4, 2, 2, 3, 3, 2, 2, 6],
}
UNROUNDED = ("systolic-fpga", "systolic-fpga:count=ops")
ROUNDED = [
    f"systolic-fpga:mode=ceil,rows={rows},columns={columns}"
    for rows, columns in product((8, 16, 32, 64), repeat=2)
]


def packings() -> Iterator[dict[str, object]]:
    equal = [
        (b, b, signed, t)
        for b in (2, 3, 4, 5, 6, 7, 8, 16)
        for signed in (False, True)
        for t in (1, 2, 3, 4, 8, 16)
    ]
    mixed = [(p, q, True, 2) for p, q in product(range(2, 9), repeat=2) if p != q]
    for act_bits, weight_bits, signed, accumulate in equal + mixed:
        found = best_packing(act_bits, weight_bits, signed=signed, accumulate=accumulate)
        yield {
            "what": "packing", "act_bits": act_bits, "weight_bits": weight_bits,
            "signed": signed, "accumulate": accumulate, "n_acts": found.n_acts,
            "n_weights": found.n_weights, "slice_bits": found.slice_bits,
            "mults": found.mults, "adds": found.adds,
        }  # fmt: skip


def speedup(
    what: str,
    spec: str,
    baseline: LayerGraph,
    graph: LayerGraph,
    bits: Mapping[str, int],
    published: Mapping[str, float],
    counted: Sequence[str] | None = None,
) -> dict[str, object]:
    """Return one row; layers that `bits` leaves out stay at 16 bits.

    With `counted`, the other layers of `graph` take no time at all.
    """
    model = load_hardware(spec)
    wide = model.report(baseline, QuantPolicy.uniform(baseline.names, 8)).total["cycles_16bit"]
    policy = QuantPolicy({name: LayerBits(*[bits.get(name, 8)] * 2) for name in graph.names})
    layers = model.report(graph, policy).layers
    cycles = sum(
        layer.costs["cycles" if layer.name in bits else "cycles_16bit"]
        for layer in layers
        if counted is None or layer.name in counted
    )
    stored = sum(layer.n_weights * bits.get(layer.name, 16) for layer in graph)
    return {
        "what": what, "mode": model.mode, "count": model.count,
        "rows": model.rows, "columns": model.columns, "accumulate": model.accumulate,
        "megabytes": round(stored / 8e6, 4), "speedup": round(wide / cycles, 3), **published,
    }  # fmt: skip


def resnet20_rows() -> Iterator[dict[str, object]]:
    graph = resnet20(widths=(16, 24, 48))
    # Table III has the size of this configuration, Table II another of the same search.
    published = {"published_megabytes": 0.052, "published_speedup": 18.8}
    for (reading, bits), spec in product(RESNET20.items(), (*UNROUNDED, *ROUNDED)):
        given = dict(zip(graph.names, bits, strict=True))
        what = f"ResNet-20, CIFAR-10, {reading}"
        yield speedup(what, spec, resnet20(), graph, given, published)
        if spec in UNROUNDED:
            threes = [name for name, width in given.items() if width == 3]
            what += ", bound: only its layers of 3 bits take time"
            yield speedup(what, spec, resnet20(), graph, given, published, threes)


def resnet18_rows() -> Iterator[dict[str, object]]:
    baseline = reference_network("resnet18")
    scaled = {64: 80, 128: 112}  # Widths 1.25 and 0.875 in the first two stages.
    graph = LayerGraph(
        tuple(
            replace(
                layer,
                in_channels=scaled.get(layer.in_channels, layer.in_channels),
                out_channels=scaled.get(layer.out_channels, layer.out_channels),
            )
            for layer in baseline
        )
    )
    shortcuts = [name for name in graph.names if "downsample" in name]
    main = [name for name in graph.names if name not in shortcuts]
    published = {"published_megabytes": 4.01, "published_speedup": 10.9}
    for (reading, bits), spec in product(RESNET18.items(), (*UNROUNDED, *ROUNDED)):
        for shortcut_bits in (4, 6, 8):
            given = dict(zip(main, bits, strict=True)) | dict.fromkeys(shortcuts, shortcut_bits)
            what = f"ResNet-18, ImageNet, {reading}, shortcuts {shortcut_bits} bits"
            yield speedup(what, spec, baseline, graph, given, published)
        if spec in UNROUNDED:
            what = f"ResNet-18, ImageNet, {reading}, bound: only its first 3 layers take time"
            yield speedup(what, spec, baseline, graph, given, published, main[:3])


def uniform_rows() -> Iterator[dict[str, object]]:
    graph = reference_network("mobilenet_v2")
    first, last = graph.names[0], graph.names[-1]
    fours = dict.fromkeys(graph.names, 4)
    variants = {
        "all layers 4 bits": fours,
        "first and last 8 bits": fours | {first: 8, last: 8},
        "first 16 bits": {name: 4 for name in graph.names if name != first},
        "first and last 16 bits": {name: 4 for name in graph.names if name not in (first, last)},
    }
    for (reading, bits), spec in product(variants.items(), (*UNROUNDED, *ROUNDED)):
        what = f"MobileNetV2, ImageNet, PACT 4/4, {reading}"
        yield speedup(what, spec, graph, graph, bits, {"published_speedup": 5.09})


def show(rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        if row["what"] == "packing":
            continue
        if row["mode"] == "ideal":
            print(f"{row['what']:60s} {row['count']:5s} {row['speedup']:>7}x, "
                  f"published {row['published_speedup']}x; {row['megabytes']} MB")  # fmt: skip
    for what in dict.fromkeys(row["what"] for row in rows if row["what"] != "packing"):
        found = [r["speedup"] for r in rows if r["what"] == what and r["mode"] == "ceil"]
        if found:
            print(f"{what:60s} arrays of 8 to 64: {min(found)}x to {max(found)}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    out = Path("benchmarks/results/hardware_packing.csv")
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    rows = [*packings(), *resnet20_rows(), *resnet18_rows(), *uniform_rows()]
    show(rows)
    where = provenance(("numpy",)) | {"command": "python benchmarks/hardware_packing.py"}
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *where], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | where for row in rows)


if __name__ == "__main__":
    main()
