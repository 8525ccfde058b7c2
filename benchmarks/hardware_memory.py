# SPDX-License-Identifier: Apache-2.0
"""How long does the best order of operators take, against the recurrence as it is published?

    python benchmarks/hardware_memory.py

Claim: under 50 ms for MobileNetV2. The peer is the recurrence of uNAS written down literally:
memoised on sets of live tensors, from the results backwards. Both get the same graph and sizes
and must agree. ``candidate_ms`` is all that a candidate costs: from layers and a policy to the
peak. In these networks the given order is the best one; in the randomly wired ones it often is
not: operators that read one to three earlier results, 12, 18 and 24 of them, seeds 0 to 4. The
recurrence is not tried on 24. One thread; processor time, the best of the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from quant_network import write_rows

from bitscout.core import QuantPolicy
from bitscout.hardware import REFERENCE_NETWORKS, load_hardware, reference_network
from bitscout.hardware.operator_graph import OperatorGraph, memory_profile
from bitscout.hardware.operator_order import best_order

N_SEEDS = 5
ROUNDS = 3  # Of the recurrence, and of everything in wired networks.


def recurrence(graph: OperatorGraph, sizes: tuple[int, ...]) -> int:
    """Return the peak: the least over which live tensor was made last, of what came before."""
    history: list[frozenset[int]] = []
    for reads in graph.reads:
        history.append(frozenset().union(*(history[t] | {t} for t in reads)))

    @cache
    def peak(live: frozenset[int]) -> int:
        produced = [t for t in live if t >= graph.n_inputs]
        found = sum(sizes[t] for t in live) if not produced else -1
        for t in produced:
            others = live - {t}
            if any(t in history[u] for u in others):
                continue
            before = others | set(graph.reads[t])
            in_place = any(u not in others and sizes[u] == sizes[t] for u in graph.replaces[t])
            step = sum(sizes[u] for u in before) + (0 if in_place else sizes[t])
            step = max(step, peak(before))
            found = step if found < 0 else min(found, step)
        return found

    return peak(frozenset(range(len(sizes))) - {t for reads in graph.reads for t in reads})


def wired(seed: int, n_operators: int) -> tuple[OperatorGraph, tuple[int, ...]]:
    """Return operators that each read one to three results before them, and sizes of 4 to 16."""
    rng = np.random.default_rng(seed)
    reads: list[tuple[int, ...]] = [()]
    for i in range(1, n_operators + 1):
        chosen = rng.choice(i, min(i, int(rng.integers(1, 4))), replace=False)
        reads.append(tuple(int(t) for t in np.sort(chosen)))
    sizes = tuple(int(size) for size in rng.choice([4, 8, 10, 16], n_operators + 1))
    names = tuple(str(t) for t in range(n_operators + 1))
    return OperatorGraph(names, tuple(reads), ((),) * (n_operators + 1)), sizes


def best_ms(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hardware_memory.csv"))
    args = parser.parse_args()
    model = load_hardware("mcu")
    rows: list[dict[str, object]] = []

    def record(name: str, graph: OperatorGraph, sizes: tuple[int, ...], rounds: int) -> None:
        # A fresh graph each time: what is remembered about a graph is part of the work.
        def order() -> int:
            fresh = OperatorGraph(graph.names, graph.reads, graph.replaces, graph.n_inputs)
            return best_order(fresh, sizes).peak_bytes

        ours = best_ms(order, rounds)
        row: dict[str, object] = {
            "network": name,
            "operators": len(sizes) - graph.n_inputs,
            "peak_bytes": order(),
            "given_order_bytes": memory_profile(graph, sizes).peak_bytes,
            "order_ms": round(ours, 3),
            "candidate_ms": "",
            "recurrence_ms": "",
            "recurrence_over_order": "",
        }
        if len(sizes) < 24 or rounds == args.rounds:
            literal = best_ms(lambda: recurrence(graph, sizes), ROUNDS)
            assert recurrence(graph, sizes) == order()
            row["recurrence_ms"] = round(literal, 3)
            row["recurrence_over_order"] = round(literal / ours, 1)
        rows.append(row)

    for name in REFERENCE_NETWORKS:
        layers = reference_network(name)
        policy = QuantPolicy.uniform(layers.names, 8)
        profile = model.memory(layers, policy)
        record(name, profile.graph, profile.sizes, args.rounds)
        peak_ms = best_ms(
            lambda layers=layers, policy=policy: model.peak_memory(layers, policy), args.rounds
        )
        rows[-1]["candidate_ms"] = round(peak_ms, 3)
        print(rows[-1], flush=True)
    for n_operators in (12, 18, 24):
        for seed in range(N_SEEDS):
            record(f"wired {n_operators}, seed {seed}", *wired(seed, n_operators), ROUNDS)
            print(rows[-1], flush=True)
    write_rows(args.out, rows, "python benchmarks/hardware_memory.py")


if __name__ == "__main__":
    main()
