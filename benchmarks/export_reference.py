# SPDX-License-Identifier: Apache-2.0
"""How fast does the NumPy executor score a test set, against PyTorch's float inference?

    python benchmarks/export_reference.py

Claim: at least 200 images of 32x32x3 a second on two cores for a MobileNetV2-like network of
50 kB. Weights have 2 to 8 bits at random: the seed of the BOMP space has 50 kB of weights (65 kB
with biases), 20 million multiply-accumulates and 1.5 million activations an image; one that halves
the image earlier and is wider (`bomp_strided`) has fewer of both. `float` is the network in
PyTorch, channels-last, in inference mode; `fake_quant` is the quantized one in PyTorch, the other
way to score. Each runs on one thread, in turn (A B C A B C ...). Figures are processor time, the
best of the rounds, since other programs on the machine can only slow it down; the ratios are of
runs next to each other, medians and quartiles. `images_per_s_two_cores` is twice one core's rate:
batches are independent. `images_per_s_wall` is what two threads reached by the clock next to
whatever else ran: the load is recorded.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from quant_network import write_rows
from torch import nn

from bitscout.core import LayerBits, QuantPolicy
from bitscout.export.graph import IntegerGraph
from bitscout.export.lowering import lower
from bitscout.export.reference import Reference
from bitscout.networks import build_network
from bitscout.quantization import layer_names, post_training_quantize
from bitscout.space import BompSpace, MobileNetSpec

# Of the strided network's blocks 2 to 7: output channels, repetitions, stride.
STRIDED = ((12, 2, 1), (16, 3, 2), (24, 3, 2), (24, 2, 1), (32, 2, 2), (48, 1, 1))
HEAD_CHANNELS = 256


def seed() -> MobileNetSpec:
    space = BompSpace(widths="cifar10")
    return space.architecture(space.seed_values())


def strided() -> MobileNetSpec:
    spec = seed()
    blocks = [
        replace(block, out_channels=channels, repetitions=repetitions, stride=stride)
        for block, (channels, repetitions, stride) in zip(spec.blocks[1:], STRIDED, strict=True)
    ]
    return replace(spec, blocks=(spec.blocks[0], *blocks), head_channels=HEAD_CHANNELS)


NETWORKS = {"bomp_seed": seed, "bomp_strided": strided}


def network(name: str, x: torch.Tensor) -> tuple[nn.Module, nn.Module, IntegerGraph]:
    net = build_network(NETWORKS[name](), generator_seed=0).train()
    for _ in range(3):
        net(x)  # Running statistics worth folding.
    net = net.eval()
    rng = np.random.default_rng(0)
    policy = QuantPolicy(
        {name: LayerBits(int(rng.integers(2, 9)), 8) for name in layer_names(net)}
    )
    quantized = post_training_quantize(net, policy, x).eval()
    return net, quantized, lower(quantized, x[:1])


def in_torch(net: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    net = net.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return [net(part) for part in x.split(64)]

    return run


def macs(graph: IntegerGraph) -> int:
    return sum(layer.weight.size * int(np.prod(layer.shape[1:])) for layer in graph.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/export_reference.csv")
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(args.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, object]] = []
    for name in args.networks:
        net, quantized, graph = network(name, x[:64])
        reference, threaded = Reference(graph, 1), Reference(graph, 2)
        images = x.numpy()
        runs = {
            "float": in_torch(net, x),
            "fake_quant": in_torch(quantized, x),
            "reference": lambda reference=reference, images=images: reference.run(images),
        }
        for run in runs.values():
            run()
        times = [{key: seconds(run, time.process_time) for key, run in runs.items()}
                 for _ in range(args.rounds)]  # fmt: skip
        walls = [
            seconds(lambda run=threaded.run, images=images: run(images), time.perf_counter)
            for _ in range(args.rounds)
        ]
        for key in runs:
            ratios = [round_["float"] / round_[key] for round_ in times]
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).round(3).tolist()
            cpu_ms = min(round_[key] for round_ in times) / args.images * 1e3
            wall = round(args.images / min(walls)) if key == "reference" else ""
            print(f"{name:12} {key:10} {cpu_ms:5.2f} ms an image, {2000 / cpu_ms:5.0f} images/s, "
                  f"{middle:.2f}x float [{low:.2f}, {high:.2f}] {wall}", flush=True)  # fmt: skip
            rows.append({"network": name, "variant": key,
                         "weight_kbytes": graph.weight_bits / 8000,
                         "kbytes": graph.size_bits / 8000, "mmacs": round(macs(graph) / 1e6, 2),
                         "images": args.images, "rounds": args.rounds,
                         "cpu_ms_per_image": round(cpu_ms, 3),
                         "images_per_s_two_cores": round(2000 / cpu_ms),
                         "images_per_s_wall": wall, "speed_median": middle,
                         "speed_q25": low, "speed_q75": high, "seed": 0,
                         "load_average": round(os.getloadavg()[0], 1)})  # fmt: skip
    write_rows(args.out, rows, "python benchmarks/export_reference.py")


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


if __name__ == "__main__":
    main()
