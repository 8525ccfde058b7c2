# SPDX-License-Identifier: Apache-2.0
"""How much faster is a lookup table than the hardware model it was made of?

Claim: a candidate costs under 0.2 ms, and 10,000 candidates are looked up at over a million layers
a second, for every quantity of the model.

`one` is MobileNetV2 at one policy, a mapping of layers to bits; `many` is MobileNetV2 at 10,000
random assignments of bits; `networks` are 10,000 random networks of the BOMP-NAS space, each with
other layers, that must be found in the table first. The peer is the model itself, one vectorized
call for all layers of 50 candidates (`one`: one). Both must agree. A model that is a formula, such
as `size`, is as fast without a table. One thread; processor time, the best of the rounds.

Run: python benchmarks/hardware_lookup.py
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from bitscout.core import LayerArrays, LayerBits, QuantPolicy
from bitscout.hardware import LayerModel, LookupTable, load_hardware, reference_network
from bitscout.space import BompSpace

HARDWARE = ("bitfusion", "systolic-fpga", "size")
N_DIRECT = 50


def best_s(run: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    times, answer = [], None
    for _ in range(rounds):
        start = time.process_time()
        answer = run()
        times.append(time.process_time() - start)
    return min(times), answer


def direct(
    model: LayerModel,
    layers: LayerArrays,
    bits: tuple[np.ndarray, np.ndarray],
    present: np.ndarray,
) -> dict[str, Any]:
    """Return the totals of networks of shape (n, L), computed by the model in one call."""
    costs = model.checked_costs(layers[present], bits[0][present], bits[1][present])
    square = {name: np.zeros(present.shape, values.dtype) for name, values in costs.items()}
    for name, values in costs.items():
        square[name][present] = values
    return model.totals(square)


def check(totals: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    for name, values in others.items():
        np.testing.assert_allclose(np.asarray(totals[name])[: np.size(values)], values, rtol=1e-12)


def cases(name: str, n: int, rounds: int) -> list[dict[str, object]]:
    model = load_hardware(name)
    assert isinstance(model, LayerModel)
    rng = np.random.default_rng(0)
    graph = reference_network("mobilenet_v2")
    layers = LayerArrays.of(graph)
    build_s, table = best_s(lambda: LookupTable.build(model, layers, range(2, 9), range(2, 9)), 3)
    bound = table.bind(graph)
    weight_bits, act_bits = rng.integers(2, 9, (2, n, len(graph)))
    policy = QuantPolicy(
        {
            layer: LayerBits(int(w), int(a))
            for layer, w, a in zip(graph.names, weight_bits[0], act_bits[0], strict=True)
        }
    )
    square = layers[np.zeros((N_DIRECT, 1), int) + np.arange(len(graph))]
    everything = np.ones(square.shape, dtype=bool)

    def row(
        case: str, distinct: int, build: float, lookups: int, found: float, peer: float, many: int
    ) -> dict[str, object]:
        return {
            "hardware": name,
            "quantities": len(model.quantities),
            "case": case,
            "candidates": many,
            "table_layers": distinct,
            "build_s": round(build, 4),
            "table_ms": round(1e3 * found / many, 6),
            "million_layers_per_s": round(lookups / found / 1e6, 3),
            "model_ms": round(1e3 * peer, 4),
            "model_over_table": round(peer / (found / many), 1),
        }

    # 100 calls a round: a single one is too short for the clock.
    repeated_s, totals = best_s(lambda: [bound.policy_totals(policy) for _ in range(100)], rounds)
    pair = (weight_bits[:1], act_bits[:1])
    model_s, others = best_s(lambda: direct(model, square[:1], pair, everything[:1]), rounds)
    check({key: [value] for key, value in totals[0].items()}, others)
    args = (len(table.layers), build_s)
    rows = [row("one", *args, len(graph), repeated_s / 100, model_s, 1)]

    found_s, totals = best_s(lambda: bound.totals(weight_bits, act_bits), rounds)
    pair = (weight_bits[:N_DIRECT], act_bits[:N_DIRECT])
    model_s, others = best_s(lambda: direct(model, square, pair, everything), rounds)
    check(totals, others)
    rows.append(row("many", *args, weight_bits.size, found_s, model_s / N_DIRECT, n))

    space = BompSpace(widths="cifar10")
    variants = space.layer_variants()
    build_s, table = best_s(
        lambda: LookupTable.build(model, variants.layers, variants.weight_bits, variants.act_bits),
        1,
    )
    nets = space.tabulate(space.sample_indices(rng, n))
    bits, present = (nets.weight_bits, nets.act_bits), nets.present
    found_s, totals = best_s(lambda: table.totals(nets.layers, *bits, present), rounds)
    some = slice(0, N_DIRECT)
    pair = (bits[0][some], bits[1][some])
    model_s, others = best_s(lambda: direct(model, nets.layers[some], pair, present[some]), rounds)
    check(totals, others)
    args = (len(table.layers), build_s)
    rows.append(row("networks", *args, int(present.sum()), found_s, model_s / N_DIRECT, n))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in HARDWARE:
        for row in cases(name, args.candidates, args.rounds):
            rows.append(row)
            print(row, flush=True)
    with (args.out / "hardware_lookup.csv").open("w", newline="") as file:
        where = provenance(("numpy",))
        writer = csv.DictWriter(file, [*rows[0], *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)


if __name__ == "__main__":
    main()
